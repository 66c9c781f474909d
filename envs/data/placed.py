"""A dataset's columns on a device. Windows are cut there with the index arithmetic of `windows.py`, with identical results.

A step then needs only the sample indices from the host. Every operation has a fixed shape and none waits for the device, so
cutting can be part of a captured CUDA graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.data.windows import EpisodeCut, HistoryCut, Windows


class PlacedWindows:
    """Windows whose `batch(samples)` runs on the device that holds the columns."""

    def __init__(self, windows: Windows, device: torch.device):
        kind = PlacedHistories if isinstance(windows.cut, HistoryCut) else PlacedEpisodes
        self.cut: PlacedHistories | PlacedEpisodes = kind(windows.cut, device)  # type: ignore[arg-type]

    @classmethod
    def of(cls, windows: Windows, device: torch.device) -> PlacedWindows:
        """Moved once: runs that train together share their data."""
        if device not in windows.placed:
            windows.placed[device] = cls(windows, device)
        return windows.placed[device]

    def batch(self, samples: Tensor) -> dict[str, Any]:
        """The batch of `policies/base.py` for sample indices [B]."""
        return self.cut.batch(samples)

    @staticmethod
    def size(windows: Windows) -> int:
        """The bytes that the columns take on the device."""
        cut = windows.cut
        columns = [*cut.dataset.observations.values(), *(cut.dataset.columns[name] for name in _columns(cut))]
        own = [value for value in vars(cut).values() if isinstance(value, np.ndarray)]
        return sum(column.nbytes for column in (*columns, *own))


class PlacedEpisodes:
    def __init__(self, cut: EpisodeCut, device: torch.device):
        self.observations = {name: _placed(column, device) for name, column in cut.dataset.observations.items()}
        self.action = _placed(cut.dataset.columns["action"], device)
        self.bounds, self.terminated = _placed(cut.bounds, device), _placed(cut.terminated, device)
        self.observation_offsets = _placed(cut.observation_offsets, device)
        self.action_offsets = _placed(cut.action_offsets, device)

    def batch(self, samples: Tensor) -> dict[str, Any]:
        bounds = self.bounds[samples]
        first, last = bounds[:, :1], bounds[:, 1:]  # [B, 1]
        seen = samples[:, None] + self.observation_offsets  # [B, To]
        taken = samples[:, None] + self.action_offsets  # [B, Ta]
        rows = torch.maximum(seen, first)
        return {
            "observation": {name: _rows(column, rows) for name, column in self.observations.items()},
            "observation_mask": seen >= first,
            "action": _rows(self.action, torch.clamp(taken, first, last)),
            "action_mask": (taken >= first) & (taken <= last),
            "ended": (taken > last) & self.terminated[last],
        }


class PlacedHistories:
    def __init__(self, cut: HistoryCut, device: torch.device):
        self.observations = {name: _placed(column, device) for name, column in cut.dataset.observations.items()}
        self.columns = {name: _placed(cut.dataset.columns[name], device) for name in _columns(cut)}
        arrays = {"slots": cut.slots, "starts": cut.starts, "number": cut.number, "episode": cut.episode}
        self.arrays = {name: _placed(x, device) for name, x in {**arrays, "begin": cut.begin, "end": cut.end}.items()}
        self.rows = None if cut.rows is None else _placed(cut.rows, device)

    def batch(self, samples: Tensor) -> dict[str, Any]:
        arrays, columns = self.arrays, self.columns
        place, end = arrays["begin"][samples, None] + arrays["slots"], arrays["end"][samples, None]  # [B, T], [B, 1]
        known = place < end
        place = torch.minimum(place, end - 1)
        rows = place if self.rows is None else self.rows[place]
        episode = arrays["episode"][place].long()
        action = _rows(columns["action"], rows)
        executed = _rows(columns["executed_action"], rows) if "executed_action" in columns else action
        unknown = torch.full(rows.shape, torch.nan, device=rows.device)
        return {
            "observation": {name: _rows(column, rows) for name, column in self.observations.items()},
            "observation_mask": known,
            "action": action,
            "action_mask": known.clone(),
            "ended": torch.zeros_like(known),
            "first": (place == arrays["starts"][episode]) & known,
            "episode": arrays["number"][episode],
            "previous_action": _shifted(executed),
            "previous_reward": _shifted(_rows(columns["reward"], rows)),
            "floor": -_rows(columns["logp"], rows) if "logp" in columns else unknown,
        }


def _columns(cut: EpisodeCut | HistoryCut) -> list[str]:
    """The columns, besides the observations, that a batch is cut from."""
    wanted = ("action", "executed_action", "reward", "logp") if isinstance(cut, HistoryCut) else ("action",)
    return [name for name in wanted if name in cut.dataset.columns]


def _shifted(values: Tensor) -> Tensor:
    """Shift values one slot later, with zeros in slot 0."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def _placed(column: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(column)).to(device)  # a copy: files are mapped read-only


def _rows(column: Tensor, index: Tensor) -> Tensor:
    return column.index_select(0, index.flatten()).unflatten(0, index.shape)
