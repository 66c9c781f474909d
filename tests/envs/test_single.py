"""Ten lines make a family of a `gymnasium.Env` of one's own, as docs/environments.md shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.base import SPLITS
from envs.data import record
from envs.data.config import DataConfig
from envs.play import ExpertPlayer, play
from envs.single import SingleEnvFamily


class Corridor(gymnasium.Env):
    """Walk to the right end, from a place that the seed chooses."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, step: int, render_mode: str | None = None):
        self.step_size, self.render_mode = step, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(9))
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place = min(9, max(0, self.place + self.step_size * (1 if action else -1)))
        return np.array([self.place], np.float32), -1.0, self.place == 9, False, {"success": self.place == 9}

    def render(self):
        picture = np.zeros((8, 80, 3), np.uint8)
        picture[:, 8 * self.place : 8 * self.place + 8] = 255
        return picture


@dataclass
class Config:
    data: DataConfig = field(default_factory=DataConfig)
    max_steps: int = 12
    step: int = 1


class AlwaysRight:
    def act(self, vector):
        return np.ones(vector.num_envs, np.int64)


class Mine(SingleEnvFamily):
    success_return = 0.0  # none reaches it: the flag decides

    @staticmethod
    def make_env(config, render_mode=None):
        return Corridor(config.step, render_mode=render_mode)

    def expert(self):
        return AlwaysRight()


def test_it_is_vectorised_dealt_recorded_and_filmed(tmp_path: Path):
    family = Mine(Config(DataConfig(episodes=6, val_episodes=2)))
    seeds = family.seeds("test", 7)
    played = [play(ExpertPlayer(family), family, seeds, lanes, keep=2) for lanes in (1, 4)]  # in this process, and in workers
    begun = [int(gymnasium.utils.seeding.np_random(int(seed))[0].integers(9)) for seed in seeds]
    for one in played:
        assert one.score.lengths.tolist() == [9 - place for place in begun] and one.score.success.all()
    [film] = family.render(seeds[:1], [played[0].actions[0]]) or []
    assert len(film) == 10 - begun[0] and film[-1][0, -1].tolist() == [255, 255, 255]
    assert len({int(seed) for split in SPLITS for seed in family.seeds(split, 5)}) == 15
    data = record.dataset(family, family.config.data, "train", tmp_path)
    assert len(data.ends) == 6 and data.meta["expert"]["success"] == 1 and (data.columns["action"] == 1).all()
