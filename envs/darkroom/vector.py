"""All lanes of Dark Room at once, by table look-up.

Three games in one grid whose goals are never shown:
    room         every step that ends on the goal pays 1; episodes are truncated, never terminated
    key_to_door  the key pays 1 once, then the door pays 1 and ends the episode; whether the key is held is shown (`key`)
    recall       two rooms in turns, by a schedule over the episodes of a task; which one it is is shown (`cue`)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.darkroom.rules import ACTIONS, GAMES, neighbours, start
from envs.deal import Deal
from envs.spaces import Spaces
from envs.vector import DealtVector, Observation, Outcome


class DarkRoomVector(DealtVector):
    """The expert reads `cell` and `target`."""

    def __init__(
        self,
        game: str,
        size: int,
        max_steps: int,
        schedule: np.ndarray,
        goals: Callable[[np.ndarray], np.ndarray],
        deal: Deal,
        spaces: Spaces,
    ) -> None:
        """`goals` maps task seeds [K] to cells [K, 2] (key and door, or two goals); `schedule` is the cue of each episode."""
        super().__init__(deal, spaces)
        self.max_steps, self.schedule, self.goals = max_steps, schedule, goals
        self.flag = GAMES[game]
        # Cells are kept times ACTIONS, so that adding the action gives the row of the table. One more cell parks idle lanes.
        cells = size * size
        self._parked = cells * ACTIONS
        moves = np.concatenate([neighbours(size), np.full((1, ACTIONS), cells)])
        self._next = (moves * ACTIONS).ravel()  # [(cells+1)*A]
        places = np.stack(np.divmod(np.append(np.arange(cells), start(size)), size), 1).astype(np.uint8)
        self._place = np.repeat(places, ACTIONS, axis=0).view(np.uint16)[:, 0]  # both coordinates in one look-up
        self._start = start(size) * ACTIONS
        self._cell, self._target = np.zeros((2, self.num_envs), np.int64)  # [N] times ACTIONS
        self._door = np.zeros(self.num_envs, np.int64)  # [N] the next target, once the key is held
        self._flag = np.zeros(self.num_envs, np.int64)  # [N] holds the key; the cue
        self._left = np.zeros(self.num_envs, np.int64)  # [N] steps until the episode is cut

    @property
    def cell(self) -> np.ndarray:
        return self._cell // ACTIONS

    @property
    def target(self) -> np.ndarray:
        """The cell [N] that would pay next."""
        return self._target // ACTIONS

    def _play(self, actions: np.ndarray) -> Outcome:
        self._cell = self._next[self._cell + actions]
        rewarded = self._cell == self._target
        self._left -= 1
        truncated = self._left == 0
        if self.flag == "key":
            terminated = rewarded & (self._flag == 1)
            truncated &= ~terminated
            picked = rewarded & ~terminated
            self._flag = self._flag | picked
            self._target = np.where(picked, self._door, self._target)
        else:
            terminated = np.zeros(self.num_envs, bool)
        return rewarded.astype(np.float32), terminated, truncated

    def _begin(self, lanes: np.ndarray) -> None:
        hand = self.deal.next(lanes)
        self.episode[lanes] = hand.episode
        out = hand.episode < 0
        goals = self.goals(np.where(out, 0, hand.task)) * ACTIONS  # [K, 2]
        flag = np.zeros(len(lanes), np.int64)
        if self.flag == "cue":
            flag = self.schedule[hand.episode % self.deal.episodes_per_task % len(self.schedule)]
        target = np.where(flag == 1, goals[:, 1], goals[:, 0]) if self.flag == "cue" else goals[:, 0]
        self._cell[lanes] = np.where(out, self._parked, self._start)
        self._target[lanes] = np.where(out, -1, target)
        self._door[lanes], self._flag[lanes] = goals[:, 1], flag
        self._left[lanes] = np.where(out, np.iinfo(np.int64).max, self.max_steps)

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """position [N,2] uint8 (row, column); key or cue [N] int64."""
        seen = {"position": self._place[self._cell[lanes]].view(np.uint8).reshape(-1, 2)}
        return seen if self.flag is None else seen | {self.flag: np.array(self._flag[lanes])}
