"""Learning histories from any expert: its actions are random at first and its own at the end ("noise distillation", ad-eps).

It improves on a schedule, not by discovery: a policy that imitates it becomes certain after a number of episodes, whether or not
it has found the goal. Learners that explore teach more (see `envs/darkroom/explorer.py`).
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.roles import Expert
from envs.spaces import random_actions

PURE = 0.9  # share of the history after which no action is random


class AnnealedExpert:
    """Every action is random with a probability that falls from 1 to 0, episode by episode of the history."""

    def __init__(self, expert: Expert, vector: VectorEnv, episodes: int, random: np.random.Generator) -> None:
        self.expert, self.vector, self.random = expert, vector, random
        self.space = vector.single_action_space
        self.chance = np.maximum(0, 1 - np.arange(episodes) / max(1, PURE * (episodes - 1)))  # [episodes] of a random action

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best, chance = self.expert.act(self.vector), self.chance[episode]
        if not isinstance(self.space, spaces.Discrete):  # this mixture has no density, so its log-probabilities are NaN
            drawn = random_actions(self.space, self.random.random(best.shape))
            strays = (self.random.random(len(episode)) < chance).reshape(-1, *[1] * (best.ndim - 1))
            return np.where(strays, drawn, best).astype(best.dtype), np.full(len(episode), np.nan)
        actions = int(self.space.n)
        draw = self.random.random((2, len(episode)))
        action = np.where(draw[0] < chance, (draw[1] * actions).astype(best.dtype), best)
        return action, np.log(chance / actions + (1 - chance) * (action == best))

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        pass
