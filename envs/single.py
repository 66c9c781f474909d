"""A family made from one `gymnasium.Env`: played in worker processes, and replayed from its seeds for pictures.

class Mine(SingleEnvFamily):
    @staticmethod
    def make_env(config, render_mode=None):
        return MyEnv(config.difficulty, render_mode=render_mode)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np

from envs.adapter import Adapter
from envs.base import Family, Needs
from envs.deal import Deal
from envs.processes import ProcessVector, cores

LANES_PER_CORE = 8  # more are not faster: a core steps one lane at a time


class SingleEnvFamily(Family):
    """Subclasses write `make_env`. Worker processes call it too, so the class must be importable. Their `config` has the fields
    `data` and `max_steps` (0: the environment's own limit)."""

    def __init__(self, config: Any) -> None:
        self.config = config
        env = self.make_env(config)
        self._adapter = Adapter(env.observation_space, env.action_space)
        self.spaces = self._adapter.spaces
        limit = env.spec.max_episode_steps if env.spec else None
        env.close()
        self.max_steps = config.max_steps or limit or 1000
        self.max_lanes = self.record_batch = LANES_PER_CORE * cores()
        self.has_success = self.success_return is not None

    @property
    def adapter(self) -> Adapter:
        return self._adapter

    @staticmethod
    def make_env(config: Any, render_mode: str | None = None) -> gymnasium.Env:
        raise NotImplementedError("make_env(config, render_mode) -> gymnasium.Env")

    @property
    def success_return(self) -> float | None:
        """An episode with at least this return counts as solved; None: only returns are known. With a number, however large, the
        environment's own success flag (`info["success"]` or `info["is_success"]`) counts too."""
        return None

    @classmethod
    def accepts(cls, config: Any, needs: Needs = "play") -> str | None:
        if needs == "expert" and cls.expert is Family.expert:
            return f"{cls.__name__} has no expert"
        return super().accepts(config, needs)

    def make_vector(self, deal: Deal) -> ProcessVector:
        make = partial(Simulator, type(self), self.config, self.max_steps, self.success_return)
        return ProcessVector(make, deal, self.spaces, infos=("solved",))

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return info["solved"] > 0

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Compares seeds, because whether two seeds give the same start is unknown in general."""
        return np.isin(seeds, training)

    def signature(self) -> dict[str, Any]:
        return {"id": type(self).__name__, "max_steps": self.max_steps, "gymnasium": gymnasium.__version__}

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray] | None:
        try:
            env = self.make_env(self.config, render_mode="rgb_array")
        except (TypeError, gymnasium.error.Error):
            return None
        if env.render_mode != "rgb_array":
            return None
        films = []
        for seed, taken in zip(seeds.tolist(), actions, strict=True):
            env.reset(seed=seed)
            frames = [env.render()]
            for action in taken:
                env.step(self.adapter.decode(action))
                frames.append(env.render())
            films.append(np.stack([np.asarray(frame, np.uint8) for frame in frames]))
        env.close()
        return films


class Simulator:
    """Plays one episode at a time, for `envs/processes.py`."""

    def __init__(self, family: type[SingleEnvFamily], config: Any, max_steps: int, success_return: float | None):
        self.env = family.make_env(config)
        self.adapter = Adapter(self.env.observation_space, self.env.action_space)
        self.max_steps, self.success_return = max_steps, success_return

    def reset(self, seed: int, task: int) -> dict[str, np.ndarray]:
        self.steps, self.total = 0, 0.0
        observation, _ = self.env.reset(seed=seed)
        return self.adapter.observation(observation)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]:
        observation, reward, terminated, truncated, info = self.env.step(self.adapter.decode(action))
        self.steps += 1
        self.total += float(reward)
        solved = bool(info.get("success", info.get("is_success", False)))
        truncated = bool(truncated) or self.steps >= self.max_steps
        if self.success_return is not None and (terminated or truncated):  # before, a return of punishments only falls
            solved |= self.total >= self.success_return
        return self.adapter.observation(observation), float(reward), bool(terminated), truncated, {"solved": float(solved)}

    def close(self) -> None:
        self.env.close()
