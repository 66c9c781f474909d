"""What a search wrote down of itself in search.json, for those who have no Optuna."""

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
    importance: dict[str, float]  # of each parameter, for being among the best; they sum to 1

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
    """None where nothing was searched, or its record is damaged: the runs tell their part."""
    try:
        return SearchRecord(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
