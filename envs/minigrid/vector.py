"""Vector environments over MiniGrid ids: the batched engine where it knows the rules, real MiniGrid stepped in a loop elsewhere.

Both speak the same: observations, dealing of seeds, `info["episode_index"]`, `final_obs`. Each fills in how to load,
retire, play and observe lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from minigrid.core.actions import Actions

from envs.deal import Deal
from envs.minigrid.bank import Bank, reset, simulator
from envs.spaces import Spaces
from envs.text import tokens

Observation = dict[str, np.ndarray]  # grid [N,7,7,3] uint8, direction [N] int64, mission [N,L] uint8


class MiniGridVector(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """What both kinds share. Arrays that were returned are never written again."""

    def __init__(self, deal: Deal, spaces: Spaces) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = deal.num_envs
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batch_space(spaces.observation, self.num_envs)
        self.action_space = batch_space(spaces.action, self.num_envs)
        self.deal = deal
        self.episode = np.full(self.num_envs, -1, np.int64)  # [N] index into the dealt episodes, -1: the lane idles
        self.seeds = np.full(self.num_envs, -1, np.int64)  # [N] their episode seeds
        self.missions = [""] * self.num_envs  # as strings
        self._length = spaces.observation["mission"].shape[0]  # type: ignore[index]
        self._tokens: dict[str, np.ndarray] = {}
        self._mission = np.zeros((self.num_envs, self._length), np.uint8)  # [N,L]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Deal from the top. `seed` has nothing to decide: the episodes' own seeds were given when this was made."""
        del seed, options
        self.deal.restart()
        self._begin(np.arange(self.num_envs))
        return self._observe(slice(None)), {"episode_index": self.episode.copy()}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        actions = np.array(actions, np.intp)  # [N], a copy
        if actions.min() < 0:  # the engine's tables refuse what is too large, but read -1 as their last action
            raise ValueError(f"actions must be between 0 and {len(Actions) - 1}, got {actions.min()}")
        actions[self.episode < 0] = Actions.done  # in an idle lane nothing happens
        reward, terminated, truncated = self._play(actions)
        observation = self._observe(slice(None))
        done = terminated | truncated
        if not done.any():
            return observation, reward, terminated, truncated, {"episode_index": self.episode.copy()}
        lanes = np.flatnonzero(done)
        self._begin(lanes)
        fresh, final = self._observe(lanes), observation
        observation = {name: array.copy() for name, array in final.items()}
        for name, array in fresh.items():
            observation[name][lanes] = array
        info = {"episode_index": self.episode.copy(), "final_obs": final, "_final_obs": done}
        return observation, reward, terminated, truncated, info

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
        """These lanes will never be done again."""
        raise NotImplementedError

    def _play(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """reward, terminated, truncated [N]; idle lanes: 0, False, False."""
        raise NotImplementedError

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """New arrays."""
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
        self.engine.max_steps[lanes] = np.iinfo(np.int64).max  # the action `done` never ends an episode either

    def _play(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward, terminated, truncated = self.engine.step(actions)
        idle = self.episode < 0  # `done` ends an episode in some ids, and a lane that was solved last stays solved
        return np.where(idle, 0.0, reward), terminated & ~idle, truncated

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
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

    def _load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        for lane, seed in zip(lanes.tolist(), layouts.tolist(), strict=True):
            self._see(lane, reset(self.envs[lane], seed, self.max_steps))

    def _retire(self, lanes: np.ndarray) -> None:
        pass  # `_play` passes over lanes without an episode

    def _play(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
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
