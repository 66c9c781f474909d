"""The success of groups of episodes (tasks, classes of difficulty), over the seeds of each setting and beside the references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.runs import Run
from sweeps.settings import Names


@dataclass
class GroupRow:
    """One group of episodes, as one setting in one way of acting plays it. Of returns, where no success is known."""

    names: Names
    player: str
    group: str
    episodes: int  # of each seed
    seeds: dict[int, float]
    references: dict[str, float]  # the mean over the runs

    @property
    def mean(self) -> float:
        return float(np.mean([*self.seeds.values()]))


def divisions(scored: Sequence[tuple[Names, str, Sequence[Run]]], acting: Sequence[str]) -> dict[str, list[GroupRow]]:
    """{way to divide the episodes: rows} of settings that were scored: (names, player, runs)."""
    found: dict[str, list[GroupRow]] = {}
    for names, player, runs in scored:
        for division, row in _rows(names, player, [run for run in runs if run.evaluation.get("groups")], acting):
            found.setdefault(division, []).append(row)
    return found


def _rows(names: Names, player: str, runs: Sequence[Run], acting: Sequence[str]) -> Iterator[tuple[str, GroupRow]]:
    for division, groups in runs[0].evaluation["groups"].items() if runs else ():
        for group, first in groups.items():
            alike = {run.seed: run.evaluation["groups"].get(division, {}).get(group, {}) for run in runs}
            played = {seed: one for seed, one in alike.items() if player in one}
            if not played:
                continue
            references = [name for name in first if name not in ("episodes", *acting)]
            means = {name: float(np.mean([one[name] for one in played.values() if name in one])) for name in references}
            seeds = {seed: float(one[player]) for seed, one in sorted(played.items())}
            yield division, GroupRow(names, player, group, int(first["episodes"]), seeds, means)
