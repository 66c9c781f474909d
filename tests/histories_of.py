"""Batches of made-up learning histories in Dark Room."""

from __future__ import annotations

from typing import Any

import torch

from envs.darkroom import Config, DarkRoom


def darkroom(**values: Any) -> DarkRoom:
    return DarkRoom(Config(**values))


def batch(rows: int, steps: int) -> dict[str, Any]:
    """Random steps in episodes of twenty."""
    step = torch.arange(steps).expand(rows, -1)
    return {
        "observation": {"position": torch.randint(0, 9, (rows, steps, 2)).to(torch.uint8)},
        "observation_mask": torch.ones(rows, steps, dtype=torch.bool),
        "action": torch.randint(0, 5, (rows, steps)),
        "action_mask": torch.ones(rows, steps, dtype=torch.bool),
        "ended": torch.zeros(rows, steps, dtype=torch.bool),
        "first": step % 20 == 0,
        "episode": step // 20,
        "previous_action": torch.randint(0, 5, (rows, steps)),
        "previous_reward": (torch.rand(rows, steps) < 0.3).float(),
        "floor": torch.full((rows, steps), torch.nan),
    }
