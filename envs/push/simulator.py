"""One episode of Push at a time, for `envs/processes.py`. Importing this needs PyBullet."""

from __future__ import annotations

import numpy as np
from gymnasium.utils import seeding

from envs.push import expert
from envs.push.config import Config
from envs.push.scene import CUBE, Scene

LYING = np.array([0.0, 0.0, CUBE / 2])  # a cube in the middle of the table
REACH = 0.15  # metres from the middle of the table in which cubes and goals lie, in x and in y
SOLVED = 0.05  # metres between cube and goal: panda-gym's own threshold
FARTHER = 0.1  # metres that they are apart at first: 6 % of PandaPush-v3's own episodes are solved before they begin


class Simulator:
    def __init__(self, config: Config):
        self.config = config
        self.scene = Scene(config.camera, plates=False)

    def reset(self, seed: int, task: int) -> dict[str, np.ndarray]:
        """Where PandaPush-v3 begins with this seed, unless that is too near; then with the following draws of the same stream."""
        random, _ = seeding.np_random(task)
        while True:
            goal, cube = (LYING + random.uniform((-REACH, -REACH, 0), (REACH, REACH, 0)) for _ in range(2))
            if np.linalg.norm(goal - cube) > FARTHER:
                break
        self.goal, self.steps = goal, 0
        self.scene.build({"green": cube}, {"red": goal})
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]:
        self.scene.step(action)
        self.steps += 1
        solved = bool(np.linalg.norm(self.scene.cube("green") - self.goal) < SOLVED)
        return self._observe(), 0.0 if solved else -1.0, solved, not solved and self.steps >= self.config.max_steps, {}

    def expert(self) -> np.ndarray:
        """What the expert would do now."""
        return expert.action(self.scene.hand(), self.scene.cube("green"), self.goal)

    def picture(self, size: int) -> np.ndarray:
        return self.scene.image(size)

    def close(self) -> None:
        self.scene.close()

    def _observe(self) -> dict[str, np.ndarray]:
        if self.config.image:
            return {"image": self.scene.image(self.config.image_size), "state": self.scene.hand()}
        return {"state": np.concatenate([self.scene.hand(), self.scene.cube("green"), self.goal])}
