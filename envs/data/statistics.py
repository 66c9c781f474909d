"""Statistics of the recorded data before training: moments for normalisation, the entropy floor, repeated episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from envs.data.hashes import row_hashes
from envs.data.store import Dataset
from envs.data.windows import HistoryCut, Windows

BLOCK = 1 << 26  # bytes read at a time
FLOOR_SAMPLES = 512  # windows over which the entropy of a source is averaged
REPEATED = 0.5  # if fewer of the samples have a window that occurs more than once, their entropy cannot be estimated


@dataclass(frozen=True)
class Moments:
    """The moments of one column, for each of its numbers separately. Values that are not finite do not count."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What policies use to normalise: the moments of all floating-point columns of the training split."""

    observations: dict[str, Moments]
    continuous_action: Moments | None = None  # None: actions are discrete

    @property
    def action(self) -> Moments:
        assert self.continuous_action is not None, "discrete actions have no moments"
        return self.continuous_action


def summarise(dataset: Dataset) -> Statistics:
    observed = {name: moments(column) for name, column in dataset.observations.items() if column.dtype.kind == "f"}
    continuous = isinstance(dataset.spaces.action, spaces.Box)
    return Statistics(observed, moments(dataset.columns["action"]) if continuous else None)


def moments(column: np.ndarray) -> Moments:
    """Two passes over blocks of rows, in float64: neither memory nor the rounding error grows with the data."""
    rows = max(1, BLOCK // max(1, 8 * column[:1].size))
    blocks = [slice(start, start + rows) for start in range(0, len(column), rows)]
    shape = column.shape[1:]
    count, total, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for block in blocks:
        values = column[block].astype(np.float64)
        finite = np.isfinite(values)
        count += finite.sum(0)
        total += np.where(finite, values, 0).sum(0)
        low = np.minimum(low, np.where(finite, values, np.inf).min(0))
        high = np.maximum(high, np.where(finite, values, -np.inf).max(0))
    mean = total / np.maximum(count, 1)
    for block in blocks:
        values = column[block].astype(np.float64)
        square += np.square(np.where(np.isfinite(values), values - mean, 0)).sum(0)
    empty = count == 0
    return Moments(mean, np.sqrt(square / np.maximum(count, 1)), np.where(empty, 0, low), np.where(empty, 0, high))


@dataclass(frozen=True)
class Floor:
    """The entropy, in nats, of a discrete action given one window. The loss on that action cannot fall below it.

    It is counted over equal windows, so it is too low if most windows occur once; `repeated` is the share that occurs more often.
    For learning histories it is the entropy of the source, and `repeated` is the share of steps where the source reports it.
    """

    entropy: float
    repeated: float
    chance: float  # the loss of guessing uniformly among all actions

    @property
    def known(self) -> bool:
        """Whether `entropy` is meaningful. Where most windows occur once, it is not."""
        return self.repeated >= REPEATED

    def __str__(self) -> str:
        if self.known:
            return f"{self.entropy:.3f} given what is seen"
        return f"not countable given what is seen: only {self.repeated:.0%} of the samples show what another one shows"


def floor(windows: Windows, modalities: Sequence[str] | None = None) -> Floor:
    """The floor of the action after a window's last frame, given these modalities (None: all) in all frames of the window. For
    histories, the entropy that their source reports."""
    dataset = windows.dataset
    chance = math.log(dataset.spaces.action.n)  # type: ignore[attr-defined]
    if isinstance(windows.cut, HistoryCut):
        return _floor_of_source(windows, chance)
    seen = dataset.observations if modalities is None else modalities
    now = row_hashes([dataset.observations[name] for name in seen])
    context, first = np.zeros_like(now), windows.cut.bounds[:, 0]
    frames = -windows.cut.observation_offsets
    for back in frames:
        row = np.arange(len(now)) - back
        known = row >= first
        context = context * np.uint64(0x9E3779B97F4A7C15) + np.where(known, now[np.maximum(row, 0)], np.uint64(0))
    return Floor(*_given(context, dataset.columns["action"]), chance)


def _floor_of_source(windows: Windows, chance: float) -> Floor:
    """The mean -log pi of the source over training samples; unknown if the source does not report it."""
    batch = windows.batch(windows.fixed_subset(FLOOR_SAMPLES))
    told = batch["floor"][batch["action_mask"]]
    known = told.isfinite()
    return Floor(float(told[known].mean()) if known.any() else 0.0, float(known.float().mean()), chance)


def label_entropy(action: np.ndarray) -> float:
    """The loss of a policy that knows only how often each discrete action occurs."""
    return _entropy(np.bincount(action))


def label_shares(action: np.ndarray) -> list[float]:
    """For each discrete action, the share of steps that have it as their label."""
    return (np.bincount(action) / max(1, len(action))).round(4).tolist()


def repeated_episodes(training: Dataset, other: Dataset) -> float:
    """The share of `other`'s episodes that have the same first observation and the same actions as a training episode."""
    return float(np.isin(other.episode_hashes, training.episode_hashes).mean())


def _given(context: np.ndarray, action: np.ndarray) -> tuple[float, float]:
    """Entropy of the action given the context, and the share of steps whose context occurs more than once."""
    state, times = np.unique(context, return_inverse=True, return_counts=True)[1:]
    pairs = np.unique(state * (int(action.max()) + 1) + np.asarray(action), return_counts=True)[1]
    return _entropy(pairs) - _entropy(times), float(times[times > 1].sum() / len(context))


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
