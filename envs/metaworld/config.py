"""`env.*` of env=metaworld."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from envs.data.config import DataConfig
from envs.metaworld.tasks import listed

GRIPPER = 4  # the first numbers of the state, all that an image leaves of it: where the gripper is, and how far it is open
INSTRUCTIONS = ("right", "shuffled")


@dataclass
class View:
    """The whole table from its front left corner, as near as all fifty tasks allow."""

    azimuth: float = 140.0  # degrees around the table; 90 looks from behind the arm
    elevation: float = -35.0  # degrees; -90 looks straight down
    distance: float = 1.3  # metres from the target
    target: list[float] = field(default_factory=lambda: [0.0, 0.68, 0.08])  # what it looks at; the arm stands at 0, 0, 0

    def __post_init__(self) -> None:
        if len(self.target) != 3:
            raise ValueError(f"target must be [x, y, z], got {self.target}")
        if not -90 <= self.elevation <= 90:
            raise ValueError(f"elevation must be between -90 and 90, got {self.elevation}")
        if not 0.1 <= self.distance <= 5:
            raise ValueError(f"distance must be between 0.1 and 5 metres, got {self.distance}")


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
    camera: View = field(default_factory=View)
    max_steps: int = 500  # Meta-World's own limit
    num_workers: int | None = None  # processes that simulate; null for one a core, 0 for none but this one
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if len(listed(self.tasks)) < 2 and self.instruction == "shuffled":
            raise ValueError("instruction can be shuffled among several tasks only: add env.tasks=mt10, or a list")
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
