"""Vector environments for MiniGrid ids: the batched engine where it knows the rules, else real MiniGrid stepped in a loop.

Each implements how to load, retire, play and observe lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from minigrid.core.actions import Actions

from envs.deal import Deal
from envs.minigrid.bank import Bank, reset, simulator
from envs.spaces import Spaces
from envs.text import tokens
from envs.vector import DealtVector, Observation, Outcome


class MiniGridVector(DealtVector):
    """Shared by both kinds: layouts are dealt, and missions are shown as tokens."""

    def __init__(self, deal: Deal, spaces: Spaces) -> None:
        super().__init__(deal, spaces)
        self.seeds = np.full(self.num_envs, -1, np.int64)  # [N] episode seeds
        self.missions = [""] * self.num_envs  # as strings
        self._length = spaces.observation["mission"].shape[0]  # type: ignore[index]
        self._tokens: dict[str, np.ndarray] = {}
        self._mission = np.zeros((self.num_envs, self._length), np.uint8)  # [N,L]

    def _begin(self, lanes: np.ndarray) -> None:
        hand = self.deal.next(lanes)
        self.episode[lanes], self.seeds[lanes] = hand.episode, hand.seed
        playing = hand.episode >= 0
        self._load(lanes[playing], hand.task[playing])
        self._retire(lanes[~playing])
        for lane in lanes[playing].tolist():
            mission = self.missions[lane]
            if mission not in self._tokens:
                self._tokens[mission] = tokens(mission, self._length)
            self._mission[lane] = self._tokens[mission]

    def _load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        """Start these layouts (seeds [K]) in these lanes [K] and set their `missions`."""
        raise NotImplementedError

    def _retire(self, lanes: np.ndarray) -> None:
        """Make these lanes idle: they never end an episode again."""
        raise NotImplementedError


class BatchedVector(MiniGridVector):
    """All lanes in one `Engine`. The planner reads `engine`."""

    def __init__(self, bank: Bank, deal: Deal, spaces: Spaces) -> None:
        super().__init__(deal, spaces)
        self.bank = bank
        self.engine = bank.rules(self.num_envs, bank.env.width, bank.env.height, bank.env.see_through_walls)

    def _load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        records = self.bank.layouts(layouts)
        self.engine.load(lanes, records)
        for lane, mission in zip(lanes.tolist(), records["mission"].tolist(), strict=True):
            self.missions[lane] = self.bank.missions[mission]

    def _retire(self, lanes: np.ndarray) -> None:
        self.engine.max_steps[lanes] = np.iinfo(np.int64).max  # never truncated; `_play` hides how `done` ends them

    def _play(self, actions: np.ndarray) -> Outcome:
        idle = self.episode < 0  # their outcomes are hidden: `done` ends an episode in some ids, and a solved state stays solved
        reward, terminated, truncated = self.engine.step(np.where(idle, Actions.done, actions))
        return np.where(idle, 0.0, reward), terminated & ~idle, truncated

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """grid [N,7,7,3] uint8, direction [N] int64, mission [N,L] uint8."""
        direction = self.engine.direction[lanes].astype(np.int64)
        return {"grid": self.engine.observe(lanes), "direction": direction, "mission": np.array(self._mission[lanes])}


class LoopVector(MiniGridVector):
    """One real MiniGrid environment a lane, for ids whose rules the engine does not know."""

    def __init__(self, id: str, max_steps: int, deal: Deal, spaces: Spaces) -> None:
        super().__init__(deal, spaces)
        self.max_steps = max_steps
        self.envs = [simulator(id) for _ in range(self.num_envs)]
        self._grid = np.zeros((self.num_envs, *spaces.observation["grid"].shape), np.uint8)  # type: ignore[misc]
        self._direction = np.zeros(self.num_envs, np.int64)
        self.actions = np.zeros(self.num_envs, np.intp)  # [N] the last actions, which BabyAI's bot needs

    def _load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        for lane, seed in zip(lanes.tolist(), layouts.tolist(), strict=True):
            self._see(lane, reset(self.envs[lane], seed, self.max_steps))

    def _retire(self, lanes: np.ndarray) -> None:
        pass  # `_play` skips lanes without an episode

    def _play(self, actions: np.ndarray) -> Outcome:
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        self.actions = actions
        for lane in np.flatnonzero(self.episode >= 0).tolist():
            observation, reward[lane], terminated[lane], truncated[lane], _ = self.envs[lane].step(int(actions[lane]))
            self._see(lane, observation)
        return reward, terminated, truncated

    def _see(self, lane: int, observation: dict[str, Any]) -> None:
        self._grid[lane], self._direction[lane] = observation["image"], observation["direction"]
        self.missions[lane] = observation["mission"]

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        return {
            "grid": np.array(self._grid[lanes]),
            "direction": np.array(self._direction[lanes]),
            "mission": np.array(self._mission[lanes]),
        }
