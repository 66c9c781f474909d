"""95 % intervals of scores over episodes and training seeds. Imports no PyTorch, so a report can use it quickly.

**The method.** Scores form a table [seeds, episodes], because every seed plays the same episodes. Two samples were drawn: the
training seeds and the episodes. Each has an interval around the mean. Their half-widths are combined as the root of the sum of
squares, separately below and above the mean (MOVER, Zou and Donner 2008):

- seeds: Student's t-interval on the seeds' means. With three seeds t is 4.3, not 1.96: three numbers say little about a spread.
- episodes: Student's t-interval on each episode's mean over seeds. For success it is Wilson's interval, which has a width even at
  0 and 1. Its number of episodes is the number of independent episodes with the same variance: at least one seed's episodes, at
  most those of all seeds. Three seeds that fail on the same layouts give no more information than one seed.

One seed has no spread, so its interval covers its episodes alone. Where episodes come in strata (streams of one task or goal),
the tasks are taken as given, and only the streams within each task count as a sample.

Coverage by simulation (tests/trainers/evaluate/test_intervals.py): 95 to 98 % for 3, 5 and 10 seeds whose success differs, where
one Wilson interval over all episodes covers 53 to 78 %. It falls to 91-93 % where seeds differ very unevenly (logits with a
standard deviation of 1 around a success of .8 to .95). If one seed in ten fails entirely, three seeds mostly do not include it,
and no interval made from them can cover it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959964  # two-sided 95 %
Z_ONE_SIDED = 1.644854
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)  # two-sided 95 %, df 1 to 10


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float
    seeds: int
    seeds_differ: bool = False  # more than episodes alone would explain (5 % test)


def interval(scores: Any, share: bool = False, strata: Sequence[Any] | None = None) -> Interval:
    """The mean of `scores` [seeds, episodes] (or [episodes], of one seed) and its 95 % interval. `share`: all are 0 or 1."""
    table = np.atleast_2d(np.asarray(scores, float))
    seeds, episodes = table.shape
    by_seed, by_episode = table.mean(1), table.mean(0)
    mean = float(by_seed.mean())
    error, freedom = standard_error(by_episode, strata)
    if share:
        same = mean * (1 - mean) / error**2 if error else 0.0  # number of independent episodes with the same error
        low, high = wilson(mean, min(max(same, episodes), seeds * episodes))
    else:
        low, high = mean - student(freedom) * error, mean + student(freedom) * error
    low, high = over_seeds(by_seed, low, high)
    if share:
        low, high = max(0.0, low), min(1.0, high)
    return Interval(mean, low, high, seeds, differ(table))


def over_seeds(by_seed: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Widen the interval over episodes by the spread of the seeds' means."""
    if len(by_seed) < 2:
        return low, high
    mean = float(by_seed.mean())
    spread = student(len(by_seed) - 1) * float(by_seed.std(ddof=1)) / math.sqrt(len(by_seed))
    return mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread)


@dataclass(frozen=True)
class Difference:
    mean: float
    low: float
    high: float
    test: str  # what was assumed

    @property
    def verdict(self) -> str:
        return "cannot tell" if self.low <= 0 <= self.high else "higher" if self.mean > 0 else "lower"


def difference(
    one: Any, other: Any, share: bool = False, strata: Sequence[Any] | None = None, same_weights: bool = False
) -> Difference:
    """How much higher `one` [seeds, episodes] scores than `other` on the same episodes, with its 95 % interval.

    If both have several seeds: Welch's t over seeds, or Student's t on the seeds' differences if both play the `same_weights` in
    the same order, combined with the error over paired episodes. Otherwise over paired episodes alone; for success, half a
    success and half a failure are added to each side (Agresti and Min 2005).
    """
    a, b = (np.atleast_2d(np.asarray(scores, float)) for scores in (one, other))
    paired = a.mean(0) - b.mean(0)
    mean = float(paired.mean())
    error, freedom = standard_error(paired, strata)
    if same_weights and len(a) == len(b) > 1:
        half = student(freedom) * error
        low, high = over_seeds((a - b).mean(1), mean - half, mean + half)
        return Difference(mean, low, high, "Student's t over seeds paired by their weights, joined with paired episodes")
    if len(a) > 1 and len(b) > 1:
        parts = [float(rows.mean(1).var(ddof=1)) / len(rows) for rows in (a, b)]
        total = sum(parts)
        if total:
            welch = total**2 / sum(part**2 / (len(rows) - 1) for part, rows in zip(parts, (a, b), strict=True))
            half = math.hypot(student(welch) * math.sqrt(total), student(freedom) * error)
        else:
            half = student(freedom) * error
        return Difference(mean, mean - half, mean + half, "Welch's t over seeds, joined with paired episodes")
    if share and len(a) == len(b) == 1:
        padded = np.concatenate([paired, [1.0, -1.0]])  # the added halves, as one disagreement in each direction
        error, mean_padded = float(padded.std()) / math.sqrt(len(padded)), float(padded.mean())
        return Difference(mean, mean_padded - Z * error, mean_padded + Z * error, "paired episodes of one seed each")
    half = student(freedom) * error
    return Difference(mean, mean - half, mean + half, "paired episodes, as one side has a single seed")


def standard_error(values: np.ndarray, strata: Sequence[Any] | None = None) -> tuple[float, float]:
    """The standard error of the mean of `values` and its degrees of freedom; within strata, if each has several values."""
    episodes = len(values)
    if episodes < 2:
        return 0.0, 1.0  # one episode has no spread
    groups = [values]
    if strata is not None:
        _, index, count = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
        if count.min() > 1:
            groups = [values[index == group] for group in range(len(count))]
    variance = sum(len(group) * float(group.var(ddof=1)) for group in groups) / episodes**2
    return math.sqrt(variance), float(episodes - len(groups))


def differ(table: np.ndarray) -> bool:
    """Whether the seeds' means differ more than episodes alone would explain: an F test at 5 %, assuming many episodes."""
    seeds, episodes = table.shape
    if seeds < 2 or episodes < 2:
        return False
    by_seed = table.mean(1, keepdims=True)
    rest = table - by_seed - table.mean(0) + table.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (episodes - 1))
    return episodes * float(by_seed.var(ddof=1)) > noise * chi_square(seeds - 1) / (seeds - 1) + 1e-12


def wilson(share: float, episodes: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927). It is valid near 0 and 1, where the usual interval has no width."""
    z2n = Z * Z / episodes
    middle = (share + z2n / 2) / (1 + z2n)
    half = Z / (1 + z2n) * math.sqrt(share * (1 - share) / episodes + z2n / (4 * episodes))
    return max(0.0, middle - half), min(1.0, middle + half)


def student(freedom: float) -> float:
    """The two-sided 95 % point of Student's t: from a table, interpolated in 1/df, or from an expansion."""
    if freedom <= len(STUDENT):
        places = 1 / np.arange(len(STUDENT), 0, -1)
        return float(np.interp(1 / max(freedom, 1.0), places, STUDENT[::-1]))
    return Z + 2.37228 / freedom + 2.82250 / freedom**2 + 2.55585 / freedom**3  # Fisher and Cornish 1960


def chi_square(freedom: int) -> float:
    """The upper 5 % point (Wilson and Hilferty 1931)."""
    ninth = 2 / (9 * freedom)
    return freedom * (1 - ninth + Z_ONE_SIDED * math.sqrt(ninth)) ** 3
