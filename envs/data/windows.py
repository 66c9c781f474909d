"""Training samples cut from flat columns by index arithmetic: whole batches at a time, no loop over samples, no workers."""

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
    """Which stretch one training sample covers: of an episode, seen from its step `now`, or of a learning history."""

    observations: int = 1  # frames, including now's
    actions: int = 1  # steps ahead, including now's
    align: str = "last"  # actions start at the "last" observation, or "each" observation has its action
    span: str = "episode"  # "history": from the beginning of an episode across the following ones of the same learner and task
    every: int = 1  # history: of its episodes every k-th, so that a long one fits
    from_start: float = 0.7  # history: share of the samples that begin where the history does; the others wherever they fit
    back: tuple[
        int, ...
    ] = ()  # episode: how many steps before now each frame lies, if they do not follow each other: (8, 4, 2, 1, 0)

    def __post_init__(self) -> None:
        assert self.align == "last" or (self.observations == self.actions and not self.back)
        assert self.span == "episode" or self.align == "each"
        assert self.every >= 1 and 0 <= self.from_start <= 1


class Windows:
    """A dataset as training samples; `batch(samples)` cuts the windows of many at once."""

    def __init__(self, dataset: Dataset, window: Window):
        self.dataset, self.window = dataset, window
        self.cut = HistoryCut(dataset, window) if window.span == "history" else EpisodeCut(dataset, window)

    def __len__(self) -> int:
        return len(self.cut)

    def fixed_subset(self, count: int) -> np.ndarray:
        """`count` samples, always the same. They are drawn at random, because evenly spaced ones can coincide with the period of
        the episodes and then show only their beginnings."""
        if count >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.Generator(np.random.Philox(0)).choice(len(self), count, replace=False))

    def batch(self, samples: np.ndarray) -> dict[str, Any]:
        """The batch of `policies/base.py` for sample indices [B]. Padding repeats a real row and is always masked."""
        return self.cut.batch(samples)


class EpisodeCut:
    """Every step is a sample.

    Labels are a plan only while they were executed: after a step that deviated they belong to states that the plan would not
    have reached. Windows that look ahead end at that step; it is not the end of a plan, even if it ended the episode.
    """

    def __init__(self, dataset: Dataset, window: Window):
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
    """Samples that begin at episodes and run on across the following ones, `observations` steps in all.

    With `every=k` a history is k strands, of which strand o holds the episodes o, o+k, ...; else it is one. A sample may begin at
    any episode from which the strand fills it, and at the strand's first episode in any case. That first one is listed so many
    times that it makes up at least `from_start` of the strand's samples: what a policy meets first, when it acts, is a beginning.

    Beside what all batches have, in each slot [B, T]:
        first            the episode begins here
        episode          its number within the whole history, from 0
        previous_action  what was executed one slot before, also where an episode lies between: rewards on an episode's last
        previous_reward      step are seen only there. Slot 0 has none; it holds zeros, even where the history began earlier
        floor            -log pi of the action under its source; NaN where that is not known
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
        ends = lengths.cumsum()  # [E] in the strands' order, as all of the following
        self.starts, self.number = ends - lengths, number[order]
        self.rows = None if window.every == 1 else np.repeat(dataset.starts[order] - self.starts, lengths) + np.arange(ends[-1])
        self.episode = np.repeat(episodes.astype(np.int32), lengths)  # [steps]
        leads = self.number < window.every  # the first of its strand
        strand = leads.cumsum() - 1
        last = np.append(np.flatnonzero(leads)[1:], len(order)) - 1  # [strands] the last episode of each
        room = ends[last][strand] - self.starts  # steps from here to the end of the strand
        others = ~leads & (room >= window.observations) & (window.from_start < 1)
        share = window.from_start / (1 - window.from_start) if window.from_start < 1 else 0
        repeats = others.astype(np.int64)
        repeats[leads] = [max(1, math.ceil(share * count - 1e-9)) for count in np.bincount(strand, others)]
        self.begin = np.repeat(self.starts, repeats)  # [samples] where in the strands' order,
        self.end = self.begin + np.repeat(room, repeats)  # [samples] and where there is no more

    def __len__(self) -> int:
        return len(self.begin)

    def places(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the slots [B, T] of samples lie in the strands' order, which rows of the dataset these are, and which exist."""
        place, end = self.begin[samples, None] + self.slots, self.end[samples, None]  # [B, T], [B, 1]
        known = place < end
        place = np.minimum(place, end - 1)
        return place, place if self.rows is None else self.rows[place], known

    def ages(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For every target of these samples: its step within its history, and the length of that history."""
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
    """One slot later, with zeros in slot 0."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def _rows(column: np.ndarray, index: np.ndarray) -> Tensor:
    return torch.from_numpy(np.take(column, index, axis=0))
