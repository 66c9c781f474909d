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
#   observation        {modality: [B, To, ...]} as stored (uint8, ids); floats are made on the device
#   observation_mask   [B, To] bool    False before the episode began
#   action             [B, Ta, *A]     the label
#   action_mask        [B, Ta] bool    False after the episode's end: such a slot holds no label
#   ended              [B, Ta] bool    True in slots after a *termination* (never after a truncation)
# and, of learning histories (Window.span), in each slot [B, To]:
#   first              bool            an episode begins here
#   previous_action, previous_reward   what was executed and paid one slot before, also where an episode lies between
#   episode            int             its number within the history
#   floor              float           -log pi of the action under its source; NaN where that is not known
Batch = dict[str, Any]
Memory = dict[str, Tensor]  # lane first

__all__ = ["Batch", "Loss", "Memory", "Policy", "Window", "check_dropout", "check_temperature"]


class Loss(NamedTuple):
    """Sums over counted targets. The trainer divides by the global count, so masks and accumulation all give one mean."""

    total: Tensor  # []
    count: Tensor  # type: ignore[assignment]  # []
    # name -> (sum, count). `first_action_loss`, in eval mode: what of it is about the next action alone, where `total` is about
    # more; only that can be compared with other policies and with the entropy floor of the data.
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
    modalities: tuple[str, ...] | None = None  # of the observation, those that it sees; None: all. An entropy floor counts these
    memory_scope: ClassVar[str] = "episode"  # "history": memory outlives an episode, until the task changes
    samples: bool = True  # sampled and greedy acting differ; False: a player of either does the same
    starts_from: ClassVar[tuple[str, ...]] = ()  # other policies, as YAML names them, whose weights may start this one

    @classmethod
    def accepts(cls, config: Any, spaces: Spaces) -> str | None:
        """A sentence if this configuration cannot run in these spaces, else None."""
        return None

    @classmethod
    def accepts_data(cls, config: Any, data: DataConfig | None, max_steps: int) -> str | None:
        """A sentence if it cannot learn from these data (None: it only acts) or with episodes of up to `max_steps`, else None."""
        return None

    def fit(self, statistics: Statistics) -> None:
        """Take what is needed from the training split's statistics into buffers. Called once, before training."""

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        raise NotImplementedError("forward(batch, noise) -> Loss(total, count, metrics)")

    def variant(self, once: float) -> int:
        """Which shapes a training step has, where they are drawn (by `noise.once()`, here `once`). All steps of one variant have
        the same shapes, and so can replay one captured CUDA graph."""
        return 0

    def chance_loss(self, batch: Batch) -> float:
        raise NotImplementedError("chance_loss(batch) -> mean loss of a policy that knows nothing")

    def start(self, num_envs: int, device: torch.device) -> Memory:
        """The memory of lanes that begin an episode. The rollout writes these values back at every episode boundary; with the
        scope "history" it starts anew for every task."""
        raise NotImplementedError("start(num_envs, device) -> memory, lane first")

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        """One action for each lane; `observation` is {modality: [N, ...]}. Nothing but `memory` is carried to the next call, and
        it may be written into. With the scope "history" the observation also holds what a batch of histories does: `first`,
        `previous_action` and `previous_reward` [N], both 0 before anything happened."""
        raise NotImplementedError("act(observation, memory, noise, greedy) -> actions [N, *A], memory")

    def rounds(self, observation: dict[str, Tensor], noise: Noise, greedy: bool = False) -> Tensor | None:
        """For pictures: the plan of an episode's first step [K+1, N, H] after each round of its making; None if it has none.

        Tokens count the actions, then END (the episode is over), PAD (after END) and MASK (not decided yet)."""
        return None
