"""Training samples cut from flat columns by index arithmetic: whole batches at a time, no loop over samples, no workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.data.store import Dataset


@dataclass(frozen=True)
class Window:
    """Which stretch of an episode one training sample covers, seen from its step `now`."""

    observations: int = 1  # frames, including now's
    actions: int = 1  # steps ahead, including now's
    align: str = "last"  # actions start at the "last" observation, or "each" observation has its action
    back: tuple[int, ...] = ()  # how many steps before now each frame lies, if they do not follow each other: (8, 4, 2, 1, 0)


class Windows:
    """Every step of a dataset as a sample; `batch(samples)` cuts the windows of many at once.

    Labels are a plan only as long as they are what was executed: behind a step that deviated they belong to states which the
    plan would not have reached. Windows that look ahead end at that step, and it ends no plan even where it ended the episode.
    """

    def __init__(self, dataset: Dataset, window: Window):
        assert window.align == "last" or (window.observations == window.actions and not window.back)
        self.dataset = dataset
        lengths = dataset.ends - dataset.starts
        bounds = np.stack([dataset.starts, dataset.ends - 1], axis=1)
        self.bounds = np.repeat(bounds, lengths, axis=0)  # [steps, 2] first step of the step's episode, last of its plan
        self.terminated = dataset.columns["terminated"]  # [steps] by the plan
        if "executed_action" in dataset.columns:
            differs = dataset.columns["executed_action"] != dataset.columns["action"]
            deviates = differs.reshape(len(dataset), -1).any(1)  # [steps]
            ends = np.where(deviates, np.arange(len(dataset)), self.bounds[:, 1])
            self.bounds[:, 1] = np.minimum.accumulate(ends[::-1])[::-1]  # no step's end lies beyond its own episode
            self.terminated = self.terminated & ~deviates
        back = -np.array(window.back) if window.back else np.arange(1 - window.observations, 1)
        self.observation_offsets = back  # [To]
        self.action_offsets = back if window.align == "each" else np.arange(window.actions)  # [Ta]

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, samples: np.ndarray) -> dict[str, Any]:
        """The batch of `policies/base.py` for step indices [B]. Padding repeats a real row and is always masked."""
        bounds = self.bounds[samples]
        first, last = bounds[:, :1], bounds[:, 1:]  # [B, 1]
        seen = samples[:, None] + self.observation_offsets  # [B, To]
        taken = samples[:, None] + self.action_offsets  # [B, Ta]
        rows = np.maximum(seen, first)
        known = (taken >= first) & (taken <= last)
        return {
            "observation": {name: _rows(column, rows) for name, column in self.dataset.observations.items()},
            "observation_mask": torch.from_numpy(seen >= first),
            "action": _rows(self.dataset.columns["action"], np.clip(taken, first, last)),
            "action_mask": torch.from_numpy(known),
            "ended": torch.from_numpy((taken > last) & self.terminated[last]),
        }


def _rows(column: np.ndarray, index: np.ndarray) -> Tensor:
    return torch.from_numpy(np.take(column, index, axis=0))
