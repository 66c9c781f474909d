"""One 64-bit hash per row or per episode, to find equal ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BLOCK = 1 << 26  # bytes of hashing at a time
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def row_hashes(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One 64-bit hash per row, over all columns.

    It is a random linear hash modulo 2^64. Among a million different rows, the chance of any collision is about 10^-7.
    """
    total = np.zeros(len(columns[0]), np.uint64)
    random = np.random.Generator(np.random.Philox(0))
    for column in columns:
        width = column[:1].nbytes
        weights = random.integers(1 << 63, size=width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        rows = max(1, BLOCK // weights.nbytes)
        for start in range(0, len(column), rows):
            block = np.ascontiguousarray(column[start : start + rows])
            total[start : start + rows] += block.view(np.uint8).reshape(len(block), width).astype(np.uint64) @ weights
    return total


def episode_hashes(observations: Mapping[str, np.ndarray], action: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """One hash per episode [E], of its first observation and all its actions. `observations` and `action` have one row per
    step."""
    starts = np.cumsum(lengths) - lengths
    begins = row_hashes([observations[name][starts] for name in sorted(observations)])
    step = np.arange(len(action)) - np.repeat(starts, lengths)
    taken = _mixed(row_hashes([action]) + step.astype(np.uint64) * GOLDEN)
    return _mixed(begins) + np.add.reduceat(taken, starts)


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
