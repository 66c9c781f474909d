"""Several processes train one run: each computes its share of every batch, validation and evaluation; the first one writes.

All of them hold the same weights and take the same decisions, because they take them on sums over all processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from conf.ranks import here

PATIENCE = timedelta(minutes=30)  # for the others: one process may be recording data
T = TypeVar("T")


def start() -> None:
    """Meets the other processes, if there are any and it has not been done."""
    if here().alone or dist.is_initialized():
        return
    with _nobody_lost():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def device_of(kind: str) -> torch.device:
    """Each process of a machine has a GPU of its own."""
    if kind != "cuda" or here().alone:
        return torch.device(kind)
    torch.cuda.set_device(number := here().local % torch.cuda.device_count())
    return torch.device("cuda", number)


def end() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def sum_over_all(tensors: Sequence[Tensor]) -> None:
    """In place. One message for all of them."""
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
    with _nobody_lost():
        dist.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """In place."""
    if here().alone:
        return
    with _nobody_lost():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def any_of_all(asked: bool) -> bool:
    if here().alone:
        return asked
    told = torch.tensor(int(asked))
    with _nobody_lost():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)


def gathered(value: T) -> list[T]:
    """What each process has, by rank."""
    if here().alone:
        return [value]
    found: list[Any] = [None] * here().count
    with _nobody_lost(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        dist.all_gather_object(found, value, group=_for_objects())
    return found


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process does it alone, the others when it has done so."""
    if here().rank:
        gathered(None)
    yield
    if not here().rank:
        gathered(None)


_objects: list[Any] = []  # the group of processes that exchanges objects: never by way of a GPU


def _for_objects() -> Any:
    if not _objects:
        _objects.append(dist.new_group(backend="gloo", timeout=PATIENCE))
    return _objects[0]


@contextmanager
def _nobody_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        with suppress(Exception):
            end()
        raise ConnectionError(
            f"another process of this run was lost ({str(error).strip().splitlines()[0][:200]}). What was saved is not: the same "
            "command with resume=true and the run's folder goes on from the last checkpoint, also with other numbers of processes"
        ) from error
