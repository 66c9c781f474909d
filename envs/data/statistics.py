"""What the recorded actions say before any training: how much of them could be predicted at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def action_entropy(folder: Path, observations: list[str]) -> tuple[float, float]:
    """Entropy of the discrete labels in nats: of the actions alone, and given everything seen in the same step.

    The second is the floor of a memoryless policy's loss: no network can go below it. It is estimated by looking up equal
    observations, so it is biased low where most observations occur once.
    """
    action = np.load(folder / "action.npy", mmap_mode="r")
    seen = np.zeros(len(action), np.uint64)
    random = np.random.Generator(np.random.Philox(0))
    for name in observations:
        column = np.load(folder / f"{name}.npy", mmap_mode="r").reshape(len(action), -1)
        # A random linear hash modulo 2^64: two of a million different rows collide with a chance of about one in 10^7.
        weights = random.integers(1 << 63, size=column.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for start in range(0, len(action), 65536):
            block = slice(start, start + 65536)
            seen[block] += (column[block].astype(np.uint64) * weights).sum(1, dtype=np.uint64)
    state = np.unique(seen, return_inverse=True)[1]
    pair = np.unique(np.stack([state, np.asarray(action)], 1), axis=0, return_counts=True)[1]
    return _entropy(np.bincount(action)), _entropy(pair) - _entropy(np.bincount(state))


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
