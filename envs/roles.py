"""The two kinds of players that a family brings along: experts and learners."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv


class Expert(Protocol):
    """Labels states with the best action. It may look at the simulator's state (`vector`), not only at what the policy sees."""

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The best action [N] in the present state of every lane, whatever was executed before."""
        ...


class Learner(Protocol):
    """Plays the histories of many lanes at once and gets better at it, from nothing but observations and rewards."""

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N], and the log-probability [N] that each had, NaN if unknown. `episode` [N] counts the episodes of the lane's
        history from 0; -1 in a lane whose history is over."""
        ...

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        """The outcome of these actions; `after` is what each step ended in, also where the next episode has begun."""
        ...
