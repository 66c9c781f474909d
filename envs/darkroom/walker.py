"""The expert of Dark Room, which sees the goal: rows first, then columns, then stay."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from envs.darkroom.rules import shortest_ways
from envs.darkroom.vector import DarkRoomVector


class Walker:
    def __init__(self, size: int) -> None:
        self.cells, self.way = size**2, shortest_ways(size)[0]

    def act(self, vector: VectorEnv) -> np.ndarray:
        vector = vector.unwrapped
        assert isinstance(vector, DarkRoomVector), "the goal is read off the rules"
        return self.way[np.where(vector.target >= 0, vector.cell * self.cells + vector.target, 0)]
