"""How large a network is, counted during construction without allocating it; construction stops if it is too large."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_TENSORS = 20_000  # a network of this many takes seconds to count, and its steps minutes; ours have less than a thousand
TO_TRAIN = 5  # numbers per weight in training: itself, its gradient, two moments, an average


class TooLarge(Exception):
    """The module under construction holds more numbers than it may."""


def physical() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def at_most(numbers: float) -> Iterator[None]:
    """Raise TooLarge as soon as a module made in this context holds more numbers in parameters and buffers."""
    from torch.nn.modules import module

    held = {"numbers": 0, "tensors": 0}

    def count(_: Any, name: str, tensor: Any) -> None:
        if tensor is not None:
            held["numbers"] += tensor.numel()
            held["tensors"] += 1
            if held["numbers"] > numbers or held["tensors"] > MOST_TENSORS:
                raise TooLarge

    hooks = [module.register_module_parameter_registration_hook(count), module.register_module_buffer_registration_hook(count)]
    try:
        yield
    except RuntimeError as error:
        if "overflow" in str(error).lower():  # a single tensor whose size overflows
            raise TooLarge from error
        raise
    finally:
        for hook in hooks:
            hook.remove()
