"""What Push and Meta-World share. Each has a simulator of a robot arm that plays one episode at a time, a camera, an expert that
reads the simulator's state, and an instruction that may be shuffled."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from gymnasium.vector import VectorEnv

from envs.base import Family
from envs.deal import Deal
from envs.processes import ProcessVector

INSTRUCTIONS = ("right", "shuffled")
SHUFFLED = 1  # seeds the draw of a shuffled instruction together with the task, so that nothing else changes with it
FRAME = 240  # pixels of a side of a film's frames


def check_values(config: Any) -> None:
    """ValueError if a value that both configs have cannot be."""
    if config.instruction not in INSTRUCTIONS:
        raise ValueError(f"instruction must be one of {', '.join(INSTRUCTIONS)}, got {config.instruction}")
    if not 16 <= config.image_size <= 512:
        raise ValueError(f"image_size must be between 16 and 512, got {config.image_size}")
    if not 1 <= config.max_steps <= 10_000:
        raise ValueError(f"max_steps must be between 1 and 10000, got {config.max_steps}")
    if config.num_workers is not None and not 0 <= config.num_workers <= 256:
        raise ValueError(f"num_workers must be between 0 and 256, or null for one a core, got {config.num_workers}")


def check_camera(camera: Any, tilt: str) -> None:
    """`tilt` is the name of the angle against the horizon, which the two simulators call differently."""
    if len(camera.target) != 3:
        raise ValueError(f"target must be [x, y, z], got {camera.target}")
    if not -90 <= (angle := getattr(camera, tilt)) <= 90:
        raise ValueError(f"{tilt} must be between -90 and 90, got {angle}")
    if not 0.1 <= camera.distance <= 5:
        raise ValueError(f"distance must be between 0.1 and 5 metres, got {camera.distance}")


class Robot(Family):
    """A family whose simulators have, besides `reset`, `step` and `close`, `expert()` and `picture(size)`."""

    @staticmethod
    def simulator(config: Any) -> Any:
        """Called where the episodes are played, in a worker process, so that only that process imports the physics."""
        raise NotImplementedError("simulator(config) -> a simulator with reset, step, close, expert and picture")

    def make_vector(self, deal: Deal) -> ProcessVector:
        return ProcessVector(partial(self.simulator, self.config), deal, self.spaces, self.config.num_workers)

    def unobserved(self) -> Self:
        return type(self)(replace(self.config, image=False))  # type: ignore[call-arg]

    def expert(self) -> SimulatorsExpert:
        return SimulatorsExpert(np.zeros(self.spaces.action.shape or (), np.float32))

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return terminated

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Places are real numbers, so another seed is another episode."""
        return np.isin(seeds, training)

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray] | None:
        simulator, films = self.simulator(replace(self.config, image=False)), []
        for seed, taken in zip(seeds.tolist(), actions, strict=True):
            simulator.reset(seed, seed)
            frames = [simulator.picture(FRAME)]
            for action in taken:
                simulator.step(action)
                frames.append(simulator.picture(FRAME))
            films.append(np.stack(frames))
        simulator.close()
        return films


class SimulatorsExpert:
    """Asks every lane's simulator what its expert would do. A lane without an episode does nothing."""

    def __init__(self, nothing: np.ndarray):
        self.nothing = nothing

    def act(self, vector: VectorEnv) -> np.ndarray:
        assert isinstance(vector, ProcessVector)
        return np.stack([self.nothing if action is None else action for action in vector.call("expert")])
