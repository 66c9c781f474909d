"""The order of the data, a function of (seed, step), so that a resumed run has nothing to restore; and helpers for batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from policies.base import Batch


class Batches:
    """The sample indices of each step. One epoch's permutation continues into the next, so every batch is full."""

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch. The last one is cached, since most batches lie within one epoch."""
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


def to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return {name: to_device(x, device) if isinstance(x, dict) else x.to(device, non_blocking=True) for name, x in batch.items()}


def pinned(batch: Batch) -> Batch:
    return {name: pinned(x) if isinstance(x, dict) else x.pin_memory() for name, x in batch.items()}


def copy_into(batch: Batch, other: Batch) -> None:
    """Copy the values of `other` into the tensors of `batch`, without waiting."""
    for name, value in batch.items():
        if isinstance(value, dict):
            copy_into(value, other[name])
        else:
            value.copy_(other[name], non_blocking=True)


def rows_of(batch: Batch, rows: slice | tuple[slice, ...]) -> Batch:
    return {name: rows_of(value, rows) if isinstance(value, dict) else value[rows] for name, value in batch.items()}


def joined(parts: Sequence[Batch], order: Tensor) -> Batch:
    """One batch of the rows of several, in another order."""
    return {
        name: joined([part[name] for part in parts], order)
        if isinstance(value, dict)
        else torch.cat([part[name] for part in parts])[order]
        for name, value in parts[0].items()
    }


def flattened(batch: Batch) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for name, value in batch.items():
        flat |= {f"{name}.{part}": x for part, x in value.items()} if isinstance(value, dict) else {name: value}
    return flat
