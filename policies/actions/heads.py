"""What the outputs of a network mean as actions: classes, a Cartesian vector, or a magnitude and a direction.

A head has no weights: it says how many outputs an action needs, their loss, the loss of zeros (an untrained network), and which
actions they are. Write-up 004's heads squash their outputs with tanh and work in the action's own units; its spherical
magnitude, sigmoid(tanh(x)), reaches .27 to .73 only and its azimuth jumps at pi: measured 82 % where `spherical` gets 100 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from envs.data.statistics import Statistics
from policies.actions.tokens import Tokens, check_bins, choose
from policies.actions.vectors import LOSSES, Vectors, elementwise
from policies.base import Batch, Loss
from policies.noise import Noise

SOFT = 0.1  # shorter directions are not normalised to length 1, so that zero outputs give the zero vector and a gradient


@dataclass
class HeadConfig:
    """`policy.head.*`: only for continuous actions; discrete ones are always classes."""

    kind: str = "cartesian"  # cartesian | spherical | binned | tanh, tanh_spherical (write-up 004's, in the action's own units)
    loss: str = "l1"  # l1 | huber | mse, per number (spherical: of the Cartesian vector)
    magnitude_weight: float = 0.0  # an action's weight in the loss is 1 + this * its length; write-up 004: 2
    bins: int = 32  # binned: classes of each dimension

    def __post_init__(self) -> None:
        if self.kind not in ("binned", *CONTINUOUS):
            raise ValueError(f"kind must be one of binned, {', '.join(CONTINUOUS)}, got {self.kind}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss}")
        if not 0 <= self.magnitude_weight <= 100:
            raise ValueError(f"magnitude_weight must be between 0 and 100, got {self.magnitude_weight}")
        check_bins(self.bins)


class Head(nn.Module):
    size: int  # outputs that an action needs
    classes: int = 0  # of each of its tokens; 0: a continuous action

    def fit(self, statistics: Statistics) -> None:
        """Store the needed statistics of the training data in buffers."""

    def loss(self, output: Tensor, batch: Batch, training: bool) -> Loss:
        """The loss of outputs [B, H, size] for the labels of a batch."""
        raise NotImplementedError("loss(output, batch, training) -> Loss")

    def chance(self, batch: Batch) -> float:
        """The mean loss of zero outputs."""
        raise NotImplementedError("chance(batch) -> float")

    def decode(self, output: Tensor, noise: Noise, greedy: bool) -> tuple[Tensor, Tensor]:
        """Actions [B, H, *A] of outputs [B, H, size], and which of them [B, H] lie before the predicted end of the episode."""
        raise NotImplementedError("decode(output, noise, greedy) -> actions, valid")


class Classes(Head):
    """Every token of an action is a class. A chunk can reach the end of its episode, so it has one more class: END."""

    def __init__(self, tokens: Tokens, horizon: int, temperature: float):
        super().__init__()
        self.tokens, self.temperature = tokens, temperature
        self.classes = tokens.values + (horizon > 1)
        self.size = tokens.per_action * self.classes

    def fit(self, statistics: Statistics) -> None:
        self.tokens.fit(statistics)

    def logits(self, output: Tensor) -> Tensor:
        return output.unflatten(-1, (-1, self.classes)).flatten(1, 2).float()  # [B, H * per_action, classes]

    def loss(self, output: Tensor, batch: Batch, training: bool) -> Loss:
        logits, (plan, counted) = self.logits(output), self.tokens.targets(batch)
        if self.classes == self.tokens.values:
            counted = counted & (plan < self.tokens.END)
        label = plan.masked_fill(~counted, -100)  # cross_entropy's "ignore"
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="sum")
        metrics = {"accuracy": (((logits.argmax(-1) == plan) & counted).sum(), counted.sum())}
        if self.classes > self.tokens.values and not training:
            first, values = slice(0, self.tokens.per_action), self.tokens.values
            now = batch["action_mask"][:, :1] & counted[:, first]
            label = plan[:, first].masked_fill(~now, -100)
            of_first = F.cross_entropy(logits[:, first, :values].flatten(0, 1), label.flatten(), reduction="sum")
            metrics["first_action_loss"] = (of_first, now.sum())
        return Loss(loss, counted.sum(), metrics)

    def chance(self, batch: Batch) -> float:
        return math.log(self.classes)

    def decode(self, output: Tensor, noise: Noise, greedy: bool) -> tuple[Tensor, Tensor]:
        logits = self.logits(output)
        if self.classes > self.tokens.values:
            # A plan is never empty, and never ends in the middle of an action.
            slot, token = (torch.arange(size, device=logits.device) for size in logits.shape[1:])
            never = (slot == 0) | (slot % self.tokens.per_action > 0)
            logits = logits.masked_fill(never[:, None] & (token >= self.tokens.END), -torch.inf)
        return self.tokens.actions(choose(logits / self.temperature, noise, greedy))


class Regression(Head):
    """A continuous action, predicted directly: no distribution, so sampled and greedy acting are the same."""

    def __init__(self, config: HeadConfig, vectors: Vectors):
        super().__init__()
        self.config, self.vectors, self.size = config, vectors, vectors.size

    def fit(self, statistics: Statistics) -> None:
        self.vectors.fit(statistics)

    def prediction(self, output: Tensor) -> Tensor:
        """The value that is compared with `target`."""
        return output

    def target(self, action: Tensor) -> Tensor:
        return self.vectors.encode(action)

    def action(self, output: Tensor) -> Tensor:
        """[..., *A] in the environment's units."""
        return self.vectors.decode(output)

    def loss(self, output: Tensor, batch: Batch, training: bool) -> Loss:
        counted, output = batch["action_mask"], output.float()  # [B, H]
        # The filler of an empty slot must not reach the loss, not even as NaN times zero.
        action = torch.where(counted[..., None], batch["action"], torch.zeros_like(batch["action"]))
        error = elementwise(self.config.loss, self.prediction(output), self.target(action)).mean(-1)  # [B, H]
        if self.config.magnitude_weight:
            error = error * (1 + self.config.magnitude_weight * action.norm(dim=-1))
        with torch.no_grad():
            off = (self.action(output) - action).abs().mean(-1)
        count = counted.sum()
        return Loss((error * counted).sum(), count, {"action_error": ((off * counted).sum(), count)})

    def chance(self, batch: Batch) -> float:
        output = torch.zeros(*batch["action_mask"].shape, self.size, device=batch["action"].device)
        total, count, _ = self.loss(output, batch, training=False)
        return float(total / count.clamp(min=1))

    def decode(self, output: Tensor, noise: Noise, greedy: bool) -> tuple[Tensor, Tensor]:
        action = self.action(output.float())
        return action, torch.ones(action.shape[:2], dtype=torch.bool, device=action.device)


class Spherical(Regression):
    """A magnitude up to the largest in the data, and a direction as a normalised vector, which has no angle that wraps."""

    largest: Tensor

    def __init__(self, config: HeadConfig, vectors: Vectors):
        super().__init__(config, vectors)
        self.size = vectors.size + 1
        self.register_buffer("largest", torch.ones(()))

    def fit(self, statistics: Statistics) -> None:
        super().fit(statistics)
        reach = np.maximum(np.abs(statistics.action.low), np.abs(statistics.action.high))
        self.largest.fill_(float(np.linalg.norm(reach)))  # of the corner of all limits: no action of the data is longer

    def prediction(self, output: Tensor) -> Tensor:
        magnitude, direction = self.largest * output[..., :1].sigmoid(), output[..., 1:]
        return magnitude * direction / (direction.square().sum(-1, keepdim=True) + SOFT**2).sqrt()

    def target(self, action: Tensor) -> Tensor:
        return action

    def action(self, output: Tensor) -> Tensor:
        return self.prediction(output).clamp(self.vectors.low, self.vectors.high)


class Tanh(Regression):
    """Write-up 004's Cartesian head: tanh, in the action's own units."""

    def prediction(self, output: Tensor) -> Tensor:
        return output.tanh()

    def target(self, action: Tensor) -> Tensor:
        return action

    def action(self, output: Tensor) -> Tensor:
        return output.tanh().clamp(self.vectors.low, self.vectors.high)


class TanhSpherical(Regression):
    """Write-up 004's spherical head, faults included: (magnitude, angle from z, azimuth), compared angle by angle."""

    def prediction(self, output: Tensor) -> Tensor:
        magnitude, polar, azimuth = output.tanh().unbind(-1)
        return torch.stack([magnitude.sigmoid(), (polar + 1) * 0.5 * math.pi, azimuth * math.pi], -1)

    def target(self, action: Tensor) -> Tensor:
        magnitude = action.norm(dim=-1).clamp(min=1e-4)
        polar = torch.acos((action[..., 2] / magnitude).clamp(-1, 1))
        return torch.stack([magnitude, polar, torch.atan2(action[..., 1], action[..., 0])], -1)

    def action(self, output: Tensor) -> Tensor:
        magnitude, polar, azimuth = self.prediction(output).unbind(-1)
        flat = magnitude * polar.sin()
        action = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), magnitude * polar.cos()], -1)
        return action.clamp(self.vectors.low, self.vectors.high)


CONTINUOUS = {"cartesian": Regression, "spherical": Spherical, "tanh": Tanh, "tanh_spherical": TanhSpherical}


def refuse_head(config: HeadConfig, space: spaces.Space) -> str | None:
    """The sentence for a head that cannot speak of such actions."""
    if config.kind == "tanh_spherical" and isinstance(space, spaces.Box) and space.shape != (3,):
        return f"policy.head.kind=tanh_spherical is for actions of three numbers, and the environment acts in {space}"
    return None


def make_head(config: HeadConfig, space: spaces.Space, horizon: int, temperature: float = 1.0) -> Head:
    """The head of a chunk of `horizon` actions."""
    if isinstance(space, spaces.Discrete) or config.kind == "binned":
        return Classes(Tokens(space, config.bins), horizon, temperature)
    return CONTINUOUS[config.kind](config, Vectors(space))
