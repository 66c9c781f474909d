"""`env.data.*`: what is recorded."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any, ClassVar

MINARI_ID = re.compile(r"([\w-]+/)*[\w.-]+-v\d+")
EPISODES_PER_DATA_SEED = 1_000_000  # train episodes of `env.data.seed=s` start at s times this


@dataclass
class DataConfig:
    """Everything that decides which episodes are recorded, and so the dataset's address.

    `expert` records single episodes. Learners improve from episode to episode of one task, so whole histories are recorded: as
    many as fit into `episodes`, at least one, which may be shorter. Imported data were recorded elsewhere.
    """

    EXPERTS: ClassVar[tuple[str, ...]] = ("expert",)  # record single episodes; families that have more add them
    SOURCES: ClassVar[tuple[str, ...]] = ("annealed_expert",)  # learners; families that have more add them
    NOISE_KINDS: ClassVar[tuple[str, ...]] = ("uniform", "none")  # families whose actions are numbers add to them

    # Where the episodes come from: the expert, a learner, several learners with equal shares (explorer+ppo+ppo: one third and
    # two thirds), or a Minari dataset, given by its id (cartpole/expert-v0).
    source: str = "expert"
    episodes: int = 6000  # training episodes
    val_episodes: int = 200  # episodes for the validation loss
    episodes_per_history: int = 40  # episodes of one task for each learner; the expert has no histories
    noise: float = 0.0  # amount of noise on the executed actions; the expert's action stays the label; see noise_kind
    noise_kind: str = "uniform"  # uniform: a share of random actions; for continuous actions also dart, burst, or several with +
    detours: int = 0  # walk to up to this many random places before following the expert; its action is always the label
    keep_failures: bool = True  # false leaves out the episodes in which the expert failed, so that these are not imitated
    seed: int = 0  # another seed, other training layouts and other tie-breaks
    export_to: str = ""  # mode=export: the id of the Minari dataset that is written, such as minigrid/doorkey-v0

    def __post_init__(self) -> None:
        known = (*self.EXPERTS, *self.SOURCES, "the id of a Minari dataset")
        if not set(self.learners) <= set(self.SOURCES):
            several = f", or several of {', '.join(self.SOURCES)} joined by +" if len(self.SOURCES) > 1 else ""
            raise ValueError(f"data.source must be one of {', '.join(known)}{several}, got {self.source}")
        if len(self.learners) > 1 and len(set(self.learners)) == 1:
            raise ValueError(f"data.source={self.source} is {self.learners[0]} alone; write that, or join two different sources")
        for name in ("episodes", "val_episodes", "episodes_per_history"):
            if not 1 <= getattr(self, name) <= EPISODES_PER_DATA_SEED:
                raise ValueError(f"data.{name} must be between 1 and {EPISODES_PER_DATA_SEED}, got {getattr(self, name)}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"data.noise must be at least 0 and below 1, got {self.noise}")
        if unknown := set(self.noise_kind.split("+")) - set(self.NOISE_KINDS):
            raise ValueError(
                f"data.noise_kind must be one of {', '.join(self.NOISE_KINDS)}, or several joined by +; got {min(unknown)}"
            )
        if (self.noise or self.detours) and self.learners:
            raise ValueError(f"data.source={self.source} explores by itself; data.noise and data.detours are for the expert")
        if (self.noise or self.detours) and self.imported:
            raise ValueError(f"data.source={self.source} is recorded already; data.noise and data.detours are for the expert")
        if not self.keep_failures and not self.source_is_expert:
            raise ValueError(f"data.keep_failures=false is for episodes of the expert, and data.source={self.source} has none")
        if not 0 <= self.detours <= 100:
            raise ValueError(f"data.detours must be between 0 and 100, got {self.detours}")
        if self.export_to and not MINARI_ID.fullmatch(self.export_to):
            raise ValueError(f"data.export_to is a Minari id, such as minigrid/doorkey-v0, got {self.export_to}")
        if not 0 <= self.seed < 1000:
            raise ValueError(f"data.seed must be between 0 and 999, got {self.seed}")

    @property
    def imported(self) -> bool:
        """Whether the episodes were recorded elsewhere."""
        return bool(MINARI_ID.fullmatch(self.source))

    def missing(self) -> str | None:
        """A sentence if the imported dataset, or the package that reads and writes such datasets, is not here; else None."""
        if not (self.imported or self.export_to):
            return None
        if not all(importlib.util.find_spec(name) for name in ("minari", "h5py")):
            return "Minari datasets need Minari: pip install 'iolaus[minari]' (in a checkout: pip install -e '.[minari]')"
        if not self.imported:
            return None
        import minari

        here = sorted(minari.list_local_datasets())
        if self.source in here:
            return None
        return (
            f"env.data.source={self.source} is no Minari dataset on this machine, which has {', '.join(here) or 'none'}: run "
            f"`minari download {self.source}`, or set MINARI_DATASETS_PATH to the folder that holds it"
        )

    @property
    def learners(self) -> list[str]:
        """The learners that record histories; empty where single episodes are recorded."""
        return [] if self.source_is_expert or self.imported else self.source.split("+")

    @property
    def source_is_expert(self) -> bool:
        return self.source in self.EXPERTS

    @property
    def needs_expert(self) -> bool:
        """Whether the episodes cannot be recorded without the family's expert."""
        return self.source_is_expert or "annealed_expert" in self.learners

    def histories(self, episodes: int) -> tuple[int, int]:
        """The number of histories that `episodes` episodes make, and the episodes in each. Each learner gets at least one."""
        length = max(1, min(self.episodes_per_history, episodes // max(1, len(self.learners))))
        return episodes // length, length

    def recipe(self) -> dict[str, Any]:
        """The values that decide how an episode looks. The number of episodes is in the seeds."""
        noise = {"noise_kind": self.noise_kind} if self.noise else {}
        failures = {} if self.keep_failures else {"keep_failures": False}
        return {"source": self.source, "noise": self.noise, **noise, "detours": self.detours, **failures, "seed": self.seed}
