"""The contract of an evaluation: its config `eval.*`, its result, and what every kind of evaluation provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.console import RenderableType

from envs.base import SPLITS, Family, Score
from envs.play import Progress
from policies.base import Policy
from trainers.evaluate.pictures import Picture

MOST_LANES = 100_000  # each lane takes memory at once
MOST_FILMED = 100  # episodes in one picture


@dataclass
class Config:
    """`eval.*`: the final evaluation, and all of `mode=eval`."""

    episodes: int = 500  # ten episodes cannot tell .60 from .98; five hundred give +-1 to 4 points
    episodes_per_task: int = 50  # for policies that learn in context: they play each of `episodes` tasks this many times in a row
    primed: int = 0  # the source of the histories plays the first ones of these, and the policy only watches
    num_envs: int = 512  # lanes played at once
    split: str = "test"  # test | val | train
    decode: list[str] = field(default_factory=lambda: ["sampled", "greedy"])  # the first is the headline
    media: int = 4  # episodes in the pictures; 0 for none
    references: bool = True  # also play random actions, doing nothing and the expert; false saves that where it is known already

    def __post_init__(self) -> None:
        if not 1 <= self.episodes <= 1_000_000:
            raise ValueError(f"episodes must be between 1 and 1000000, got {self.episodes}")
        for name in ("episodes_per_task", "num_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.primed < self.episodes_per_task:
            raise ValueError(f"primed must be at least 0 and below episodes_per_task={self.episodes_per_task}, got {self.primed}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split}")
        if sorted(self.decode) not in (["sampled"], ["greedy"], ["greedy", "sampled"]):
            raise ValueError(f"decode must be a list of sampled, greedy or both, got [{', '.join(self.decode)}]")
        if self.num_envs > MOST_LANES:
            raise ValueError(f"num_envs must be at most {MOST_LANES}, got {self.num_envs}")
        if not 0 <= self.media <= MOST_FILMED:
            raise ValueError(f"media must be between 0 and {MOST_FILMED}, got {self.media}")

    def accepts(self, family: Family, policy: type[Policy]) -> str | None:
        """A sentence if such a policy cannot be evaluated like this in this environment, else None."""
        data, episodes, period = family.config.data, self.episodes_per_task, family.task_period
        if self.primed and all(family.lanes_per_learner(source) > 1 for source in data.learners):
            return (
                f"eval.primed={self.primed} lets a learner play the first episodes of each stream, but "
                f"env.data.source={data.source} has no learner that can play a single stream; add env.data.source=explorer"
            )
        if policy.memory_scope == "history" and episodes > period and episodes % period:
            return (
                f"the goals of this environment repeat every {period} episodes, and eval.episodes_per_task={episodes} is not a "
                f"multiple of that; try eval.episodes_per_task={period}"
            )
        return None


@dataclass
class Evaluation:
    """The scores of all players on the same episodes. `record` is the content of evaluation.json."""

    record: dict[str, Any]
    pictures: list[Picture]


@dataclass(frozen=True)
class Evaluator:
    """One kind of evaluation. `evaluate/episodes.py` and `evaluate/in_context.py` define one each."""

    judged_by: tuple[str, ...]  # the scores that choose the best checkpoint, the most important first
    # (policy, family, config, episode seeds of its training or None if it was trained elsewhere, seed, device)
    evaluate: Callable[[Policy, Family, Config, np.ndarray | None, int, torch.device], Evaluation]
    # (policy, family, val episodes, seed, device, progress)
    validate: Callable[[Policy, Family, int, int, torch.device, Progress], Score]
    table: Callable[[dict[str, Any], str], RenderableType]  # (an evaluation's record, the policy's name)
