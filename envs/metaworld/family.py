"""Meta-World (Yu et al. 2019, arXiv 1910.10897): a robot arm on MuJoCo and fifty tasks, each with a scripted expert.

An episode is one task with its own places of the object and the goal, and an instruction that says which task it is. It ends with
success, as in the package's own evaluation. Places of val and test episodes never occur in training.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.base import Needs
from envs.metaworld import camera
from envs.metaworld.config import GRIPPER, Config
from envs.metaworld.language import WORDS
from envs.metaworld.tasks import CLASS_OF
from envs.robots import Robot
from envs.spaces import Spaces
from envs.text import VOCABULARY

VERSION = 1  # of how episodes begin and are worded; a change makes every dataset anew
LANES = 16  # at least; more make nothing faster, because a core plays one at a time
STATE = 39  # the gripper and up to two things now (18), the same a step earlier (18), and the goal (3)
BLOCKS = 8  # episodes of each lane that are recorded at once


class MetaWorld(Robot):
    def __init__(self, config: Config) -> None:
        self.config, self.names = config, config.names
        self.max_steps = config.max_steps
        # Episode k is of task k modulo their number. If that divides the number of lanes, each lane plays one task, and makes one
        # environment.
        self.tasks_in_turn = len(self.names)
        self.max_lanes = self.tasks_in_turn * -(-LANES // self.tasks_in_turn)
        self.record_batch = BLOCKS * self.max_lanes
        length, size = GRIPPER if config.image else STATE, config.image_size
        modalities: dict[str, spaces.Space] = {
            "state": spaces.Box(-np.inf, np.inf, (length,), np.float32),
            "mission": spaces.Box(0, VOCABULARY - 1, (WORDS,), np.uint8),
        }
        if config.image:
            modalities["image"] = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.spaces = Spaces(spaces.Dict(modalities), spaces.Box(-1, 1, (4,), np.float32))

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        if importlib.util.find_spec("metaworld") is None:
            return (
                "env=metaworld needs Meta-World: pip install 'iolaus[metaworld]' (in a checkout: pip install -e '.[metaworld]')."
            )
        if config.image and (sentence := camera.missing()):
            return f"env.image=true: {sentence}; without, env.image=false shows the places of things as numbers"
        return super().accepts(config, needs)

    @staticmethod
    def simulator(config: Config) -> Any:
        from envs.metaworld.simulator import Simulator

        return Simulator(config)

    def task_names(self, seeds: np.ndarray) -> list[str]:
        return [f"{self.names[seed % len(self.names)]} {seed}" for seed in seeds.tolist()]

    def groups(self, seeds: np.ndarray) -> dict[str, list[str]]:
        names = [self.names[seed % len(self.names)] for seed in seeds.tolist()]
        return {"difficulty": [CLASS_OF[name] for name in names], "task": names} if len(self.names) > 1 else {}

    def signature(self) -> dict[str, Any]:
        config = self.config
        view = {"camera": asdict(config.camera)} if config.image else {}
        told = {"instruction": config.instruction} if config.instruction != "right" else {}
        packages = {name: version(name) for name in ("metaworld", "mujoco")}
        tasks = config.tasks if isinstance(config.tasks, str) else "some"
        return {
            "id": f"metaworld-{tasks}",
            "tasks": self.names,
            "max_steps": config.max_steps,
            **view,
            **told,
            **packages,
            "version": VERSION,
        }

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray] | None:
        return None if camera.missing() else super().render(seeds, actions, episodes)
