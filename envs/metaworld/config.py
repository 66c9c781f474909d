"""`env.*` of env=metaworld."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from envs.data.config import DataConfig
from envs.metaworld.tasks import listed
from envs.robots import check_camera, check_values

GRIPPER = 4  # first numbers of the state: where the gripper is, and how far it is open; beside an image, the whole state


@dataclass
class View:
    """The whole table from its front left corner, as near as all fifty tasks allow."""

    azimuth: float = 140.0  # degrees around the table; 90 looks from behind the arm
    elevation: float = -35.0  # degrees; -90 looks straight down
    distance: float = 1.3  # metres from the target
    target: list[float] = field(default_factory=lambda: [0.0, 0.68, 0.08])  # what it looks at; the arm stands at 0, 0, 0

    def __post_init__(self) -> None:
        check_camera(self, "elevation")


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
        check_values(self)
        if len(listed(self.tasks)) < 2 and self.instruction == "shuffled":
            raise ValueError("instruction can be shuffled among several tasks only: add env.tasks=mt10, or a list")

    @property
    def names(self) -> list[str]:
        """The tasks, one by one."""
        return listed(self.tasks)
