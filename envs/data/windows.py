"""Cut training samples from flat columns by index arithmetic: whole batches at a time, no loop over samples, no workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conf.errors import BadRequest
from envs.data.store import Dataset


@dataclass(frozen=True)
class Window:
    """What one training sample covers: steps of an episode around its step `now`, or a part of a learning history."""

    observations: int = 1  # frames, including now's
    actions: int = 1  # steps ahead, including now's
    align: str = "last"  # "last": actions start at the last observation; "each": every observation has its action
    span: str = "episode"  # "history": starts with an episode and continues through the next ones of the same learner and task
    every: int = 1  # history: use every k-th episode, so that a long history fits
    from_start: float = 0.7  # history: share of the samples that start with the history; the others start anywhere that fits
    back: tuple[
        int, ...
    ] = ()  # episode: how many steps before now each frame lies, if they are not consecutive, such as (8, 4, 2, 1, 0)

    def __post_init__(self) -> None:
        assert self.align == "last" or (self.observations == self.actions and not self.back)
        assert self.span == "episode" or self.align == "each"
        assert self.every >= 1 and 0 <= self.from_start <= 1


class Windows:
    """A dataset as training samples; `batch(samples)` cuts the windows of many at once."""

    def __init__(self, dataset: Dataset, window: Window):
        self.dataset, self.window = dataset, window
        self.placed: dict[torch.device, Any] = {}  # the columns on other devices (placed.py)
        self.cut = HistoryCut(dataset, window) if window.span == "history" else EpisodeCut(dataset, window)

    def __len__(self) -> int:
        return len(self.cut)

    def fixed_subset(self, count: int) -> np.ndarray:
        """The same `count` samples at every call. They are drawn at random: evenly spaced ones could match the length of the
        episodes, and then all be their first steps."""
        if count >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.Generator(np.random.Philox(0)).choice(len(self), count, replace=False))

    def batch(self, samples: np.ndarray) -> dict[str, Any]:
        """The batch of `policies/base.py` for sample indices [B]. Padding repeats a real row and is always masked."""
        return self.cut.batch(samples)


class EpisodeCut:
    """Cuts windows around single steps: every step is a sample.

    Labels form a plan only as long as they are executed: after a deviating step, they belong to states that the plan would not
    have reached. Windows that look ahead end at that step. It does not count as the end of a plan, even if it ended the episode.
    """

    def __init__(self, dataset: Dataset, window: Window):
        self.dataset = dataset
        lengths = dataset.ends - dataset.starts
        bounds = np.stack([dataset.starts, dataset.ends - 1], axis=1)
        self.bounds = np.repeat(bounds, lengths, axis=0)  # [steps, 2] first step of each step's episode, last step of its plan
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


class HistoryCut:
    """Cuts samples of `observations` steps that start with an episode and continue through the following ones.

    With `every=k` a history is split into k strands: strand o holds the episodes o, o+k, ... A sample may start at any episode
    that leaves enough steps in its strand to fill it, and always at the strand's first episode. The first episode is repeated
    until it makes up at least `from_start` of the strand's samples, because a policy that acts always starts at the beginning.

    In addition to what every batch has, for each slot [B, T]:
        first            whether the episode starts here
        episode          its index within the history, from 0
        previous_action  executed one slot earlier, across the end of an episode too, since the reward of an episode's last
        previous_reward      step is seen only there. Slot 0 holds zeros, even if the history started earlier
        floor            -log pi of the action under its source; NaN if unknown
    """

    def __init__(self, dataset: Dataset, window: Window):
        if "reward" not in dataset.columns:
            raise BadRequest(
                f"the dataset {dataset.folder} has no rewards, and histories without them teach nothing; record it anew"
            )
        self.dataset, self.slots = dataset, np.arange(window.observations)
        episodes = np.arange(len(dataset.ends))
        history = np.searchsorted(dataset.history_ends, dataset.starts, side="right")  # [E]
        begins = np.searchsorted(history, np.arange(len(dataset.history_ends)))  # [H] the first episode of each
        number = episodes - begins[history]  # [E] within its history
        order = np.lexsort((number, number % window.every, history))  # the episodes strand by strand
        lengths = (dataset.ends - dataset.starts)[order]
        ends = lengths.cumsum()  # [E] in the order of the strands, as is everything below
        self.starts, self.number = ends - lengths, number[order]
        self.rows = None if window.every == 1 else np.repeat(dataset.starts[order] - self.starts, lengths) + np.arange(ends[-1])
        self.episode = np.repeat(episodes.astype(np.int32), lengths)  # [steps]
        leads = self.number < window.every  # whether it is the first episode of its strand
        strand = leads.cumsum() - 1
        last = np.append(np.flatnonzero(leads)[1:], len(order)) - 1  # [strands] the last episode of each
        room = ends[last][strand] - self.starts  # steps from here to the end of the strand
        others = ~leads & (room >= window.observations) & (window.from_start < 1)
        share = window.from_start / (1 - window.from_start) if window.from_start < 1 else 0
        repeats = others.astype(np.int64)
        repeats[leads] = [max(1, math.ceil(share * count - 1e-9)) for count in np.bincount(strand, others)]
        self.begin = np.repeat(self.starts, repeats)  # [samples] where each sample starts, in the order of the strands
        self.end = self.begin + np.repeat(room, repeats)  # [samples] where its strand ends

    def __len__(self) -> int:
        return len(self.begin)

    def places(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the slots [B, T] of samples: their positions in the order of the strands, their rows of the dataset, and whether
        they exist."""
        place, end = self.begin[samples, None] + self.slots, self.end[samples, None]  # [B, T], [B, 1]
        known = place < end
        place = np.minimum(place, end - 1)
        return place, place if self.rows is None else self.rows[place], known

    def ages(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every target of these samples: its step within its history, and the history's length."""
        _, rows, known = self.places(samples)
        ends = self.dataset.history_ends
        history = np.searchsorted(ends, rows[known], side="right")
        begins = np.concatenate([[0], ends[:-1]])
        return rows[known] - begins[history], (ends - begins)[history]

    def batch(self, samples: np.ndarray) -> dict[str, Any]:
        columns = self.dataset.columns
        place, rows, known = self.places(samples)
        episode = self.episode[place]
        action = _rows(columns["action"], rows)
        executed = _rows(columns["executed_action"], rows) if "executed_action" in columns else action
        floor = -_rows(columns["logp"], rows) if "logp" in columns else torch.full(rows.shape, torch.nan)
        mask = torch.from_numpy(known)
        return {
            "observation": {name: _rows(column, rows) for name, column in self.dataset.observations.items()},
            "observation_mask": mask,
            "action": action,
            "action_mask": mask.clone(),
            "ended": torch.zeros_like(mask),
            "first": torch.from_numpy((place == self.starts[episode]) & known),
            "episode": torch.from_numpy(self.number[episode]),
            "previous_action": _shifted(executed),
            "previous_reward": _shifted(_rows(columns["reward"], rows)),
            "floor": floor,
        }


def _shifted(values: Tensor) -> Tensor:
    """Shift values one slot later, with zeros in slot 0."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def _rows(column: np.ndarray, index: np.ndarray) -> Tensor:
    return torch.from_numpy(np.take(column, index, axis=0))
