"""The order of the data: a pure function of (seed, step), so a resumed run has nothing to restore."""

from __future__ import annotations

import numpy as np


class Batches:
    """Sample indices for each step. The epochs' permutations follow each other without a gap, so every batch is full."""

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch; the present one is kept, since most batches lie within it."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.count)
        return self._order

    def samples(self, step: int) -> np.ndarray:
        """Indices [batch_size] of the batch that step `step` (from 0) trains on."""
        epoch, offset = divmod(step * self.batch_size, self.count)
        samples = self.order(epoch)[offset : offset + self.batch_size]
        while len(samples) < self.batch_size:
            epoch += 1
            samples = np.concatenate([samples, self.order(epoch)[: self.batch_size - len(samples)]])
        return samples
