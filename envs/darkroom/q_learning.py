"""Tabular Q-learning (Watkins 1989), epsilon-greedy, one table a history."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.darkroom.rules import ACTIONS

RATE = 0.5
DISCOUNT = 0.9
FIRST, LAST, ANNEALED = 1.0, 0.05, 0.7  # chance of a random action: from, to, reached after this share of the history


class QLearning:
    def __init__(
        self,
        states: int,
        state: Callable[[dict[str, np.ndarray]], np.ndarray],
        lanes: int,
        episodes: int,
        random: np.random.Generator,
    ) -> None:
        """`state` numbers what is seen, from 0 to below `states`."""
        self.state, self.random = state, random
        self.value = np.zeros((lanes * states, ACTIONS), np.float32)
        self.table = np.arange(lanes) * states  # [N] first row of each history's own
        done = np.arange(episodes) / max(1, ANNEALED * episodes)
        self.chance = np.maximum(LAST, FIRST - (FIRST - LAST) * done)  # [episodes] of a random action

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self.table + self.state(observation)
        value = self.value[row].T  # [A, N]
        best = value == value.max(0)  # all of them until something is known, so ties are drawn
        chance = self.chance[episode]
        odds = chance / ACTIONS + (1 - chance) * best / best.sum(0)
        action = draw(odds.cumsum(0), self.random)
        self.acted = row, action
        return action, np.log(odds[action, np.arange(len(row))])

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        row, action = self.acted
        ahead = np.where(terminated, 0, self.value[self.table + self.state(after)].max(1))
        self.value[row, action] += RATE * (reward + DISCOUNT * ahead - self.value[row, action])


def draw(cumulated: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An action [N] for cumulated probabilities [A, N]."""
    return (random.random(cumulated.shape[1], np.float32) >= cumulated[:-1]).sum(0)
