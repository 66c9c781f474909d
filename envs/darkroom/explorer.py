"""A learner that explores: it walks to places where it has not been until it is rewarded, and goes back there ever after.

It knows the map and counts its visits, as count-based exploration does (Strehl & Littman 2008); of the goal it knows what rewards
tell. What imitates it finds goals within a few episodes: as a source of histories for in-context learning it was worth more than
anything else that was measured, capacity and training time included.
"""

from __future__ import annotations

import numpy as np

from envs.darkroom.rules import ACTIONS, STAY, distances

ROVING = np.array([1.0, 3.0])  # how far the next place may be; each history draws one, so that learners differ
SLIPS = 0.05  # chance of a random action while exploring
DOUBT = 0.3  # the same once the goal is known,
CONFIDENCE = 0.7  # times this for every episode since


class Explorer:
    """Many lanes at once, each its own learner with one map for each value of what is seen beside the position (key or cue).

    All lanes take the same number of draws in every step, so a history is a function of its own draws and of what it saw.
    """

    def __init__(self, size: int, maps: int, flag: str | None, lanes: int, random: np.random.Generator) -> None:
        self.size, self.flag, self.random = size, flag, random
        self.lane, self.cells = np.arange(lanes), size * size
        nearness = np.exp(-distances(size) / ROVING[:, None, None]).astype(np.float32)
        self.nearness = nearness.reshape(-1, self.cells)  # [2 * cells, cells] weights of the next place
        self.roving = random.integers(len(ROVING), size=lanes) * self.cells  # [N] first row of its own table
        self.unvisited = np.ones((lanes * maps, self.cells), np.float32)
        self.goal = np.full((lanes, maps), -1)  # where it was rewarded
        self.since = np.zeros((lanes, maps))  # episodes begun since
        self.place = np.full(lanes, -1)  # where it is walking to; -1: to be drawn
        self.turn = np.full(lanes, -1)

    def act(self, observation: dict[str, np.ndarray], turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row, column, cell, now = self._read(observation)
        draw = self.random.random((3, len(turn)), np.float32)
        begins = turn != self.turn
        if begins.any():
            self.since += begins[:, None] & (self.goal >= 0)
            self.place[begins] = -1
            self.turn = turn
        goal = self.goal[self.lane, now]
        known = goal >= 0
        lost = np.flatnonzero(~known & ((self.place < 0) | (self.place == cell)))
        if len(lost):
            self._draw_places(lost, cell[lost], now[lost], draw[0, lost])
        self.place = np.where(known, goal, self.place)
        down, right = self.place // self.size - row, self.place % self.size - column
        vertical, horizontal = np.where(down > 0, 0, 1), np.where(right > 0, 2, 3)
        both = (down != 0) & (right != 0)
        intended = np.where(down != 0, vertical, np.where(right != 0, horizontal, STAY))
        intended = np.where(both & (draw[1] < 0.5), horizontal, intended)
        slips = np.where(known, DOUBT * CONFIDENCE ** self.since[self.lane, now], SLIPS)
        anything = np.minimum(draw[2] / np.maximum(slips, 1e-30) * ACTIONS, ACTIONS - 1).astype(np.int64)  # if below `slips`
        action = np.where(draw[2] < slips, anything, intended)
        # While it explores, the place it walks to is its secret. Afterwards what it does is a known gamble.
        meant = np.where(both, 0.5 * ((action == vertical) | (action == horizontal)), action == intended)
        chance = slips / ACTIONS + (1 - slips) * meant
        self.acted = self.lane * self.goal.shape[1] + now, now, goal  # for `learn`
        return action, np.where(known, np.log(np.maximum(chance, 1e-30)), np.nan)

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        (chart, now, goal), (_, _, cell, _) = self.acted, self._read(after)
        self.unvisited[chart, cell] = 0
        found = np.flatnonzero((reward > 0) & (goal < 0))
        self.goal[found, now[found]] = cell[found]
        self.place[found] = -1

    def _draw_places(self, lanes: np.ndarray, cell: np.ndarray, now: np.ndarray, draw: np.ndarray) -> None:
        """Near places where it has not been, one draw each."""
        chart = lanes * self.goal.shape[1] + now
        weights = (self.nearness[self.roving[lanes] + cell] * self.unvisited[chart]).cumsum(1)  # [K, cells]
        below = weights <= draw[:, None] * weights[:, -1:]
        self.place[lanes] = np.minimum(below.sum(1), self.cells - 1)

    def _read(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """row, column, cell, and which map [N]."""
        row, column = observation["position"].T.astype(np.int64)
        return row, column, row * self.size + column, observation[self.flag] if self.flag else np.zeros_like(row)
