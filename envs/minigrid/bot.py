"""Real MiniGrid, one environment a lane, for ids whose rules the engine does not know; and in it, as the expert of BabyAI's ids,
BabyAI's own bot, which follows the instruction and knows of the world only what it has seen.

Paper: Chevalier-Boisvert et al., "BabyAI" (2019), arXiv 1810.08272.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from minigrid.core.actions import Actions
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from envs.minigrid.bank import reset, simulator
from envs.processes import ProcessVector
from envs.text import known_tokens

CANNOT = ("KeyInBox", "Carrying")  # substrings of ids that the bot never solves, as its docstring says
MOST_SUBGOALS = 30  # that the bot sets itself in one decision, unless it circles; in BossLevel, the largest level, it was 8

Observation = dict[str, Any]


class Circles(Exception):
    """The bot puts off a subgoal for another that leads back to it, without end."""


GIVES_UP = (AssertionError, Circles, DisappearedBoxError, IndexError, KeyError)  # raised where the bot does not know what to do


class Subgoals(list[Any]):
    """The bot's stack of subgoals. Counts those of one decision."""

    added = 0

    def append(self, subgoal: Any) -> None:
        self.added += 1
        if self.added > MOST_SUBGOALS:
            raise Circles
        super().append(subgoal)


class Simulator:
    """For `envs/processes.py`. A task is a layout, named by its seed."""

    def __init__(self, id: str, max_steps: int, words: int) -> None:
        self.env, self.max_steps, self.words = simulator(id), max_steps, words

    def reset(self, seed: int, task: int) -> Observation:
        observation = reset(self.env, task, self.max_steps)
        self.mission = known_tokens(observation["mission"], self.words)
        self.bot: BabyAIBot | None = None
        self.subgoals = Subgoals()
        self.gave_up = False
        return self._shown(observation)

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, float]]:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.action = action
        return self._shown(observation), float(reward), terminated, truncated, {}

    def close(self) -> None:
        self.env.close()

    def _shown(self, observation: dict[str, Any]) -> Observation:
        return {"grid": observation["image"], "direction": observation["direction"], "mission": self.mission}

    def advice(self) -> int:
        """The bot's next action, whatever was executed before. It must be asked at every step: it misses what it is not asked to
        look at. If it does not know what to do, it starts again from the present state; if that fails too, its action is `done`.
        If it circles then too, that is its action until the episode ends, because to find out takes long.
        """
        if self.gave_up:
            return int(Actions.done)
        try:
            if self.env.step_count and self.bot is not None:
                self.subgoals.added = 0
                return int(self.bot.replan(self.action))
        except GIVES_UP:
            pass
        try:  # at the episode's start, or once more, knowing only the present state
            self.bot = BabyAIBot(self.env)
            self.bot.stack = self.subgoals = Subgoals(self.bot.stack)
            return int(self.bot.replan())
        except GIVES_UP as error:
            self.bot, self.gave_up = None, isinstance(error, Circles)
            return int(Actions.done)


class Bot:
    """Asks the lanes' simulators."""

    def act(self, vector: VectorEnv) -> np.ndarray:
        vector = vector.unwrapped
        assert isinstance(vector, ProcessVector), "the bot plays in the real MiniGrid"
        return np.array([int(Actions.done) if action is None else action for action in vector.call("advice")])
