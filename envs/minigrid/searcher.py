"""An expert that has to search: it knows only what it has seen in the current episode.

It walks to where the most unseen cells per step would come into view, and takes a shortest path to the goal once it has seen it.
Its demonstrations show what to do when the goal is not in view. Those of a planner that knows the goal do not: from them a policy
can learn only where goals often are, not where to look.

It works in worlds where nothing needs to be opened or carried. All lanes are searched at once, in NumPy.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from envs.minigrid.codes import CLEAR, GOAL, LAVA, WALKABLE
from envs.minigrid.engine import FAR, HALF, LIT, ONWARD, VIEW, Engine, rows_across
from envs.minigrid.planner import FORWARD, LEFT, MEMBERS, RIGHT, SIZE, uniform
from envs.minigrid.vector import BatchedVector

TOGETHER = 128  # lanes searched at once: few enough for the CPU's cache
SEEN = np.packbits(LIT.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, 0]  # [16384] bit i: cell i of the row is seen
COUNT = np.array([row.bit_count() for row in range(1 << VIEW)], np.uint8)  # [128]


class Searcher:
    """Among several equally good actions, one is drawn from (seed, episode seed, step); with `straight`, walking on is preferred.
    It must be called at every step of an episode, or it misses observations."""

    def __init__(self, seed: int, straight: bool = False) -> None:
        self.seed, self.straight = seed, straight
        self.vector: BatchedVector | None = None

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The next action [N] of every lane; `done` where nothing is left to explore."""
        vector = vector.unwrapped
        assert isinstance(vector, BatchedVector), "only the engine shows its state"
        engine = vector.engine
        if vector is not self.vector:
            self.vector = vector
            self.seen = np.ones((vector.num_envs, engine.size), bool)  # [N,S]
            self.inner = engine.inside.reshape(engine.height, engine.width)[1:-1, 1:-1].reshape(-1)  # not on the outer wall
        begins = np.flatnonzero(engine.steps == 0)
        self.seen[begins[:, None], self.inner] = False
        self._look(engine)
        best = np.zeros(vector.num_envs, np.uint8)
        playing = np.flatnonzero(vector.episode >= 0)
        for start in range(0, len(playing), TOGETHER):
            lanes = playing[start : start + TOGETHER]
            best[lanes] = self._search(engine, lanes)
        if self.straight:
            best = np.where(best & FORWARD, FORWARD, best)
        draw = uniform(self.seed, vector.seeds, engine.steps)
        return MEMBERS[best, (draw * SIZE[best]).astype(np.intp)]

    def _look(self, engine: Engine) -> None:
        """Remember the cells that are currently in view."""
        local, direction = engine.cell - engine.home, engine.direction
        ahead, right = engine.ahead[direction], engine.right[direction]  # [N]
        i, j = np.arange(VIEW) - HALF, np.arange(VIEW)
        cells = local[:, None, None] + i[:, None] * right[:, None, None] + j * ahead[:, None, None]  # [N,7 across,7 deep]
        if engine.see_through_walls:
            shown = np.ones(cells.shape, bool)
        else:
            lit = engine.lit(direction * engine.size + local + 4 * engine.home, ahead)  # byte i, bit FAR - j
            shown = (lit.view(np.uint8).reshape(-1, 8)[:, :VIEW, None] >> (FAR - j) & 1).astype(bool)
        lanes = np.broadcast_to(engine.lanes[:, None, None], cells.shape)
        self.seen[lanes[shown], cells[shown]] = True

    def _search(self, engine: Engine, lanes: np.ndarray) -> np.ndarray:
        """The best actions [K] of these lanes, as sets."""
        codes, seen = engine.codes[lanes], self.seen[lanes]  # [K,S]
        free = (WALKABLE & ~LAVA)[codes] & seen
        free = free[:, engine.inside]  # [K,C]
        at = np.searchsorted(engine.inside, engine.cell[lanes] - engine.home[lanes])
        distance, first = _ways(free, at, engine.direction[lanes], engine.width)  # [K,4,C]
        there = np.flatnonzero(distance > 0)  # states that can be reached
        lane, state = np.divmod(there, distance[0].size)
        direction, cell = np.divmod(state, free.shape[1])
        value = np.zeros(distance.size)
        gain = _gain(engine, codes, seen, lane, direction, engine.inside[cell])
        is_goal = GOAL[codes[lane, engine.inside[cell]]]
        value[there] = np.where(is_goal, 1e6, gain) / distance.reshape(-1)[there]
        chosen = value.reshape(len(lanes), -1).argmax(1) + np.arange(len(lanes)) * distance[0].size
        return np.where(value[chosen] == 0, 0, first.reshape(-1)[chosen])


def _ways(free: np.ndarray, at: np.ndarray, direction: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Breadth-first search from the agents' states. Returns the distance [K,4,C] of every state, -1 if unreachable, and the set
    of first actions of the shortest paths to it."""
    lanes = np.arange(len(free))
    distance = np.full((len(free), 4, free.shape[1]), -1, np.int16)
    distance[lanes, direction, at] = 0
    first, level = np.zeros(distance.shape, np.uint8), np.zeros(distance.shape, np.uint8)
    steps = np.array([1, width, -1, -width])
    level[lanes, (direction - 1) % 4, at], level[lanes, (direction + 1) % 4, at] = LEFT, RIGHT
    onto = at + steps[direction]
    level[lanes, direction, onto] = FORWARD * free[lanes, onto]
    open_cells = np.where(free, 255, 0).astype(np.uint8)
    number = 0
    while level.any():
        number += 1
        first |= level
        distance[level != 0] = number
        after = np.roll(level, 1, axis=1) | np.roll(level, -1, axis=1)
        for side, step in enumerate(steps):  # no agent walks on the outer wall, so shifts never wrap around
            after[:, side] |= np.roll(level[:, side], step, axis=1) & open_cells
        level = np.where(distance < 0, after, 0).astype(np.uint8)
    return distance, first


def _gain(
    engine: Engine, codes: np.ndarray, seen: np.ndarray, lane: np.ndarray, direction: np.ndarray, cell: np.ndarray
) -> np.ndarray:
    """How many unseen cells [M] would come into view in these states, assuming that unseen cells are clear."""
    unseen = rows_across((~seen).view(np.uint8), engine.stride).reshape(-1)
    clear = rows_across((CLEAR[codes] | ~seen).view(np.uint8), engine.stride).reshape(-1)
    row = (lane * 4 + direction) * engine.size + cell
    ahead = engine.ahead[direction]
    light, gain = np.full(len(row), 1 << HALF << VIEW), np.zeros(len(row), np.int64)
    for _ in range(VIEW):
        light = light + clear.take(row)
        shown = 127 if engine.see_through_walls else SEEN.take(light)
        gain += COUNT.take(unseen.take(row) & shown)
        light = ONWARD.take(light)
        row = row + ahead
    return gain
