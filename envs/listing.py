"""The table of `python -m envs list`, measured on the first test layouts of each id."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from envs import metaworld, minigrid
from envs.base import Family
from envs.metaworld import MetaWorld, tasks
from envs.minigrid import MiniGrid
from envs.play import ExpertPlayer, Observation, play
from envs.spaces import random_actions

BEGIN, END = "<!-- python -m envs list -->", "<!-- end of the list -->"


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


def rows(match: str, episodes: int) -> Iterator[str]:
    """One line for each id that contains `match`."""
    for id, player, family in families(match):
        seeds = family.seeds("test", episodes)
        began = time.process_time()
        has_expert = family.accepts(family.config, needs="expert") is None
        expert = play(ExpertPlayer(family), family, seeds, episodes).score if has_expert else None
        middle = time.process_time()
        random = play(RandomPlayer(family), family, seeds, episodes).score
        assert random.success is not None
        seconds = middle - began if expert else time.process_time() - middle
        success, steps = "-", "-"
        if expert:
            assert expert.success is not None
            success, steps = f"{expert.success.mean():.2f}", f"{expert.lengths.mean():.0f}"
        yield (
            f"| {id} | {player} | {success} | {steps} | {random.success.mean():.2f} | {family.max_steps} "
            f"| {rate(episodes / seconds)} |"
        )


def rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def inserted(text: str, lines: list[str]) -> str:
    """`text` with these lines between its markers."""
    before, found, rest = text.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise SystemExit(f"the file must contain {BEGIN} and, behind it, {END}")
    return "\n".join([before + BEGIN, "", *lines, "", END + after])
