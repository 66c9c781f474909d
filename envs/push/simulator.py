"""One episode of Push at a time, for `envs/processes.py`. Importing this needs PyBullet."""

from __future__ import annotations

import numpy as np
from gymnasium.utils import seeding

from envs.push import expert, language, layout
from envs.push.config import Config
from envs.push.scene import Scene
from envs.robots import SHUFFLED

SOLVED = 0.05  # metres between cube and goal: panda-gym's own threshold


class Simulator:
    def __init__(self, config: Config):
        self.config = config
        self.scene = Scene(config.camera, plates=config.task == "language")

    def reset(self, seed: int, task: int) -> dict[str, np.ndarray]:
        random, _ = seeding.np_random(task)
        self.steps = 0
        self.layout = layout.two_pairs(random) if self.config.task == "language" else layout.one_pair(random)
        self.told = self.layout.asked  # what the instruction asks for, and so what the expert does
        if self.config.task == "language":
            if self.config.instruction == "shuffled":
                self.told = layout.any_pair(self.layout.cubes, self.layout.goals, np.random.default_rng((task, SHUFFLED)))
            self.mission = language.instruction(self.told, task, random)
        self.scene.build(self.layout.cubes, self.layout.goals)
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]:
        self.scene.step(action)
        self.steps += 1
        cube, goal = self.layout.asked
        solved = bool(np.linalg.norm(self.scene.cube(cube) - self.layout.goals[goal]) < SOLVED)
        return self._observe(), 0.0 if solved else -1.0, solved, not solved and self.steps >= self.config.max_steps, {}

    def expert(self) -> np.ndarray:
        """What the expert would do now."""
        cube, goal = self.told
        others = [self.scene.cube(colour) for colour in self.layout.cubes if colour != cube]
        return expert.action(self.scene.hand(), self.scene.cube(cube), self.layout.goals[goal], others)

    def picture(self, size: int) -> np.ndarray:
        return self.scene.image(size)

    def close(self) -> None:
        self.scene.close()

    def _observe(self) -> dict[str, np.ndarray]:
        seen = {"state": self.scene.hand()}
        if self.config.image:
            seen["image"] = self.scene.image(self.config.image_size)
        elif self.config.task == "push":
            cube, goal = self.layout.asked
            seen["state"] = np.concatenate([self.scene.hand(), self.scene.cube(cube), self.layout.goals[goal]])
        else:  # by colour: where it is, and whether it is a cube
            things = [
                (
                    *(self.scene.cube(colour) if colour in self.layout.cubes else self.layout.goals[colour]),
                    colour in self.layout.cubes,
                )
                for colour in layout.COLOURS
            ]
            seen["state"] = np.concatenate([self.scene.hand(), *things])
        return seen | {"mission": self.mission} if self.config.task == "language" else seen
