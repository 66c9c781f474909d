"""Learning curves of every setting: the mean over its seeds, with the lowest and the highest seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.runs import Run
from sweeps.settings import Names

MOST_POINTS = 160  # in a line: more would not be visible in a chart
MOST_LINES = 10  # in a chart
SHOWN = {"val/success": "success on the val split", "val/return": "return on the val split", "val/loss": "loss on the val split"}
SHOWN |= {"train/loss": "loss in training"}


@dataclass
class Line:
    names: Names
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int


@dataclass
class Chart:
    title: str
    x_title: str
    lines: list[Line]
    left_out: int = 0  # settings beyond those that a chart can show


def charts(settings: Mapping[Names, Sequence[Run]], measure: str) -> list[Chart]:
    """The charts that have at least one line of two points."""
    found = [chart for chart in [by_episode(settings)] if chart]
    metrics = {names: [rows_of(run.folder) for run in runs] for names, runs in settings.items()}
    other = "return" if measure == "success" else "success"
    for key, title in SHOWN.items():
        if key != f"val/{other}" and (chart := over_steps(metrics, key, title)):
            found.append(chart)
    return found


def over_steps(metrics: Mapping[Names, Sequence[dict[str, dict[int, float]]]], key: str, title: str) -> Chart | None:
    return chart(title, "step", {names: [rows.get(key, {}) for rows in runs] for names, runs in metrics.items()})


def by_episode(settings: Mapping[Names, Sequence[Run]]) -> Chart | None:
    """In context: the return of each episode with frozen weights, acting as the headline does."""
    curves: dict[Names, list[dict[int, float]]] = {}
    for names, runs in settings.items():
        for run in runs:
            lines: dict[str, Any] = run.evaluation.get("by_episode") or {}
            first = next(iter(lines.values()))["mean"] if lines else []
            curves.setdefault(names, []).append({episode: value for episode, value in enumerate(first, 1)})
    return chart("return by episode, frozen weights", "episode", curves)


def chart(title: str, x_title: str, curves: Mapping[Names, Sequence[Mapping[int, float]]]) -> Chart | None:
    lines = [line for names, runs in curves.items() if (line := joined(names, runs))]
    return Chart(title, x_title, lines[:MOST_LINES], len(lines[MOST_LINES:])) if lines else None


def joined(names: Names, runs: Sequence[Mapping[int, float]]) -> Line | None:
    """One line for all seeds, up to the last step that all started seeds reached: beyond it, a mean over fewer would jump."""
    runs = [run for run in runs if run]
    shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    if len(shared) < 2:
        return None
    if len(shared) > MOST_POINTS:
        shared = [shared[i] for i in np.linspace(0, len(shared) - 1, MOST_POINTS).round().astype(int)]
    table = np.array([[run[step] for step in shared] for run in runs])
    x = [float(step) for step in shared]
    return Line(names, x, table.mean(0).tolist(), table.min(0).tolist(), table.max(0).tolist(), len(runs))


def rows_of(folder: Path) -> dict[str, dict[int, float]]:
    """metrics.jsonl by metric. Lines that cannot be read, because a run is writing them, are skipped."""
    found: dict[str, dict[int, float]] = {}
    for row in _rows(folder / "metrics.jsonl"):
        for key in SHOWN:
            if isinstance(value := row.get(key), (int, float)):
                found.setdefault(key, {})[int(row["step"])] = float(value)
    return found


def _rows(path: Path) -> Iterator[dict]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
