"""A learner that explores: it walks to unvisited places until it is rewarded, and from then on returns to the rewarded place.

It knows the map and counts its visits, as count-based exploration does (Strehl & Littman 2008); it learns the goal from rewards
alone. Policies that imitate it find goals within a few episodes: as a source of histories for in-context learning it helped more
than anything else that was measured, capacity and training time included.
"""

from __future__ import annotations

import numpy as np

from envs.darkroom.rules import ACTIONS, cell_of, distances, shortest_ways

ROVING = np.array([1.0, 3.0])  # how far the next place may be; each history draws one, so that learners differ
SLIPS = 0.05  # chance of a random action while exploring
DOUBT = 0.3  # the same once the goal is known,
CONFIDENCE = 0.7  # times this for every episode begun since


class Explorer:
    """Many lanes at once, each its own learner with one map for each value of what is seen beside the position (key or cue).

    All lanes take the same number of draws in every step, so a history is a function of its own draws and of what it saw.
    """

    def __init__(self, size: int, maps: int, flag: str | None, lanes: int, random: np.random.Generator) -> None:
        self.size, self.flag, self.random = size, flag, random
        self.cells, self.maps = size * size, maps
        nearness = np.exp(-distances(size) / ROVING[:, None, None]).astype(np.float32)
        self.nearness = nearness.reshape(-1, self.cells)  # [2 * cells, cells] weights of the next place
        self.roving = random.integers(len(ROVING), size=lanes) * self.cells  # [N] first row of its own table
        self.ways = shortest_ways(size)  # [2, cells * cells] by rows first; by columns first
        self.chart = np.arange(lanes) * maps  # [N] first row of its own maps
        self.unvisited = np.ones((lanes * maps, self.cells), np.float32)
        self.goal = np.full(lanes * maps, -1)  # where it was rewarded
        self.slips = np.full(lanes * maps, SLIPS, np.float32)  # chance of a random action
        self.place = np.full(lanes, -1)  # [N] where it is walking to; -1: to be drawn
        self.episode = np.full(lanes, -1)

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cell, chart = self._read(observation)
        draw = self.random.random((4, len(episode)), np.float32)
        begins = episode != self.episode
        if begins.any():
            self.slips *= np.where(np.repeat(begins, self.maps) & (self.goal >= 0), np.float32(CONFIDENCE), np.float32(1))
            self.place[begins] = -1
            self.episode = episode
        goal = self.goal[chart]
        known = goal >= 0
        lost = np.flatnonzero(~known & ((self.place < 0) | (self.place == cell)))
        if len(lost):
            self._draw_places(lost, cell[lost], chart[lost], draw[0, lost])
        self.place = np.where(known, goal, self.place)
        ways = self.ways[:, cell * self.cells + self.place]  # [2, N]
        slips = self.slips[chart]
        action = np.where(draw[1] < 0.5, ways[0], ways[1])
        action = np.where(draw[2] < slips, (draw[3] * ACTIONS).astype(np.int64), action)
        # While it explores, its target is hidden, so the probability is unknown. Afterwards it is known.
        meant = np.float32(0.5) * ((action == ways[0]).astype(np.float32) + (action == ways[1]))
        chance = np.where(known, slips / ACTIONS + (1 - slips) * meant, np.nan)
        self.acted = chart, goal
        return action, np.log(chance)

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        (chart, goal), (cell, _) = self.acted, self._read(after)
        self.unvisited[chart, cell] = 0
        found = np.flatnonzero((reward > 0) & (goal < 0))
        if len(found):
            self.goal[chart[found]], self.slips[chart[found]] = cell[found], DOUBT
            self.place[found] = -1  # the next target, the door, is elsewhere

    def _draw_places(self, lanes: np.ndarray, cell: np.ndarray, chart: np.ndarray, draw: np.ndarray) -> None:
        """Draw an unvisited place nearby for each lane."""
        weights = (self.nearness[self.roving[lanes] + cell] * self.unvisited[chart]).cumsum(1)  # [K, cells]
        below = weights <= draw[:, None] * weights[:, -1:]
        self.place[lanes] = np.minimum(below.sum(1), self.cells - 1)

    def _read(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The cell [N], and which map [N] it is marked on."""
        cell = cell_of(observation["position"], self.size)
        return cell, self.chart + observation[self.flag] if self.flag else self.chart
