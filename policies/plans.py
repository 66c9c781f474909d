"""Policies that choose several actions at once: carry out a few of them, look, and plan again.

What they share: which slots of a recorded plan are asked for, the memory of the last frames, and when a lane needs a new plan.
A plan is tokens [B, H]: the actions, then END (the episode is over in this slot) and PAD (after END).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.base import Spaces
from policies.base import Batch, Memory, Policy, Window
from policies.noise import Noise


def check_plan(frames: list[int], horizon: int, execute: int) -> None:
    """The sentences of a configuration that cannot be planned with."""
    if frames[-1:] != [0] or frames != sorted(set(frames), reverse=True):
        raise ValueError(f"frames counts steps back, from the oldest frame to the present one, as in [4, 2, 1, 0]; got {frames}")
    for name, value in (("horizon", horizon), ("execute", execute)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if execute > horizon:
        raise ValueError(f"execute cannot exceed horizon={horizon}, got {execute}")


class PlanningPolicy(Policy):
    """Subclasses write `forward` and `plan`; this class acts."""

    def __init__(self, spaces: Spaces, frames: list[int], horizon: int, execute: int):
        super().__init__()
        self.window = Window(observations=len(frames), actions=horizon, back=tuple(frames))
        self.frames, self.execute = frames, execute
        self.seen_space = spaces.observation
        self.num_actions = int(spaces.action.n)  # type: ignore[attr-defined]
        self.END, self.PAD = self.num_actions, self.num_actions + 1

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The recorded plan [B, H], and which of its slots hold something to learn: the actions and one END."""
        known, ended = batch["action_mask"], batch["ended"]  # [B, H]
        is_end = ended & (ended.cumsum(1) == 1)
        plan = torch.where(known, batch["action"], self.PAD).masked_fill(is_end, self.END)
        return plan, known | is_end

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> Tensor:
        """A plan [N, H] from the last frames {name: [N, To, ...]}, of which `known` [N, To] belong to this episode."""
        raise NotImplementedError("plan(seen, known, noise, greedy) -> tokens [N, H]")

    def start(self, num_envs: int, device: torch.device) -> Memory:
        horizon, frames = self.window.actions, self.frames[0] + 1
        plan = torch.full((num_envs, horizon), self.PAD, device=device)  # nothing left to carry out
        memory = {"plan": plan, "next": torch.zeros(num_envs, dtype=torch.long, device=device)}
        if frames > 1:
            memory["known"] = torch.zeros(num_envs, frames, dtype=torch.bool, device=device)
            for name, space in self.seen_space.items():
                blank = np.zeros((num_envs, frames, *(space.shape or ())), space.dtype)
                memory[f"seen.{name}"] = torch.from_numpy(blank).to(device)
        return memory

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        seen, known, frames = self._look(observation, memory)
        plan, slot = memory["plan"], memory["next"]
        used_up = slot >= self.execute
        over = plan.gather(1, slot.clamp(max=plan.shape[1] - 1)[:, None])[:, 0] >= self.END
        lanes = (used_up | over).nonzero()[:, 0]
        if len(lanes):
            made = self.plan({name: value[lanes] for name, value in seen.items()}, known[lanes], noise[lanes], greedy)
            plan = plan.index_copy(0, lanes, made)
            slot = slot.index_fill(0, lanes, 0)
        return plan.gather(1, slot[:, None])[:, 0], {"plan": plan, "next": slot + 1, **frames}

    def _look(self, observation: dict[str, Tensor], memory: Memory) -> tuple[dict[str, Tensor], Tensor, Memory]:
        """The frames of a window that ends now, which of them are known, and the memory of everything in between."""
        now = {name: value[:, None] for name, value in observation.items()}  # To = 1
        new = torch.ones(len(memory["next"]), 1, dtype=torch.bool, device=memory["next"].device)
        if len(self.frames) == 1:
            return now, new, {}
        past = {f"seen.{name}": torch.cat([memory[f"seen.{name}"][:, 1:], value], dim=1) for name, value in now.items()}
        past["known"] = torch.cat([memory["known"][:, 1:], new], dim=1)
        shown = [-1 - back for back in self.frames]
        return {name: past[f"seen.{name}"][:, shown] for name in now}, past["known"][:, shown], past
