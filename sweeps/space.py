"""A search space in Hydra's grammar, as Optuna's distributions and as a grid.

a,b,c   choice(a,b,c)                           one of these
range(1,5)   range(0.1,1,step=0.1)              steps, without the end, as in Hydra
interval(0,1)   int(interval(1,4))              anything between, both ends included
tag(log, interval(1e-4,1e-2))                   the same on a logarithmic scale
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from conf.errors import BadRequest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LOG = "log"


def distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    log = LOG in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high:
            raise BadRequest(f"{override.input_line} is no interval: its start must be below its end")
        if log and low <= 0:
            raise BadRequest(f"{override.input_line} is on a logarithmic scale, so it must start above 0")
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop, value.step
        assert stop is not None
        count = math.ceil((stop - start) / step - 1e-9)  # Hydra excludes `stop`; Optuna's range includes its end
        if count < 1:
            raise BadRequest(f"{override.input_line} holds no value")
        high = start + (count - 1) * step
        if all(isinstance(one, int) for one in (start, stop, step)):
            return IntDistribution(int(start), int(high), log=log, step=1 if log else int(step))
        return FloatDistribution(float(start), float(high), step=float(step))
    if override.is_choice_sweep():
        return CategoricalDistribution([*override.sweep_string_iterator()])
    raise BadRequest(f"{override.input_line} cannot be searched; write choice(), range() or interval()")


def grid(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination, the last key fastest."""
    values = [[*_values(name, one)] for name, one in space.items()]
    return (dict(zip(space, one, strict=True)) for one in product(*values))


def _values(name: str, one: Any) -> Iterator[Any]:
    if hasattr(one, "choices"):
        yield from one.choices
    elif getattr(one, "step", None) and not one.log and (isinstance(one.low, float) or one.high - one.low < 1000):
        for number in range(round((one.high - one.low) / one.step) + 1):
            yield one.low + number * one.step
    else:
        raise BadRequest(f"sampler=grid needs single values, and {name} is an interval; write choice() or range()")
