"""The contract of a policy: what it trains on, its loss, and how it acts.

A policy is one file in `policies/` with a dataclass `Config`, one subclass of `Policy`, and nothing about environments or
training loops. `B` batch, `To` observations, `Ta` actions, `N` lanes of a vector environment.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from envs.base import DataConfig, Spaces
from envs.data.statistics import Statistics
from envs.data.windows import Window
from policies.noise import Noise

# A batch is a dict of tensors, B first:
#   observation        {modality: [B, To, ...]} as stored (uint8, ids); the device converts to floats
#   observation_mask   [B, To] bool    False before the episode began
#   action             [B, Ta, *A]     the label
#   action_mask        [B, Ta] bool    False after the episode's end, where there is no label
#   ended              [B, Ta] bool    True in slots after a *termination* (never after a truncation)
# and, for learning histories (Window.span), in each slot [B, To]:
#   first              bool            an episode begins here
#   previous_action, previous_reward   the executed action and its reward one slot before, also across episodes
#   episode            int             index of the episode within the history
#   floor              float           -log pi of the action under its source; NaN if unknown
Batch = dict[str, Any]
Memory = dict[str, Tensor]  # lane first

__all__ = ["Batch", "Loss", "Memory", "Policy", "Window", "check_dropout", "check_temperature"]


class Loss(NamedTuple):
    """Sums over counted targets. The trainer divides by the global count, so masks and accumulation do not change the mean."""

    total: Tensor  # []
    count: Tensor  # type: ignore[assignment]  # []
    # name -> (sum, count). `first_action_loss`, in eval mode: the loss of the next action alone, if `total` covers more. Only it
    # can be compared with other policies and with the entropy floor of the data.
    metrics: dict[str, tuple[Tensor, Tensor]]


def check_temperature(temperature: float) -> None:
    if not 0.01 <= temperature <= 100:
        raise ValueError(
            f"temperature must be between 0.01 and 100, got {temperature} (eval.decode=greedy takes the most likely action)"
        )


def check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a probability below 1, got {dropout}")


class Policy(nn.Module):
    """Constructed as `cls(config, spaces)`, where `config` is the dataclass called `Config` beside the class."""

    window: Window
    modalities: tuple[str, ...] | None = None  # observed modalities; None: all. The entropy floor is given these
    memory_scope: ClassVar[str] = "episode"  # "history": memory is kept across episodes until the task changes
    alone: ClassVar[str] = ""  # why runs of it cannot be stacked and trained together, if they cannot
    samples: bool = True  # whether sampled and greedy acting differ
    starts_from: ClassVar[tuple[str, ...]] = ()  # classes of other policies, as in YAML, whose weights may initialise this one

    @classmethod
    def accepts(cls, config: Any, spaces: Spaces) -> str | None:
        """A sentence if this configuration cannot run in these spaces, else None."""
        return None

    @classmethod
    def accepts_data(cls, config: Any, data: DataConfig | None, max_steps: int) -> str | None:
        """A sentence if it cannot learn from `data` (None: acting only) or with episodes of up to `max_steps`, else None."""
        return None

    def fit(self, statistics: Statistics) -> None:
        """Store the needed statistics of the training split in buffers. Called once, before training."""

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        raise NotImplementedError("forward(batch, noise) -> Loss(total, count, metrics)")

    def variant(self, shared_uniform: float) -> int:
        """Which variant of its shapes a training step has, if `noise.shared_uniform()` draws them. Steps of the same variant have
        the same shapes, so they can replay one captured CUDA graph."""
        return 0

    def chance_loss(self, batch: Batch) -> float:
        raise NotImplementedError("chance_loss(batch) -> mean loss of a policy that knows nothing")

    def remedies(self) -> list[str]:
        """Overrides of this policy's own that bring untrained outputs nearer to zero, for the health checks to name."""
        return []

    def start(self, num_envs: int, device: torch.device) -> Memory:
        """The memory of lanes that begin an episode. The rollout resets it to these values at every episode boundary; with the
        scope "history", only when the task changes."""
        raise NotImplementedError("start(num_envs, device) -> memory, lane first")

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        """One action for each lane; `observation` is {modality: [N, ...]}. Only `memory` is carried to the next call; it may be
        changed in place. With the scope "history" the observation also holds `first`, `previous_action` and `previous_reward`
        [N], as a batch of histories does; the latter two are 0 before the first step."""
        raise NotImplementedError("act(observation, memory, noise, greedy) -> actions [N, *A], memory")

    def rounds(self, observation: dict[str, Tensor], noise: Noise, greedy: bool = False) -> Tensor | None:
        """For pictures: the plan at an episode's first step after each round [K+1, N, H]; None if the policy makes no plan.

        Tokens are the actions, then END (the episode is over), PAD (after END) and MASK (not decided yet)."""
        return None
