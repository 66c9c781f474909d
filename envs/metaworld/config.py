"""`env.*` of env=metaworld."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from envs.data.config import DataConfig
from envs.metaworld.tasks import listed

INSTRUCTIONS = ("right", "shuffled")


@dataclass
class Data(DataConfig):
    NOISE_KINDS: ClassVar[tuple[str, ...]] = ("uniform", "dart", "burst", "none")

    episodes: int = 500  # of all tasks together
    val_episodes: int = 50


@dataclass
class Config:
    tasks: str | list[str] = "mt10"  # one task (push-v3), a list of tasks, mt10 or mt50
    instruction: str = "right"  # "shuffled" shows the instruction of any of the tasks, and success must fall accordingly
    image: bool = False  # see the camera's image, and of the state nothing but the gripper
    image_size: int = 84  # pixels of a side
    max_steps: int = 500  # Meta-World's own limit
    num_workers: int | None = None  # processes that simulate; null for one a core, 0 for none but this one
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if len(listed(self.tasks)) < 2 and self.instruction == "shuffled":
            raise ValueError("instruction=shuffled needs several tasks to choose from: add env.tasks=mt10, or a list")
        if self.instruction not in INSTRUCTIONS:
            raise ValueError(f"instruction must be one of {', '.join(INSTRUCTIONS)}, got {self.instruction}")
        if not 16 <= self.image_size <= 512:
            raise ValueError(f"image_size must be between 16 and 512, got {self.image_size}")
        if not 1 <= self.max_steps <= 10_000:
            raise ValueError(f"max_steps must be between 1 and 10000, got {self.max_steps}")
        if self.num_workers is not None and not 0 <= self.num_workers <= 256:
            raise ValueError(f"num_workers must be between 0 and 256, or null for one a core, got {self.num_workers}")

    @property
    def names(self) -> list[str]:
        """The tasks, one by one."""
        return listed(self.tasks)
