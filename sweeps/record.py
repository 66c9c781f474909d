"""The record of a search in search.json, which can be read without Optuna."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "search.json"


@dataclass
class SearchRecord:
    metric: str
    direction: str
    best: dict[str, Any] | None
    trials: list[dict[str, Any]]
    importance: dict[str, float]  # how much each parameter matters for being among the best; sums to 1

    def sentences(self) -> Iterator[str]:
        if self.best:
            values = ", ".join(f"{key}={short(value)}" for key, value in self.best["params"].items())
            most = "highest" if self.direction == "maximize" else "lowest"
            yield f"best trial: {self.best['number']}, {self.metric} {self.best['value']:.4g}, with {values}"
            yield f"trials were judged by their {most} {self.metric}; the best of many looks better than it is"
        if self.importance:
            shares = ", ".join(f"{key} {share:.0%}" for key, share in self.importance.items())
            yield f"importance for being among the best: {shares}"


def searched(folder: Path) -> SearchRecord | None:
    """The record of a search; None if there is none or it is damaged, since the runs alone make a report too."""
    try:
        return SearchRecord(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
