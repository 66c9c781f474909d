"""The expert of Dark Room, who looks at the goal: rows first, then columns, then stay."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from envs.darkroom.rules import STAY
from envs.darkroom.vector import DarkRoomVector


class Walker:
    def __init__(self, size: int) -> None:
        cell, goal = np.divmod(np.arange(size**4), size**2)
        down, right = goal // size - cell // size, goal % size - cell % size
        ways = [down > 0, down < 0, right > 0, right < 0]
        self.cells, self.best = size**2, np.select(ways, [0, 1, 2, 3], STAY)  # [cells * cells]

    def act(self, vector: VectorEnv) -> np.ndarray:
        vector = vector.unwrapped
        assert isinstance(vector, DarkRoomVector), "the goal is read off the rules"
        return self.best[np.where(vector.target >= 0, vector.cell * self.cells + vector.target, 0)]
