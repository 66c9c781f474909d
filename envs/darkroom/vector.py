"""All lanes of Dark Room at once, by table look-up.

Three games in one grid whose goals are never shown:
    room         every step that ends on the goal pays 1; episodes are truncated, never terminated
    key_to_door  the key pays 1 once, then the door pays 1 and ends the episode; whether the key is held is shown (`key`)
    recall       two rooms in turns, by a schedule over the episodes of a task; which one it is is shown (`cue`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.darkroom.rules import ACTIONS, GAMES, neighbours, start
from envs.deal import Deal
from envs.spaces import Spaces

Observation = dict[str, np.ndarray]  # position [N,2] uint8 (row, column); key or cue [N] int64


class DarkRoomVector(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Arrays that were returned are never written again. The expert reads `cell` and `target`."""

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
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = deal.num_envs
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batch_space(spaces.observation, self.num_envs)
        self.action_space = batch_space(spaces.action, self.num_envs)
        self.max_steps, self.schedule, self.goals, self.deal = max_steps, schedule, goals, deal
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
        self.episode = np.full(self.num_envs, -1, np.int64)  # [N] index into the dealt episodes, -1: the lane idles

    @property
    def cell(self) -> np.ndarray:
        return self._cell // ACTIONS

    @property
    def target(self) -> np.ndarray:
        """The cell [N] that would pay next."""
        return self._target // ACTIONS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Deal from the top. `seed` has nothing to decide: the tasks were given when this was made."""
        del seed, options
        self.deal.restart()
        self._begin(np.arange(self.num_envs))
        return self._observe(), {"episode_index": self.episode.copy()}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        actions = np.asarray(actions, np.int64)  # [N]
        if actions.view(np.uint64).max() >= ACTIONS:  # negative ones are huge there
            raise ValueError(f"actions must be between 0 and {ACTIONS - 1}, got {actions.min()} to {actions.max()}")
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
            done = terminated | truncated
        else:
            terminated = np.zeros(self.num_envs, bool)
            done = truncated
        observation, reward = self._observe(), rewarded.astype(np.float32)
        if not done.any():
            return observation, reward, terminated, truncated, {"episode_index": self.episode.copy()}
        self._begin(np.flatnonzero(done))
        info = {"episode_index": self.episode.copy(), "final_obs": observation, "_final_obs": done}
        return self._observe(), reward, terminated, truncated, info

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

    def _observe(self) -> Observation:
        seen = {"position": self._place[self._cell].view(np.uint8).reshape(-1, 2)}
        return seen if self.flag is None else seen | {self.flag: self._flag.copy()}
