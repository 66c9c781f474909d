"""The vector environment of MiniGrid ids whose rules the batched engine knows."""

from __future__ import annotations

import numpy as np
from minigrid.core.actions import Actions

from envs.deal import Deal
from envs.minigrid.bank import Bank
from envs.spaces import Spaces
from envs.text import known_tokens
from envs.vector import DealtVector, Observation, Outcome


class BatchedVector(DealtVector):
    """All lanes in one `Engine`. The planner reads `engine`. Layouts are dealt, and missions are shown as tokens."""

    def __init__(self, bank: Bank, deal: Deal, spaces: Spaces) -> None:
        super().__init__(deal, spaces)
        self.seeds = np.full(self.num_envs, -1, np.int64)  # [N] episode seeds
        self.missions = [""] * self.num_envs  # as strings
        self._length = spaces.observation["mission"].shape[0]  # type: ignore[index]
        self._tokens: dict[str, np.ndarray] = {}
        self._mission = np.zeros((self.num_envs, self._length), np.uint8)  # [N,L]
        self.bank = bank
        self.engine = bank.rules(self.num_envs, bank.env.width, bank.env.height, bank.env.see_through_walls)

    def _begin(self, lanes: np.ndarray) -> None:
        hand = self.deal.next(lanes)
        self.episode[lanes], self.seeds[lanes] = hand.episode, hand.seed
        playing = hand.episode >= 0
        self._load(lanes[playing], hand.task[playing])
        self._retire(lanes[~playing])

    def _load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        """Start these layouts (seeds [K]) in these lanes [K]."""
        records = self.bank.layouts(layouts)
        self.engine.load(lanes, records)
        for lane, number in zip(lanes.tolist(), records["mission"].tolist(), strict=True):
            mission = self.missions[lane] = self.bank.missions[number]
            if mission not in self._tokens:
                self._tokens[mission] = known_tokens(mission, self._length)
            self._mission[lane] = self._tokens[mission]

    def _retire(self, lanes: np.ndarray) -> None:
        """Make these lanes idle: they never end an episode again, not even by the action `done`."""
        self.engine.max_steps[lanes] = np.iinfo(np.int64).max

    def _play(self, actions: np.ndarray) -> Outcome:
        idle = self.episode < 0  # their outcomes are hidden: `done` ends an episode in some ids, and a solved state stays solved
        reward, terminated, truncated = self.engine.step(np.where(idle, Actions.done, actions))
        return np.where(idle, 0.0, reward), terminated & ~idle, truncated

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """grid [N,7,7,3] uint8, direction [N] int64, mission [N,L] uint8."""
        direction = self.engine.direction[lanes].astype(np.int64)
        return {"grid": self.engine.observe(lanes), "direction": direction, "mission": np.array(self._mission[lanes])}
