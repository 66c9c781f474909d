"""`env.*` of env=push."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from envs.data.config import DataConfig
from envs.robots import check_camera, check_values

TASKS = ("push", "language")


@dataclass
class Camera:
    """Measured: these values show both cube and goal in 97 % of the expert's frames, a view from the front in 65 to 86 %."""

    yaw: float = 60.0  # degrees around the table; 90 looks at the arm from the front
    pitch: float = -35.0  # degrees; -90 looks straight down
    distance: float = 0.75  # metres from the target
    fov: float = 36.0  # degrees that the image spans
    target: list[float] = field(default_factory=lambda: [-0.02, 0.0, 0.0])  # what it looks at; the arm stands at -0.6, 0, 0

    def __post_init__(self) -> None:
        check_camera(self, "pitch")
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
        check_values(self)
        if self.instruction != "right" and self.task != "language":
            raise ValueError("instruction=shuffled needs an instruction to shuffle: add env.task=language")
