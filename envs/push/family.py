"""Push: a robot arm pushes a cube to a goal that it sees on an 84x84 image (panda-gym's PandaPush-v3 on PyBullet).

The action is the hand's movement, the state its place, and the goal is nowhere but in the image. Write-up 004 is about this task.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.base import Needs
from envs.push.config import Config
from envs.push.language import WORDS
from envs.robots import Robot
from envs.spaces import Spaces
from envs.text import VOCABULARY

VERSION = 1  # of the scene and the expert; a change makes every dataset anew
LANES = 32  # more make nothing faster: two cores play two at a time


class Push(Robot):
    success_within = (50,)  # panda-gym's own limit
    no_op = np.zeros(3, np.float32)
    max_lanes = LANES
    record_batch = 4 * LANES  # 70 MB of images

    def __init__(self, config: Config) -> None:
        self.config = config
        self.max_steps = config.max_steps
        size, language = config.image_size, config.task == "language"
        length = 3 if config.image else 19 if language else 9  # the hand's place; four things by colour; cube and goal
        modalities: dict[str, spaces.Space] = {"state": spaces.Box(-10, 10, (length,), np.float32)}
        if config.image:
            modalities["image"] = spaces.Box(0, 255, (size, size, 3), np.uint8)
        if language:
            modalities["mission"] = spaces.Box(0, VOCABULARY - 1, (WORDS,), np.uint8)
        self.spaces = Spaces(spaces.Dict(modalities), spaces.Box(-1, 1, (3,), np.float32))

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        if not all(importlib.util.find_spec(name) for name in ("pybullet", "panda_gym")):
            return missing()
        return super().accepts(config, needs)

    @staticmethod
    def simulator(config: Config) -> Any:
        from envs.push.simulator import Simulator

        return Simulator(config)

    def signature(self) -> dict[str, Any]:
        config = self.config
        camera = {"camera": asdict(config.camera)} if config.image else {}
        told = {"instruction": config.instruction} if config.instruction != "right" else {}
        packages = {name: version(name) for name in ("panda_gym", "pybullet")}
        return {"id": f"push-{config.task}", "max_steps": config.max_steps, **camera, **told, **packages, "version": VERSION}


def missing() -> str:
    if sys.version_info >= (3, 12) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        here = f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"
        return (
            f"env=push needs PyBullet, and there is no ready-made package of it for {here}. Use Python 3.11 on Linux x86_64, or, "
            "with a C++ compiler, pip install 'iolaus[push]'."
        )
    return "env=push needs PyBullet and panda-gym: pip install 'iolaus[push]' (in a checkout: pip install -e '.[push]')."
