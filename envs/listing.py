"""The table of `python -m envs list`, measured on the first test layouts of each id."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from envs.minigrid import Config, MiniGrid
from envs.play import ExpertPlayer, Observation, play
from envs.spaces import random_actions

BEGIN, END = "<!-- python -m envs list -->", "<!-- end of the list -->"


class RandomPlayer:
    def __init__(self, family: MiniGrid) -> None:
        self.space, self.random = family.spaces.action, np.random.default_rng(0)

    def start(self, vector: VectorEnv) -> None:
        pass

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        return random_actions(self.space, self.random.random(len(lanes), np.float32))


def header(episodes: int) -> list[str]:
    return [
        f"Success of the expert and of random play on {episodes} test layouts of each id, within the id's own step limit.",
        "Episodes/s: the expert's (without an expert, random play's), in CPU time, with the making of layouts.",
        "",
        "| id | played by | expert | steps | random | steps at most | episodes/s |",
        "|---|---|---|---|---|---|---|",
    ]


def rows(match: str, episodes: int) -> Iterator[str]:
    """One line for each id that contains `match`."""
    for id in gymnasium.registry:
        if not id.startswith(("MiniGrid-", "BabyAI-")) or match not in id or MiniGrid.accepts(Config(id=id)):
            continue
        family = MiniGrid(Config(id=id))
        seeds = family.seeds("test", episodes)
        began = time.process_time()
        expert = play(ExpertPlayer(family), family, seeds, episodes).score if family.planned else None
        middle = time.process_time()
        random = play(RandomPlayer(family), family, seeds, episodes).score
        assert random.success is not None
        seconds = middle - began if expert else time.process_time() - middle
        success, steps = "-", "-"
        if expert:
            assert expert.success is not None
            success, steps = f"{expert.success.mean():.2f}", f"{expert.lengths.mean():.0f}"
        yield (
            f"| {id} | {'engine' if family.batched else 'MiniGrid'} | {success} | {steps} | {random.success.mean():.2f} "
            f"| {family.max_steps} | {episodes / seconds:,.0f} |"
        )


def inserted(text: str, lines: list[str]) -> str:
    """`text` with these lines between its markers."""
    before, found, rest = text.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise SystemExit(f"the file must contain {BEGIN} and, behind it, {END}")
    return "\n".join([before + BEGIN, "", *lines, "", END + after])
