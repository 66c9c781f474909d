"""How far a score can be trusted: 95 % intervals. Apart from the evaluation, because a report needs no PyTorch."""

from __future__ import annotations

import math

import numpy as np

Z = 1.959964  # two-sided 95 %
RESAMPLES = 1000  # of the bootstrap


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest near 0 and 1, where the usual one has no width."""
    share, z2n = successes / episodes, Z * Z / episodes
    middle = (share + z2n / 2) / (1 + z2n)
    half = Z / (1 + z2n) * math.sqrt(share * (1 - share) / episodes + z2n / (4 * episodes))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean, by resampling episodes."""
    random = np.random.Generator(np.random.Philox(0))
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
