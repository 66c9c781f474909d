"""The settings that a sweep compares: what differs between its runs except the seed, under readable names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sweeps.runs import GROUPS, TARGET, Run

ABSENT = "-"
LONG = 8  # numbers with more characters are shortened, since nobody typed them
PLAYED_ALIKE = ("eval.decode", "eval.media", "eval.num_envs")  # keys of `eval.*` that do not change the episodes

Names = tuple[str, ...]  # the values of a setting, one a column


def settings_of(runs: Sequence[Run], columns: Sequence[str]) -> dict[Names, list[Run]]:
    """The runs of each setting, numbers by their size, seeds in order."""
    labels = {key: shortened({run.setting.get(key, ABSENT) for run in runs}) for key in columns}
    found: dict[Names, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (*(_order(run.setting.get(key, ABSENT)) for key in columns), run.seed)):
        found.setdefault(tuple(labels[key][run.setting.get(key, ABSENT)] for key in columns), []).append(run)
    return found


def without_repeats(runs: Sequence[Run]) -> list[Run]:
    """Two runs with the same setting and seed are the same run. Counted as two seeds, they would make intervals too narrow."""
    kept: dict[tuple, Run] = {}
    for run in runs:  # by name, so by time where names begin with it
        same = (*sorted(run.setting.items()), run.seed) if run.setting else (run.folder,)  # an unreadable run equals no other
        if same not in kept or run.status == "done" or kept[same].status != "done":
            kept[same] = run
    return [*kept.values()]


def telling_apart(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The keys that tell the settings apart, and those that differ along with them and would say nothing more.

    First the keys of all runs, then those that only some have. Of these the options of a group, which bring their values with
    them, then what the user asked for.
    """
    settings = [run.setting for run in runs if run.setting]
    asked = set().union(*(run.asked for run in runs))
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    keys.sort(key=lambda key: (not all(key in one for one in settings), key not in GROUPS, key not in asked))
    columns: list[str] = []
    along: list[str] = []

    def count(*keys: str) -> int:
        return len({tuple(one.get(key) for key in keys) for one in settings})

    for key in keys:
        if count(*columns, key) > count(*columns):
            columns.append(key)
        elif count(key) > 1:
            along.append(key)
    brought = tuple(f"{key}." for key in columns if key in GROUPS)
    if "experiment" in columns:
        return columns, []  # it may bring anything
    if "encoder" in columns:
        brought = (*brought, "policy.encoder.")
    return columns or ["policy"], [key for key in along if not (brought and key.startswith(brought))]


def headings(columns: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The shortest unique ending of each key."""
    every = {key.removesuffix(TARGET) for run in runs for key in (*run.setting, "seed")}

    def shortest(key: str) -> str:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in every) == 1), key)

    return [key if key in GROUPS else shortest(key.removesuffix(TARGET)) for key in columns]


def shortened(values: set[str]) -> dict[str, str]:
    """Paths without their common parts; long decimals with just enough digits to differ."""
    if len(values) > 1 and all(os.path.isabs(value) for value in values):
        return {value: os.path.relpath(value, os.path.commonpath(values)) for value in values}
    for digits in (3, 4, 6):
        short = {value: _rounded(value, digits) for value in values}
        if len({*short.values()}) == len(values):
            return short
    return {value: value for value in values}


def _rounded(value: str, digits: int) -> str:
    try:
        return f"{float(value):.{digits}g}" if len(value) > LONG and "." in value else value
    except ValueError:
        return value


def place(run: Run) -> Names:
    """The values that decide which episodes are played: runs with equal ones play the same episodes."""
    evaluation = run.evaluation
    kept = [f"{key}={value}" for key, value in sorted(run.setting.items()) if is_place(key)]
    return (*kept, *(str(evaluation.get(key)) for key in ("split", "first_seed", "episodes", "streams", "episodes_per_task")))


def is_place(key: str) -> bool:
    """Whether the key affects which episodes are played, and so the scores of the references."""
    return key == "env" or (key.startswith(("env.", "eval.")) and not key.startswith(("env.data.", *PLAYED_ALIKE)))


def environment(run: Run) -> str:
    """The usual name of the environment: its id, or its game, or its option."""
    return run.setting.get("env.id") or run.setting.get("env.game") or run.setting.get("env", ABSENT)


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value
