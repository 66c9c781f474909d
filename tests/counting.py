"""A simulator that counts, for tests of worker processes. Workers import it: nothing here may need PyTorch."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import numpy as np
from gymnasium import spaces

from conf.errors import BadRequest
from envs.deal import Deal
from envs.processes import ProcessVector
from envs.spaces import Spaces

SPACES = Spaces(
    spaces.Dict({"image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "state": spaces.Box(-1e9, 1e9, (2,), np.float32)}),
    spaces.Box(-1, 1, (1,), np.float32),
)


class Counter:
    """An episode of seed % 3 + 2 steps that shows its seed and its step, and does what its `fault` says."""

    def __init__(self, fault: str = "") -> None:
        if fault == "unwilling":
            raise BadRequest("install something")
        self.fault = fault

    def reset(self, seed: int, task: int) -> dict[str, np.ndarray]:
        self.seed, self.steps = seed, 0
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]:
        if self.fault == "raise":
            raise KeyError("nothing here")
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault.startswith("/"):  # a file that gets a byte for each step
            with open(self.fault, "ab") as file:
                file.write(b".")
        self.steps += 1
        return self._observe(), float(action[0]), self.steps == self.seed % 3 + 2, False, {"twice": 2.0 * self.steps}

    def best(self, factor: float = 1.0) -> float:
        return factor * self.steps

    def close(self) -> None: ...

    def _observe(self) -> dict[str, np.ndarray]:
        return {"image": np.full((4, 4, 3), self.seed % 256, np.uint8), "state": np.array([self.seed, self.steps])}


def vector(lanes: int = 4, episodes: int = 10, workers: int | None = 2, fault: str = "") -> ProcessVector:
    deal = Deal(lanes, np.arange(100, 100 + episodes))
    return ProcessVector(partial(Counter, fault), deal, SPACES, workers, infos=("twice",))
