"""What a sweep found: each setting's score over its seeds, beside the references, and which of them differ.

A setting is all that differs between the runs of the folder, but their seed, or that of the checkpoints they play. The mean over
seeds has a 95 % interval over seeds and episodes (trainers/evaluate/intervals.py), with a mark where the seeds differ more than
the episodes explain. A run without a score stands in the table with its status.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from conf.status import DAMAGED
from sweeps import settings
from sweeps.curves import Chart, charts
from sweeps.groups import GroupRow, divisions
from sweeps.questions import question
from sweeps.record import SearchRecord, searched
from sweeps.runs import GROUPS, Episodes, Run, read
from sweeps.settings import Names
from trainers.evaluate.intervals import Difference, Interval, difference, interval

ACTING = ("sampled", "greedy")  # all other players with a score are references
FINE = ("done", "pruned", "running", "pending", "queued")
LISTED = 5  # keys in a note
MOST_PAIRS = 6  # up to this many settings, all pairs are compared; with more, the best and each of the others


@dataclass
class Row:
    """The scores of a setting in one way of acting, or of a reference."""

    names: Names
    player: str
    seeds: dict[int, float | str] = field(default_factory=dict)  # the score, or the status of a run that has none
    score: Interval | None = None
    spread: tuple[float, float] | None = None  # of a reference: its lowest and highest mean over the runs
    steps: list[float] = field(default_factory=list)  # to success: the mean; of a reference its lowest and highest
    seconds: float | None = None  # of training, the mean
    parameters: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


@dataclass
class Comparison:
    one: Names
    other: Names
    found: Difference


@dataclass
class Report:
    folder: Path
    question: str
    measure: str  # success | return
    columns: list[str]  # headings of the settings' values
    seeds: list[int]
    rows: list[Row]
    references: list[Row]
    comparisons: list[Comparison]
    charts: list[Chart]
    notes: list[str]
    states: Counter[str]
    runs: list[Run]
    search: SearchRecord | None = None  # if the sweep is a search
    groups: dict[str, list[GroupRow]] = field(default_factory=dict)  # by the way in which episodes are divided, such as "task"
    health: bool = False  # runs of mode=health, which have warnings and no scores

    @property
    def title(self) -> str:
        states = ", ".join(f"{n} {status}" for status, n in self.states.items())
        return f"{self.folder}: {_counted(len(self.runs), 'run')}, {states}"


def report(folder: Path) -> Report:
    everything = read(folder)
    compared = [run for run in everything if not run.only_looks]
    health = not compared
    runs = settings.without_repeats(compared or everything)
    columns, along = settings.telling_apart(runs)
    found = settings.settings_of(runs, columns)
    seeds = sorted({run.seed for run in runs if run.setting})
    measure = worth_showing(runs)
    rows = [row for names, same in found.items() for row in setting_rows(names, same, seeds, measure)]
    search = searched(folder)
    if search:  # the best first; single trials, so nothing to compare
        first = {row.names: -row.score.mean if row.score else math.inf for row in reversed(rows)}
        rows.sort(key=lambda row: first[row.names])
    notes = [*(search.sentences() if search else []), *covers(rows, runs), *seen(runs)]
    if along:
        more = f" and {len(along) - LISTED} more" if len(along) > LISTED else ""
        notes.append(f"the settings also differ in {', '.join(along[:LISTED])}{more}")
    notes += [f"{run.status}: {run.folder}{f' ({run.reason})' if run.reason else ''}" for run in runs if run.status not in FINE]
    if repeated := len(compared or everything) - len(runs):
        notes.append(f"left out {_counted(repeated, 'run')} that another one repeats")
    if looks := len(everything) - len(compared or everything):
        notes.append(f"left out {_counted(looks, 'run')} of debug=, health or profile")
    return Report(
        folder,
        question(runs),
        measure,
        settings.headings(columns, runs),
        seeds,
        rows,
        [*reference_rows(runs, columns, measure)],
        [] if search else [*comparisons(rows, measure)],
        charts(found, measure),
        notes,
        Counter(run.status for run in runs),
        runs,
        search,
        divisions([(row.names, row.player, row.runs) for row in rows if row.score], ACTING),
        health,
    )


def setting_rows(names: Names, runs: Sequence[Run], seeds: Sequence[int], measure: str) -> Iterator[Row]:
    """One row for each way of acting; a row without a score, if there is none yet."""
    by_seed = {run.seed: run for run in runs}
    seconds = [run.summary["seconds"] for run in runs if isinstance(run.summary.get("seconds"), (int, float))]
    cost = float(np.mean(seconds)) if seconds else None
    parameters = sorted({run.summary["parameters"] for run in runs if "parameters" in run.summary})
    for player in [name for name in players(runs) if name in ACTING] or [settings.ABSENT]:
        row = Row(names, player, seconds=cost, parameters=parameters, runs=[*runs])
        scored = [run for run in runs if player in run.episodes]
        for seed in seeds:
            run = by_seed.get(seed)
            row.seeds[seed] = "missing" if run is None else run.status
            if run in scored:
                row.seeds[seed] = float(run.episodes[player][measure].mean())
        if scored := same_length(scored, player):
            episodes = [run.episodes[player] for run in scored]
            row.score = over_seeds(episodes, measure)
            solved = np.concatenate([score["length"][score["success"] > 0] for score in episodes])
            row.steps = [float(solved.mean())] if len(solved) else []
        yield row


def over_seeds(episodes: Sequence[Episodes], measure: str) -> Interval:
    return interval([one[measure] for one in episodes], measure == "success", episodes[0]["strata"])


def same_length(runs: Sequence[Run], player: str) -> list[Run]:
    """A run whose evaluation has another number of episodes than most cannot be combined with them."""
    lengths = Counter(len(run.episodes[player]["success"]) for run in runs)
    return [run for run in runs if len(run.episodes[player]["success"]) == lengths.most_common(1)[0][0]]


def reference_rows(runs: Sequence[Run], columns: Sequence[str], measure: str) -> Iterator[Row]:
    """The lowest and the highest score of a reference over the runs, for each environment: random play depends on the seed."""
    labels = {key: settings.shortened({run.setting.get(key, settings.ABSENT) for run in runs}) for key in columns}
    places: dict[Names, list[Run]] = {}
    for run in runs:
        names = (labels[key][run.setting.get(key, settings.ABSENT)] if settings.is_place(key) else "" for key in columns)
        places.setdefault(tuple(names), []).append(run)
    for place, same in places.items():
        for player in [name for name in players(same) if name not in ACTING]:
            scores = [run.evaluation["scores"][player][measure] for run in same if player in run.evaluation.get("scores", {})]
            means = [float(score) for score in scores if score is not None]
            played = [run.episodes[player] for run in same if player in run.episodes]
            solved = [float(one["length"][one["success"] > 0].mean()) for one in played if one["success"].any()]
            limits = (min(means), max(means)) if means else None
            yield Row(place, player, spread=limits, steps=sorted({min(solved), max(solved)}) if solved else [])


def comparisons(rows: Sequence[Row], measure: str) -> Iterator[Comparison]:
    """Compare pairs of settings that played the same episodes, in the first way of acting."""
    first = next((row.player for row in rows if row.score), "")
    scored = [row for row in rows if row.score and row.player == first]
    scored.sort(key=lambda row: -row.score.mean if row.score else 0.0)
    pairs = combinations(scored, 2) if len(scored) <= MOST_PAIRS else ((scored[0], row) for row in scored[1:])
    for one, other in pairs:
        runs = [[run for run in row.runs if first in run.episodes] for row in (one, other)]
        if len({settings.place(run) for run in (*runs[0], *runs[1])}) > 1:
            continue
        tables = [[run.episodes[first][measure] for run in same] for same in runs]
        if len({len(table) for table in (*tables[0], *tables[1])}) > 1:
            continue
        alike = [[(run.setting.get("ckpt_path"), run.seed) for run in same if run.setting.get("mode") == "eval"] for same in runs]
        strata = runs[0][0].episodes[first]["strata"]
        same_weights = bool(alike[0]) and alike[0] == alike[1]
        yield Comparison(one.names, other.names, difference(tables[0], tables[1], measure == "success", strata, same_weights))


def covers(rows: Sequence[Row], runs: Sequence[Run]) -> Iterator[str]:
    """What the intervals cover."""
    scores = [row.score for row in rows if row.score]
    if not scores:
        return
    numbers = {score.seeds for score in scores}
    drawn = "streams of each task" if any("task_of_stream" in run.evaluation for run in runs) else "episodes"
    if numbers == {1}:
        yield f"95 %: over {drawn} alone, as every setting has one seed; other seeds may lie outside"
        return
    yield f"95 %: over seeds (Student's t) and {drawn}" + (f"; over {drawn} alone of one seed" if 1 in numbers else "")
    if any(score.seeds_differ for score in scores):
        yield f"* seeds differ more than {drawn}"


def seen(runs: Sequence[Run]) -> Iterator[str]:
    """The share of each environment's episodes that occurred in training."""
    shares: dict[str, list[float]] = {}
    for run in runs:
        if run.evaluation:
            shares.setdefault(settings.environment(run), []).append(run.evaluation.get("seen_in_training", 0.0))
    for name, values in shares.items():
        if any(values):
            whose = f" of {name}" if len(shares) > 1 else ""
            yield f"{between(values, '{:.1%}')} of these episodes{whose} were seen in training"


def worth_showing(runs: Sequence[Run]) -> str:
    """Success, unless an evaluation says otherwise, or all successes are 0 and there are returns to compare."""
    if any(run.evaluation.get("headline") == "return" for run in runs):
        return "return"
    scores = [score for run in runs for score in run.episodes.values()]
    fruitless = not any(score["success"].any() for score in scores) and any(score["return"].any() for score in scores)
    return "return" if fruitless else "success"


def players(runs: Sequence[Run]) -> list[str]:
    """All players with a score, in the order of the evaluation: the headline's way of acting first."""
    return list(dict.fromkeys(name for run in runs if run.status != DAMAGED for name in run.evaluation.get("scores", {})))


def named(columns: Sequence[str], names: Names) -> str:
    """A setting in words: options by their names, values with their keys."""
    known = [(column, name) for column, name in zip(columns, names, strict=True) if name != settings.ABSENT]
    return ", ".join(name if column in GROUPS else f"{column}={name}" for column, name in known) or settings.ABSENT


def between(values: Sequence[float], form: str) -> str:
    """The lowest and the highest value, or the single value if all are equal."""
    if not values:
        return settings.ABSENT
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low}-{high}"


def as_plain(found: Report) -> dict[str, Any]:
    """What --json prints."""

    def row(one: Row) -> dict[str, Any]:
        score = vars(one.score) if one.score else None
        names = dict(zip(found.columns, one.names, strict=True))
        shown = {"setting": names, "player": one.player, "score": score, "seconds": one.seconds, "parameters": one.parameters}
        return {**shown, "seeds": one.seeds, "spread": one.spread, "steps": one.steps}

    return {
        "folder": str(found.folder),
        "question": found.question,
        "measure": found.measure,
        "rows": [row(one) for one in found.rows],
        "references": [row(one) for one in found.references],
        "comparisons": [
            {"one": pair.one, "other": pair.other, **vars(pair.found), "verdict": pair.found.verdict}
            for pair in found.comparisons
        ],
        "groups": {division: [{**vars(row), "mean": row.mean} for row in same] for division, same in found.groups.items()},
        "search": vars(found.search) if found.search else None,
        "notes": found.notes,
        "runs": [{"folder": str(run.folder), "seed": run.seed, "status": run.status, "reason": run.reason} for run in found.runs],
    }


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
