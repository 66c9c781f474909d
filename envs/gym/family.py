"""Any registered Gymnasium id. It has no expert: training needs recorded episodes, such as a Minari dataset."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from envs.base import Needs
from envs.data.config import DataConfig
from envs.single import SingleEnvFamily


@dataclass
class Data(DataConfig):
    episodes: int = 1_000_000  # at most so many of the dataset's episodes
    val_episodes: int = 100  # the last ones of the dataset, at most a fifth of them


@dataclass
class Config:
    id: str = "CartPole-v1"  # any registered id
    package: str = ""  # imported first, because it registers the id; your own choice only: 'trusted_packages=[gym_pusht]'
    arguments: dict[str, Any] = field(default_factory=dict)  # what gymnasium.make is given besides
    max_steps: int = 0  # episodes end after so many steps; 0: the id's own limit, or 1000 if it has none
    success_return: float | None = None  # the return from which an episode is solved; null: the id's own threshold, if it has one
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if not 0 <= self.max_steps <= 1_000_000:
            raise ValueError(f"max_steps must be between 0 and 1000000, got {self.max_steps}")
        if ":" in self.id:  # Gymnasium would import what stands before it
            package, _, id = self.id.partition(":")
            raise ValueError(f"id names no package; write env.id={id} env.package={package} 'trusted_packages=[{package}]'")

    @property
    def packages(self) -> list[str]:
        """What is imported because this configuration says so."""
        return [self.package] if self.package else []


class Gym(SingleEnvFamily):
    @staticmethod
    def make_env(config: Config, render_mode: str | None = None) -> gymnasium.Env:
        if config.package:
            importlib.import_module(config.package)
        arguments = dict(config.arguments) | ({"render_mode": render_mode} if render_mode else {})
        return gymnasium.make(config.id, **arguments)

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        if sentence := missing(config):
            return sentence
        try:
            cls.make_env(config).close()
        except Exception as error:  # whatever the environment raises: its dependencies, its arguments
            return f"env.id={config.id} cannot be made: {type(error).__name__}: {error}"
        if needs == "data" and not config.data.imported:
            return "env=gym has no expert to record: choose a Minari dataset, env.data.source=NAMESPACE/NAME-v0"
        return super().accepts(config, needs)

    @property
    def success_return(self) -> float | None:
        if self.config.success_return is not None:
            return self.config.success_return
        return gymnasium.spec(self.config.id).reward_threshold

    @property
    def env_spec(self) -> EnvSpec:
        return gymnasium.spec(self.config.id)

    def signature(self) -> dict[str, Any]:
        return super().signature() | {"id": self.config.id, "arguments": self.config.arguments}


def missing(config: Config) -> str | None:
    """The sentence for a package that is not installed, or an id that nobody registered."""
    if config.package:
        if importlib.util.find_spec(config.package) is None:
            name = config.package.replace("_", "-")
            return f"env.package={config.package} is not installed: pip install {name}"
        importlib.import_module(config.package)
    try:
        gymnasium.spec(config.id)
    except gymnasium.error.Error as error:
        near = get_close_matches(config.id, gymnasium.registry, 3, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; env.package= imports the package that registers it"
        return f"env.id={config.id} is not a registered Gymnasium id ({str(error).rstrip('.')}){hint}"
    return None
