"""`env.*` of env=push."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from envs.data.config import DataConfig

TASKS = ("push", "language")
INSTRUCTIONS = ("right", "shuffled")


@dataclass
class Camera:
    """Measured: these values show both cube and goal in 97 % of the expert's frames, a view from the front in 65 to 86 %."""

    yaw: float = 60.0  # degrees around the table; 90 looks at the arm from the front
    pitch: float = -35.0  # degrees; -90 looks straight down
    distance: float = 0.75  # metres from the target
    fov: float = 36.0  # degrees that the image spans
    target: list[float] = field(default_factory=lambda: [-0.02, 0.0, 0.0])  # what it looks at; the arm stands at -0.6, 0, 0

    def __post_init__(self) -> None:
        if len(self.target) != 3:
            raise ValueError(f"target must be [x, y, z], got {self.target}")
        if not -90 <= self.pitch <= 90:
            raise ValueError(f"pitch must be between -90 and 90, got {self.pitch}")
        if not 0.1 <= self.distance <= 5:
            raise ValueError(f"distance must be between 0.1 and 5 metres, got {self.distance}")
        if not 1 <= self.fov <= 120:
            raise ValueError(f"fov must be between 1 and 120 degrees, got {self.fov}")


@dataclass
class Data(DataConfig):
    NOISE_KINDS: ClassVar[tuple[str, ...]] = ("uniform", "dart", "burst", "none")

    episodes: int = 850
    val_episodes: int = 50


@dataclass
class Config:
    task: str = "push"  # push: one cube, one goal; language: two of each, and a sentence that says which to push where
    instruction: str = "right"  # language: "shuffled" draws another one to show, and success must fall accordingly
    image: bool = True  # see the camera's image; without it the state holds the cubes' and goals' places
    image_size: int = 84  # pixels of a side
    camera: Camera = field(default_factory=Camera)
    max_steps: int = 100  # panda-gym's own 50 cut off an expert's longest episodes; success within 50 is reported too
    num_workers: int | None = None  # processes that simulate; null for one a core, 0 for none but this one
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task}")
        if self.instruction not in INSTRUCTIONS:
            raise ValueError(f"instruction must be one of {', '.join(INSTRUCTIONS)}, got {self.instruction}")
        if self.instruction != "right" and self.task != "language":
            raise ValueError("instruction=shuffled needs an instruction to shuffle: add env.task=language")
        if not 16 <= self.image_size <= 512:
            raise ValueError(f"image_size must be between 16 and 512, got {self.image_size}")
        if not 1 <= self.max_steps <= 10_000:
            raise ValueError(f"max_steps must be between 1 and 10000, got {self.max_steps}")
        if self.num_workers is not None and not 0 <= self.num_workers <= 256:
            raise ValueError(f"num_workers must be between 0 and 256, or null for one a core, got {self.num_workers}")
