"""Detours: walks to random places before following the expert, which knows where the goal is.

Shortest plans teach where to go, but not what to do after a failed search. On a detour, the frames look like those of a search
without success, and every step has the expert's label. A policy that remembers some frames learns to look where it has not been.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from envs.minigrid.codes import EMPTY, GOAL, code
from envs.minigrid.engine import Engine
from envs.minigrid.planner import Planner
from envs.minigrid.vector import BatchedVector

PLACE = code(OBJECT_TO_IDX["goal"], COLOR_TO_IDX["green"], 0)


class Wanderer(Planner):
    """Walks to between 0 and `most` random cells, by the planner's shortest plans. Plays one episode per lane."""

    def __init__(self, seed: int, most: int) -> None:
        super().__init__(seed)
        self.most = most

    def act(self, vector: VectorEnv) -> np.ndarray:
        """Actions [N]; -1 in lanes that have visited all their places."""
        vector = self._met(vector)
        engine = vector.engine
        arrived = self.number[engine.cell - engine.home] == self.place
        self.left -= arrived & (self.left > 0)
        for lane in np.flatnonzero((self.left > 0) & (arrived | (self.place < 0))).tolist():
            free = np.flatnonzero(engine.codes[lane, engine.inside] == EMPTY)
            self.place[lane] = self.random.choice(free)
            self.known[lane] = -1  # plan anew
        resting = self.left == 0
        self.known[resting] = engine.changes[resting]  # no plan is needed any more
        action = super().act(vector)
        unreachable = action == Actions.done  # the place is behind a locked door: end the detours
        self.left[unreachable] = 0
        return np.where(resting | unreachable, -1, action)

    def _meet(self, vector: BatchedVector) -> None:
        super()._meet(vector)
        self.random = np.random.Generator(np.random.Philox(key=[self.seed, int(vector.seeds[0])]))
        self.left = self.random.integers(self.most + 1, size=vector.num_envs)  # [N] places still to visit
        self.place = np.full(vector.num_envs, -1)  # [N] the current place, as a cell number

    def _world(self, engine: Engine, lane: int) -> np.ndarray:
        codes = engine.codes[lane, engine.inside].copy()
        codes[GOAL[codes]] = EMPTY
        if self.place[lane] >= 0:
            codes[self.place[lane]] = PLACE
        return codes
