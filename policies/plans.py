"""Policies that choose several actions at once: execute a few of them, observe, and plan again.

They share the memory of the last frames, the chunk of actions that is being executed, and when a lane needs a new one.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.base import Spaces
from policies.base import Memory, Policy, Window
from policies.noise import Noise

NEVER_ASKED = ("cuda",)  # devices that are not asked which lanes need a plan: that is to wait, and cannot be captured in a graph


def check_plan(frames: list[int], horizon: int, execute: int) -> None:
    """Refuse a configuration that cannot plan."""
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
        self.spaces = spaces

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Actions [N, H, *A] from the last frames {name: [N, To, ...]}, and which of them [N, H] come before the predicted end of
        the episode; the first always does. `known` [N, To] marks the frames of this episode."""
        raise NotImplementedError("plan(seen, known, noise, greedy) -> actions [N, H, *A], valid [N, H]")

    def start(self, num_envs: int, device: torch.device) -> Memory:
        horizon, history = self.window.actions, self.frames[0] + 1
        empty = batch_space(self.spaces.action, horizon)
        plan = np.zeros((num_envs, *(empty.shape or ())), empty.dtype)
        memory = {
            "plan": torch.from_numpy(plan).to(device),
            "valid": torch.zeros(num_envs, horizon, dtype=torch.bool, device=device),  # nothing left to execute
            "next": torch.zeros(num_envs, dtype=torch.long, device=device),
        }
        if history > 1:
            memory["step"] = torch.zeros(num_envs, dtype=torch.long, device=device)
            for name in self.modalities or self.spaces.observation:
                space = self.spaces.observation[name]
                blank = np.zeros((num_envs, history, *(space.shape or ())), space.dtype)
                memory[f"seen.{name}"] = torch.from_numpy(blank).to(device)  # a ring: step s is in slot s % length
        return memory

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        self.remember(observation, memory)
        plan, slot = memory["plan"], memory["next"]
        used_up = slot >= self.execute
        over = ~memory["valid"].gather(1, slot.clamp(max=plan.shape[1] - 1)[:, None])[:, 0]
        if plan.device.type in NEVER_ASKED:  # all lanes plan, and those that are due keep it
            lanes, due = torch.arange(len(plan), device=plan.device), used_up | over
            made, valid = self.plan(*self.look(observation, memory, lanes), noise, greedy)
            memory["plan"] = torch.where(due.view(-1, *[1] * (plan.dim() - 1)), made.to(plan.dtype), plan)
            memory["valid"] = torch.where(due[:, None], valid, memory["valid"])
            memory["next"] = torch.where(due, 0, slot) + 1
            return memory["plan"][lanes, memory["next"] - 1], memory
        lanes = (used_up | over).nonzero()[:, 0]
        if len(lanes):
            seen, known = self.look(observation, memory, lanes)
            made, valid = self.plan(seen, known, noise[lanes], greedy)
            memory["plan"].index_copy_(0, lanes, made.to(plan.dtype))
            memory["valid"].index_copy_(0, lanes, valid)
            slot = slot.index_fill(0, lanes, 0)
        memory["next"] = slot + 1
        return plan[torch.arange(len(plan), device=plan.device), slot], memory

    def remember(self, observation: dict[str, Tensor], memory: Memory) -> None:
        """Overwrite the oldest frame with the present one."""
        if "step" not in memory:
            return
        lanes, slot = torch.arange(len(memory["step"]), device=memory["step"].device), memory["step"] % (self.frames[0] + 1)
        for name in memory:
            if name.startswith("seen."):
                memory[name][lanes, slot] = observation[name.removeprefix("seen.")]
        memory["step"] = memory["step"] + 1

    def look(self, observation: dict[str, Tensor], memory: Memory, lanes: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The frames of some lanes in a window that ends now, and which of these frames exist."""
        if "step" not in memory:
            names = self.modalities or tuple(self.spaces.observation)
            now = {name: observation[name].index_select(0, lanes)[:, None] for name in names}  # To = 1
            return now, torch.ones(len(lanes), 1, dtype=torch.bool, device=lanes.device)
        step = memory["step"][lanes] - 1
        asked = torch.stack([step - back for back in self.frames], dim=1)  # [n, To] steps of the episode
        slot = asked % (self.frames[0] + 1)
        kept = {name.removeprefix("seen."): value for name, value in memory.items() if name.startswith("seen.")}
        return {name: frames[lanes[:, None], slot] for name, frames in kept.items()}, asked >= 0
