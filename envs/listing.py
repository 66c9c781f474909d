"""The table of `python -m envs list`, measured on the first test layouts of each id."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from envs import metaworld, minigrid
from envs.base import Family, Score
from envs.metaworld import MetaWorld, tasks
from envs.minigrid import MiniGrid
from envs.play import ExpertPlayer, Observation, play
from envs.spaces import random_actions

USUAL = "MiniGrid-"  # the ids of the list that nothing else is asked of
END = "<!-- end of the list -->"


class RandomPlayer:
    def __init__(self, family: Family) -> None:
        self.space, self.random = family.spaces.action, np.random.default_rng(0)

    def start(self, vector: VectorEnv) -> None:
        pass

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        return random_actions(self.space, self.random.random((len(lanes), *(self.space.shape or ())), np.float32))


def header(episodes: int) -> list[str]:
    return [
        f"Success of the expert and of random play on {episodes} test layouts of each id, within the id's own step limit.",
        "Episodes/s: the expert's (without an expert, random play's), in CPU time, with the making of layouts.",
        "",
        "| id | played by | expert | steps | random | steps at most | episodes/s |",
        "|---|---|---|---|---|---|---|",
    ]


def families(match: str) -> Iterator[tuple[str, str, Family]]:
    """(id, who plays it, its family) of each id that contains `match` and can be played here."""
    for id in gymnasium.registry:
        if id.startswith(("MiniGrid-", "BabyAI-")) and match in id and not MiniGrid.accepts(minigrid.Config(id=id)):
            family = MiniGrid(minigrid.Config(id=id))
            yield id, "engine" if family.batched else "MiniGrid", family
    for task in tasks.NAMES:
        config = metaworld.Config(tasks=task, num_workers=0)  # the time of other processes would not be counted
        if match in (id := f"Meta-World/{task}") and not MetaWorld.accepts(config):
            yield id, "Meta-World", MetaWorld(config)


@dataclass
class Row:
    """One id, as it was measured."""

    id: str
    player: str
    max_steps: int
    expert: Score | None
    random: Score
    seconds: float  # of CPU: the expert's, or random play's where there is no expert

    @property
    def timed(self) -> Score:
        return self.expert or self.random

    def line(self) -> str:
        assert self.random.success is not None
        success, steps = "-", "-"
        if self.expert:
            assert self.expert.success is not None
            success, steps = f"{self.expert.success.mean():.2f}", f"{self.expert.lengths.mean():.0f}"
        return (
            f"| {self.id} | {self.player} | {success} | {steps} | {self.random.success.mean():.2f} | {self.max_steps} "
            f"| {rate(len(self.timed.lengths) / self.seconds)} |"
        )


def rows(match: str, episodes: int) -> Iterator[Row]:
    """Each id that contains `match`."""
    for id, player, family in families(match):
        seeds = family.seeds("test", episodes)
        began = time.process_time()
        has_expert = family.accepts(family.config, needs="expert") is None
        expert = play(ExpertPlayer(family), family, seeds, episodes).score if has_expert else None
        middle = time.process_time()
        random = play(RandomPlayer(family), family, seeds, episodes).score
        seconds = middle - began if expert else time.process_time() - middle
        yield Row(id, player, family.max_steps, expert, random, seconds)


def total(measured: list[Row]) -> list[str]:
    """Of all ids together."""
    told = [f"{len(measured)} ids" if len(measured) != 1 else "1 id"]
    solved = [row.expert.success.mean() for row in measured if row.expert and row.expert.success is not None]
    if solved:
        told.append(f"experts for {len(solved)}, which solve {np.mean(solved):.3f} on average")
    if measured:
        steps = sum(int(row.timed.lengths.sum()) for row in measured) / sum(row.seconds for row in measured)
        told.append(f"{rate(steps)} steps/s of CPU time")
    return ["", "; ".join(told) + "."]


def rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def begin(match: str) -> str:
    """The marker before a table of these ids."""
    return f"<!-- python -m envs list{f' --match {match}' if match != USUAL else ''} -->"


def inserted(text: str, match: str, lines: list[str]) -> str:
    """`text` with these lines between its markers."""
    before, found, rest = text.partition(begin(match))
    _, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise SystemExit(f"the file must contain {begin(match)} and, behind it, {END}")
    return "\n".join([before + found, "", *lines, "", END + after])
