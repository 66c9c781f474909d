"""A small continuous task for tests: move to a dot that only a small image shows. An episode takes a few steps.

Used like any user's own family: `--config-dir tests/toy_conf env=toy 'trusted_packages=[toy]'`, with tests/ on the path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.base import DataConfig, Family, Needs
from envs.deal import Deal
from envs.spaces import Spaces

SIDE = 32  # pixels
DOT = 5  # pixels
REACH = 0.3  # of one step
CLOSE = 0.1  # to the goal, where an episode ends


@dataclass
class Config:
    max_steps: int = 8
    data: DataConfig = field(default_factory=DataConfig)


class Toy(Family):
    def __init__(self, config: Config) -> None:
        self.config, self.max_steps = config, config.max_steps
        modalities: dict[str, spaces.Space] = {
            "image": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            "state": spaces.Box(-1, 1, (2,), np.float32),
        }
        self.spaces = Spaces(spaces.Dict(modalities), spaces.Box(-1, 1, (2,), np.float32))

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        return super().accepts(config, needs)

    def make_vector(self, deal: Deal) -> ToyVector:
        return ToyVector(deal, self.spaces, self.max_steps)

    def expert(self) -> Expert:
        return Expert()

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return terminated

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        return np.isin(seeds, training)

    def signature(self) -> dict[str, Any]:
        return {"id": "toy", "max_steps": self.max_steps}


class Expert:
    def act(self, vector: VectorEnv) -> np.ndarray:
        assert isinstance(vector, ToyVector)
        return ((vector.goal - vector.place) / REACH).clip(-1, 1).astype(np.float32)


class ToyVector(VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    def __init__(self, deal: Deal, spaces: Spaces, max_steps: int) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.deal, self.num_envs, self.max_steps = deal, deal.num_envs, max_steps
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batch_space(spaces.observation, self.num_envs)
        self.action_space = batch_space(spaces.action, self.num_envs)
        self.place, self.goal = np.zeros((2, self.num_envs, 2), np.float32)
        self.steps, self.episode = np.zeros((2, self.num_envs), np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, np.ndarray], dict]:
        self.deal.restart()
        self._begin(np.arange(self.num_envs))
        return self._observe(), {"episode_index": self.episode.copy()}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        assert np.isfinite(actions).all() and (np.abs(actions) <= 1).all(), actions
        self.place = (self.place + REACH * actions).clip(-1, 1).astype(np.float32)
        self.steps += 1
        terminated = np.abs(self.goal - self.place).max(1) < CLOSE
        truncated = ~terminated & (self.steps >= self.max_steps)
        observation, done = self._observe(), terminated | truncated
        reward = terminated.astype(np.float32)
        info: dict[str, Any] = {"final_obs": observation, "_final_obs": done} if done.any() else {}
        if done.any():
            self._begin(np.flatnonzero(done))
            observation = self._observe()
        return observation, reward, terminated, truncated, info | {"episode_index": self.episode.copy()}

    def _begin(self, lanes: np.ndarray) -> None:
        hand = self.deal.next(lanes)
        self.episode[lanes], self.steps[lanes] = hand.episode, 0
        for lane, task, seed in zip(lanes, hand.task, hand.seed, strict=True):
            self.goal[lane] = np.random.default_rng([1, max(task, 0)]).uniform(-1, 1, 2)
            self.place[lane] = np.random.default_rng([2, max(seed, 0)]).uniform(-1, 1, 2)

    def _observe(self) -> dict[str, np.ndarray]:
        image = np.zeros((self.num_envs, SIDE, SIDE, 3), np.uint8)
        for channel, where in enumerate((self.place, self.goal)):
            row, column = ((where + 1) / 2 * (SIDE - DOT)).round().astype(int).T
            for down, right in np.ndindex(DOT, DOT):
                image[np.arange(self.num_envs), row + down, column + right, channel] = 255
        return {"image": image, "state": self.place.copy()}
