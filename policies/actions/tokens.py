"""Actions as tokens: a discrete action is one token; a Box action has one per dimension, binned over the data's limits."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from envs.data.statistics import Statistics
from policies.base import Batch
from policies.noise import Noise

BINS = (2, 4096)  # fewest and most bins of a dimension


def check_bins(bins: int) -> None:
    if not BINS[0] <= bins <= BINS[1]:
        raise ValueError(f"bins must be between {BINS[0]} and {BINS[1]}, got {bins}")


def choose(logits: Tensor, noise: Noise, greedy: bool) -> Tensor:
    """One token [B, ...] chosen from logits [B, ..., V]."""
    return logits.argmax(-1) if greedy else noise.categorical(logits)


def check_spread(spread: float) -> None:
    if not 0 <= spread <= 100:
        raise ValueError(f"label_spread must be between 0 (none) and 100 bins, got {spread}")


class Tokens(nn.Module):
    """An action is `per_action` tokens of `values` values each. Plans have two more: END (episode over) and PAD after it."""

    low: Tensor
    width: Tensor

    def __init__(self, space: spaces.Space, bins: int):
        super().__init__()
        self.discrete = isinstance(space, spaces.Discrete)
        self.shape: tuple[int, ...] = space.shape or ()
        if isinstance(space, spaces.Discrete):
            self.values, self.per_action, self.first = int(space.n), 1, int(space.start)
        else:
            assert isinstance(space, spaces.Box)
            self.values, self.per_action = bins, int(np.prod(space.shape))
            low, high = (torch.from_numpy(np.nan_to_num(x, posinf=1, neginf=-1)).flatten() for x in (space.low, space.high))
            self.register_buffer("low", low.float())  # [A]
            self.register_buffer("width", (high - low).float() / bins)  # [A] width of a bin
        self.END, self.PAD = self.values, self.values + 1

    def fit(self, statistics: Statistics) -> None:
        """Set the bins to the range of the training data, which is often far smaller than the space."""
        if self.discrete:
            return
        moments = statistics.action
        low, high = (torch.from_numpy(x).flatten().float() for x in (moments.low, moments.high))
        self.low.copy_(low)
        self.width.copy_((high - low).clamp(min=1e-6) / self.values)

    def encode(self, action: Tensor) -> Tensor:
        """Actions [B, T, *A] as tokens [B, T, per_action]. Values outside the bins go into the outermost ones."""
        if self.discrete:
            token = action - self.first if self.first else action
            return token.clamp(min=0)[..., None]  # a slot without an action may hold a zero in any space
        flat = action.flatten(2) if self.shape else action[..., None]
        return ((flat - self.low) / self.width).floor().clamp(0, self.values - 1).long()

    def decode(self, token: Tensor) -> Tensor:
        """Actions [B, T, *A] of tokens [B, T, per_action]: the middle of each bin. END and PAD become any action."""
        token = token.clamp(max=self.values - 1)
        if self.discrete:
            return token[..., 0] + self.first
        return (self.low + (token + 0.5) * self.width).unflatten(-1, self.shape) if self.shape else token

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The recorded plan [B, T * per_action], and which of its tokens hold something to learn: the actions and one END."""
        known, ended = (batch[name].repeat_interleave(self.per_action, dim=1) for name in ("action_mask", "ended"))
        is_end = ended & (ended.cumsum(1) == 1)
        plan = torch.where(known, self.encode(batch["action"]).flatten(1), self.PAD).masked_fill(is_end, self.END)
        return plan, known | is_end

    def cross_entropy(self, logits: Tensor, token: Tensor, asked: Tensor, spread: float = 0.0) -> Tensor:
        """The loss [B, S] of logits [B, S, classes], where `asked`. With `spread`, bins near the labelled one are right to some
        degree: a Gaussian of this standard deviation, in bins, is the label."""
        if not spread:
            label = token.masked_fill(~asked, -100)  # cross_entropy's "ignore"
            return F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(token)
        bins = torch.arange(self.values, device=token.device)
        near = (-0.5 * ((bins[:, None] - bins) / spread).square()).softmax(-1)  # [values, values]
        rest = torch.eye(logits.shape[-1] - self.values, device=token.device)  # END has no neighbours
        label = torch.block_diag(near, rest)[token.masked_fill(~asked, 0)]  # [B, S, classes]
        return -(label * logits.log_softmax(-1)).sum(-1) * asked

    def actions(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The actions [B, T, *A] of a plan [B, T * per_action], and which of them [B, T] come before END."""
        token = plan.unflatten(1, (-1, self.per_action))
        return self.decode(token), (token < self.END).all(-1)
