"""Checks of the typed overrides before anything is composed: choices that cannot be made, and sweeps that are too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep

from conf.errors import BadRequest

MOST_RUNS = 100_000  # of one sweep; composing and checking that many takes many minutes


def parsed(overrides: Sequence[str]) -> list[Override]:
    found: list[Override] = OverridesParser.create().parse_overrides([*overrides])
    return found


def trusted_by(overrides: Sequence[str]) -> list[str]:
    """The packages in `trusted_packages` of the command line."""
    values = [override.value() for override in parsed(overrides) if override.key_or_group == "trusted_packages"]
    return [str(package) for value in values if isinstance(value, list) for package in value]


def refuse_wrong_choices(overrides: Sequence[str], options: Callable[[str], Sequence[str]]) -> None:
    """`options(group)` are the names of a group's options; none if there is no such group."""
    chosen: dict[str, object] = {}
    for override in parsed(overrides):
        group, value = override.key_or_group, override.value()
        if value == {}:
            raise BadRequest(f"{override.input_line} changes nothing: an empty group takes no value away; leave it out")
        if override.is_sweep_override() or override.is_delete() or "." in group or not (known := options(group)):
            continue
        listed = f"{group} is one of {', '.join(known)}"
        if isinstance(value, list) and group.startswith("study/"):
            continue  # a study's own options may be combined
        if isinstance(value, (list, dict)):
            raise BadRequest(f"{override.input_line}: {group} takes one option and no list (a sweep is -m {group}=a,b); {listed}")
        if isinstance(value, str) and ("/" in value or value.startswith(".")):
            raise BadRequest(f"{override.input_line}: an option is called by its name, not by a path; {listed}")
        if value is None and group not in ("experiment", "debug", "study"):
            raise BadRequest(f"{override.input_line}: {group} needs an option; {listed}")
        if chosen.setdefault(group, value) != value:
            raise BadRequest(
                f"{group} is chosen twice, {chosen[group]} and {value}; leave out one of them (a sweep is -m {group}=a,b)"
            )


def refuse_wrong_grid(overrides: Iterable[Override]) -> None:
    """Count a grid before it is made: the command lines of ten million runs would fill the memory."""
    sizes: dict[str, int] = {}
    for override in overrides:
        if override.is_sweep_override() and (size := _size(override)) is not None:
            if size == 0:
                raise BadRequest(f"{override.input_line} is an empty sweep; give it at least one value")
            sizes[override.key_or_group] = size
    if (runs := math.prod(sizes.values())) > MOST_RUNS:
        told = " x ".join(f"{size:,} of {key}" for key, size in sizes.items() if size > 1)
        raise BadRequest(f"this sweep has {runs:,} runs ({told}); at most {MOST_RUNS:,} can be launched at once")


def _size(override: Override) -> int | None:
    """The number of values in a sweep over one key; None if a sweeper draws them."""
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if not isinstance(sweep, RangeSweep):
        return None
    if not sweep.step:
        raise BadRequest(f"{override.input_line} never arrives, because its step is 0; leave out the step, or give another one")
    assert sweep.start is not None and sweep.stop is not None
    return max(0, math.ceil((sweep.stop - sweep.start) / sweep.step))
