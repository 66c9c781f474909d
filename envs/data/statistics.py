"""What the recorded actions say before any training: how much of them could be predicted at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

BLOCK = 1 << 26  # bytes of hashing at a time


def action_entropy(folder: Path, observations: list[str]) -> dict[str, float]:
    """Entropy of discrete labels in nats: of the actions alone, and given everything seen in the same step.

    The second is the floor of a memoryless policy's loss: no network can go below it. It is estimated by looking up equal
    observations, so it is biased low where most observations occur once.
    """
    action = np.load(folder / "action.npy", mmap_mode="r")
    seen = np.zeros(len(action), np.uint64)
    random = np.random.Generator(np.random.Philox(0))
    for name in observations:
        column = np.load(folder / f"{name}.npy", mmap_mode="r")
        width = column[:1].nbytes
        # A random linear hash modulo 2^64: two of a million different rows collide with a chance of about one in 10^7.
        weights = random.integers(1 << 63, size=width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        rows = max(1, BLOCK // weights.nbytes)
        for start in range(0, len(column), rows):
            block = np.ascontiguousarray(column[start : start + rows])
            seen[start : start + rows] += block.view(np.uint8).reshape(len(block), width).astype(np.uint64) @ weights
    state = np.unique(seen, return_inverse=True)[1]
    pair = np.unique(state * (int(action.max()) + 1) + action, return_counts=True)[1]
    marginal = _entropy(np.bincount(action))
    return {"marginal": marginal, "given_observation": _entropy(pair) - _entropy(np.bincount(state))}


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
