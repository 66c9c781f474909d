"""One table for a sweep: what each setting scored, seed by seed and pooled, beside the references.

A setting is all that differs between the runs of the folder, but their seed, or that of the checkpoints they play. A run
without a score stands in the table with its status. The mean over seeds has a 95 % interval over seeds and episodes
(trainers/evaluate/intervals.py), with a mark where the seeds differ more than the episodes explain.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.runs import Run, read
from trainers.evaluate.intervals import Interval, interval

ACTING = ("sampled", "greedy")  # whoever else has a score is a reference
TARGET = "._target_"
ABSENT = "-"
LISTED = 5  # keys in a note
WIDTH = 110  # of the table where there is no terminal to fit it into
DIFFER = "*"  # behind an interval
PLAYED_ALIKE = ("eval.decode", "eval.media", "eval.num_envs")  # of `eval.*`, what leaves the episodes as they are


@dataclass
class Report:
    title: str
    header: list[str]
    settings: list[list[list[str]]]  # the rows of each
    references: list[list[str]]
    notes: list[str]


def show(folder: Path, markdown: bool = False) -> None:
    found = report(folder)
    if markdown:
        print(as_markdown(found))
        return
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(f"\n{found.title}", markup=False, highlight=False, soft_wrap=True)
    console.print(as_table(found))
    for note in found.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def report(folder: Path) -> Report:
    runs, repeats = without_repeats(read(folder))
    columns, along = telling_apart(runs)
    labels = {key: shortened(key, {run.setting.get(key, ABSENT) for run in runs}) for key in columns}
    settings: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (*(_order(run.setting.get(key, ABSENT)) for key in columns), run.seed)):
        settings.setdefault(tuple(labels[key][run.setting.get(key, ABSENT)] for key in columns), []).append(run)
    seeds = sorted({run.seed for run in runs})
    measure = worth_showing(runs)
    scores = f"{measure}, seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}"
    states = Counter(run.status for run in runs)
    title = f"{folder}: {_counted(len(runs), 'run')}, {', '.join(f'{n} {status}' for status, n in states.items())}"
    if any("look" in run.summary for run in runs):  # mode=health has no scores
        rows = [list(health_rows(names, same)) for names, same in settings.items()]
        return Report(title, [*headings(columns, runs), "seed", "warnings", "about"], rows, [], [*notes(runs, along), *repeats])
    return Report(
        title,
        [*headings(columns, runs), "acting", scores, "mean (95 %)", "steps", "training s", "parameters"],
        [list(setting_rows(names, same, seeds, measure)) for names, same in settings.items()],
        list(reference_rows(runs, columns, labels, measure)),
        [*covers(runs, settings.values(), measure), *notes(runs, along), *repeats],
    )


# Which settings there are


def without_repeats(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Two runs of one setting and one seed are the same run: as one more seed it would narrow the interval for nothing."""
    kept: dict[tuple, Run] = {}
    for run in runs:  # by name, so by time where names begin with it
        same = (*sorted(run.setting.items()), run.seed)
        if same not in kept or run.status == "done" or kept[same].status != "done":
            kept[same] = run
    left = len(runs) - len(kept)
    return [*kept.values()], [f"left out {_counted(left, 'run')} that another one repeats"] if left else []


def telling_apart(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The keys that tell the settings apart, and those that differ along with them and would say nothing more.

    First the keys of all runs, then those that only some have. Of these the classes, which bring their values with them,
    then what the user asked for.
    """
    settings = [run.setting for run in runs]
    asked = set().union(*(run.asked for run in runs))
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    keys.sort(key=lambda key: (not all(key in one for one in settings), not key.endswith(TARGET), key not in asked))
    columns: list[str] = []
    along: list[str] = []

    def count(*keys: str) -> int:
        return len({tuple(one.get(key) for key in keys) for one in settings})

    for key in keys:
        if count(*columns, key) > count(*columns):
            columns.append(key)
        elif count(key) > 1:
            along.append(key)
    classes = tuple(key.removesuffix(TARGET) + "." for key in columns if key.endswith(TARGET))
    return columns or ["policy._target_"], [key for key in along if not (classes and key.startswith(classes))]


def headings(columns: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Each key by its shortest end that no other key has."""
    every = {key.removesuffix(TARGET) for run in runs for key in (*run.setting, "seed")}

    def shortest(key: str) -> str:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in every) == 1), key)

    return [shortest(key.removesuffix(TARGET)) for key in columns]


def shortened(key: str, values: set[str]) -> dict[str, str]:
    """A class by its module, which is the name of its option; paths without what all of them share."""
    if key.endswith(TARGET):
        modules = {value: value.split(".")[-2] for value in values if value != ABSENT}
        if len({*modules.values()}) == len(modules):
            return {ABSENT: ABSENT, **modules}
    if len(values) > 1 and all(os.path.isabs(value) for value in values):
        return {value: os.path.relpath(value, os.path.commonpath(values)) for value in values}
    return {value: value for value in values}


# What stands in the rows

Episodes = dict[str, Any]  # success, return and length of each, and the strata that they come in


def setting_rows(names: Sequence[str], runs: Sequence[Run], seeds: Sequence[int], measure: str) -> Iterator[list[str]]:
    """A row for each way of acting; what does not depend on it stands in the first."""
    by_seed = {run.seed: run for run in runs}
    seconds = [run.summary["seconds"] for run in runs if "seconds" in run.summary]
    parameters = [run.summary["parameters"] for run in runs if "parameters" in run.summary]
    cost = [f"{np.mean(seconds):.0f}" if seconds else ABSENT, between(parameters, "{:,}")]
    for acting in [name for name in players(runs) if name in ACTING] or [ABSENT]:
        cells = []
        for seed in seeds:
            run = by_seed.get(seed)
            score = played([run], acting) if run else []
            cells.append(f"{score[0][measure].mean():.3f}" if score else run.status if run else "missing")
        yield [*names, acting, " ".join(cells), *pooled(played(runs, acting), measure, len(seeds)), *cost]
        names, cost = [""] * len(names), [""] * len(cost)


def health_rows(names: Sequence[str], runs: Sequence[Run]) -> Iterator[list[str]]:
    """What the checks before the first step found, run by run."""
    for run in runs:
        look = run.summary.get("look")
        yield [*names, str(run.seed), *([run.status, ""] if look is None else [str(len(look)), ", ".join(look) or ABSENT])]


def pooled(scores: Sequence[Episodes], measure: str, seeds: int) -> tuple[str, str]:
    """The mean over seeds with its interval over seeds and episodes, and the mean of the steps to success."""
    if not scores:
        return ABSENT, ABSENT
    found = over_seeds(scores, measure)
    fewer = f", {len(scores)} of {seeds} seeds" if len(scores) < seeds else ""
    lengths = np.concatenate([score["length"][score["success"] > 0] for score in scores])
    limits = f"{found.low:.3f}-{found.high:.3f}" if found.low >= 0 else f"{found.low:.3f} to {found.high:.3f}"
    mark = DIFFER if found.seeds_differ else ""
    return f"{found.mean:.3f} ({limits}){mark}{fewer}", f"{lengths.mean():.1f}" if len(lengths) else ABSENT


def over_seeds(scores: Sequence[Episodes], measure: str) -> Interval:
    return interval([score[measure] for score in scores], measure == "success", scores[0]["strata"])


def reference_rows(
    runs: Sequence[Run], columns: Sequence[str], labels: dict[str, dict[str, str]], measure: str
) -> Iterator[list[str]]:
    """From the lowest to the highest of the runs, for each environment apart: random play depends on the seed."""
    places: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        place = tuple(labels[key][run.setting.get(key, ABSENT)] if _is_place(key) else "" for key in columns)
        places.setdefault(place, []).append(run)
    for names, same in places.items():
        for player in [name for name in players(same) if name not in ACTING]:
            solved = [score["length"][score["success"] > 0] for score in played(same, player)]
            scores = [run.evaluation["scores"][player] for run in same if player in run.evaluation.get("scores", {})]
            means = between([score[measure] for score in scores if score[measure] is not None], "{:.3f}")
            yield [*names, player, "", means, between([float(s.mean()) for s in solved if len(s)], "{:.1f}"), "", ""]


def covers(runs: Sequence[Run], settings: Iterable[Sequence[Run]], measure: str) -> Iterator[str]:
    """What the intervals are about."""
    scores = [score for same in settings for acting in ACTING if (score := played(same, acting))]
    if not scores:
        return
    most = max(map(len, scores))
    drawn = "streams of each task" if any("task_of_stream" in run.evaluation for run in runs) else "episodes"
    if most == 1:
        yield f"95 %: over {drawn} alone, as every setting has one seed; other seeds may lie outside"
        return
    yield f"95 %: over seeds (Student's t) and {drawn}" + (
        "" if min(map(len, scores)) > 1 else f"; over {drawn} alone of one seed"
    )
    if any(over_seeds(score, measure).seeds_differ for score in scores):
        yield f"{DIFFER} seeds differ more than {drawn}"


def notes(runs: Sequence[Run], along: Sequence[str]) -> Iterator[str]:
    seen: dict[str, list[float]] = {}
    for run in runs:
        if run.evaluation:
            seen.setdefault(environment(run), []).append(run.evaluation["seen_in_training"])
    for place, shares in seen.items():
        if any(shares):
            whose = f" of {place}" if len(seen) > 1 else ""
            yield f"{between(shares, '{:.1%}')} of these episodes{whose} were seen in training"
    if along:
        more = f" and {len(along) - LISTED} more" if len(along) > LISTED else ""
        yield f"the settings also differ in {', '.join(along[:LISTED])}{more}"
    for run in runs:
        if run.status not in ("done", "running", "starting", "pending"):
            yield f"{run.status}: {run.folder}"


def environment(run: Run) -> str:
    """The environment by the name that people use: its id, or else its module."""
    setting = run.setting
    return setting.get("env.id") or setting.get("env.game") or setting.get("env._target_", ABSENT).split(".")[-2]


def worth_showing(runs: Sequence[Run]) -> str:
    """Success, unless an evaluation says otherwise, or nobody ever had any and there are returns to compare."""
    if any(run.evaluation.get("headline") == "return" for run in runs):
        return "return"
    scores = [score for player in players(runs) for score in played(runs, player)]
    fruitless = not any(score["success"].any() for score in scores) and any(score["return"].any() for score in scores)
    return "return" if fruitless else "success"


def players(runs: Sequence[Run]) -> list[str]:
    """Everybody who was scored, in the order of the evaluation: the headline's way of acting first."""
    return list(dict.fromkeys(name for run in runs for name in run.evaluation.get("scores", {})))


def played(runs: Sequence[Run], player: str) -> list[Episodes]:
    """The episodes of one player in each run that has a score of him."""
    found = [run.evaluation.get("per_episode", {}).get(player) for run in runs]
    strata = [run.evaluation.get("task_of_stream") for run in runs]
    return [
        {name: np.asarray(values, float) for name, values in score.items()} | {"strata": tasks}
        for score, tasks in zip(found, strata, strict=True)
        if score
    ]


def between(values: Sequence[float], form: str) -> str:
    """The lowest and the highest, or the one value that all have."""
    if not values:
        return ABSENT
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low}-{high}"


def _is_place(key: str) -> bool:
    """Whether the key decides what is played, and so what the references score."""
    return key.startswith(("env.", "eval.")) and not key.startswith(("env.data.", *PLAYED_ALIKE))


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


# How they are shown


def as_table(found: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    words = len(found.header) - 4 * ("parameters" in found.header)  # after the settings, the acting and the seeds come numbers
    for number, name in enumerate(found.header):
        table.add_column(Text(name), justify="left" if number < words else "right", overflow="fold")
    for rows in [*found.settings, found.references]:
        for row in rows:
            table.add_row(*map(Text, row))
        table.add_section()
    return table


def as_markdown(found: Report) -> str:
    rows = [found.header, *(row for setting in found.settings for row in setting), *found.references]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    lines.insert(1, "|---" * len(found.header) + "|")
    return "\n".join([*lines, *(f"\n{note}" for note in found.notes)])
