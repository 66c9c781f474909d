"""The two kinds of players that a family can provide: experts and learners."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv


class Expert(Protocol):
    """Labels states with the best action. It may use the simulator's full state (`vector`), not only the policy's observation."""

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The best action [N] in the current state of every lane, whichever actions led there."""
        ...


class Learner(Protocol):
    """Plays the histories of many lanes at once and improves from observations and rewards alone."""

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N] and their log-probabilities [N], NaN if unknown. `episode` [N] counts the episodes of each lane's history
        from 0; it is -1 in a lane whose history is over."""
        ...

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        """Learn from the outcome of the last actions. `after` is the observation that each step led to; where an episode ended,
        its last one."""
        ...
