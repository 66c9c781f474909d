"""`cluster.*`: where the runs of a sweep are computed, and how many at a time. One dataclass per file of conf/cluster.

Hydra imports it at every start, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf

from conf.build import build
from conf.errors import BadRequest

SIGNALS = ("USR1", "USR2")


@dataclass
class Local:
    """`cluster=local`: a pool of processes on this machine."""

    name: str = "local"
    jobs: int = 0  # runs at a time; 0: one per GPU, or per core if there is no GPU
    together: int = 1  # runs that one process trains at once, as one stack of weights: for seeds and values that change no shape
    threads: int = 0  # CPU threads of each run; 0: the cores divided by the runs at a time
    gpus: int = -1  # GPUs to use, each for one run at a time; -1: all, unless device=cpu
    timeout_min: float = 0  # a run that takes longer is stopped and counts as failed; 0: no limit
    retries: int = 0  # times that a failed run is tried again
    fail_fast: bool = False  # stop the sweep when a run fails

    def __post_init__(self) -> None:
        if self.gpus < -1:
            raise ValueError(f"gpus must be at least 0, or -1 for all, got {self.gpus}")
        _refuse_below_one(self, "together")
        _refuse_negative(self, "jobs", "threads", "timeout_min", "retries")


@dataclass
class Slurm:
    """`cluster=slurm`: job arrays. null means the cluster's own default."""

    name: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    cpus: int = 1  # of each run
    memory: str | None = None  # of each run, as in 4G
    nodes: int = 1  # of each run; on more than one, or alone with several GPUs, a run is trained by a process for each GPU
    gpus: int = 0  # of each job (on each of its nodes); its runs share them
    time_min: int = 60  # limit of each job; a longer run is requeued and resumes
    together: int = 1  # runs that one process trains at once, as one stack of weights: for seeds and values that change no shape
    pack: int = 1  # runs (with `together`: groups of them) that share one job, side by side
    parallel: int = 0  # jobs at a time; 0: as many as the cluster gives
    signal: str = "USR2"  # sent by SLURM before the limit (others may send it too): save and requeue
    signal_s: int = 90  # seconds before the limit at which it is sent: enough to finish a step and save
    requeues: int = 100  # times that a job may be requeued
    dependency: str | None = None  # as sbatch takes it: afterok:123
    extra: list[str] = field(default_factory=list)  # further lines for sbatch, as in [--mail-type=END]
    snapshot: bool = True  # run a copy of the code, so that edits do not reach queued jobs
    wait: bool = False  # do not return before every run has ended
    retries: int = 0  # times that a failed run is tried again, in its job

    def __post_init__(self) -> None:
        _refuse_below_one(self, "cpus", "time_min", "pack", "together", "nodes")
        if self.nodes > 1 and (self.pack > 1 or self.together > 1):
            raise ValueError("nodes above 1 is for runs that have a job to themselves; leave out pack and together")
        _refuse_negative(self, "gpus", "parallel", "requeues", "retries")
        if self.signal not in SIGNALS:
            raise ValueError(f"signal must be one of {', '.join(SIGNALS)}, got {self.signal}")
        if not 10 <= self.signal_s < 60 * self.time_min:
            raise ValueError(
                f"signal_s must leave time to save a checkpoint (10 s or more) and to train before it, got {self.signal_s} "
                f"with time_min={self.time_min}"
            )
        if wrong := [line for line in self.extra if not line.startswith("--")]:
            raise ValueError(f"extra holds options of sbatch, which begin with --, got {wrong[0]}")

    @property
    def processes(self) -> int:
        """That train one run, on each node."""
        alone = self.pack == self.together == 1
        return max(1, self.gpus) if alone else 1


CLUSTERS: dict[str, type[Local] | type[Slurm]] = {"local": Local, "slurm": Slurm}


def typed(values: Mapping[str, Any], path: str = "cluster") -> Local | Slurm:
    """The dataclass that `values` name; BadRequest if one of them is wrong."""
    name = values.get("name")
    if name not in CLUSTERS:
        raise BadRequest(f"{path}.name must be one of {', '.join(CLUSTERS)}, got {name}")
    return build(CLUSTERS[str(name)], values, path)


def processes(launcher: Any) -> int:
    """How many train one run, by the values of `hydra.launcher`."""
    if launcher.get("name") != "slurm":
        return 1
    cluster = typed({key: value for key, value in launcher.items() if key != "_target_"})
    assert isinstance(cluster, Slurm)
    return cluster.nodes * cluster.processes


def launcher(name: str) -> dict[str, str]:
    """The values of `hydra.launcher`: those of `cluster`, or the defaults if `hydra/launcher=` was typed alone."""
    return {one.name: f"${{of_cluster:{name},{one.name}}}" for one in fields(CLUSTERS[name])}


def _of_cluster(name: str, key: str, *, _root_: Any) -> Any:
    chosen = _root_.get("cluster") or {}
    return chosen[key] if chosen.get("name") == name and key in chosen else getattr(CLUSTERS[name](), key)


OmegaConf.register_new_resolver("of_cluster", _of_cluster, replace=True)


def _refuse_below_one(config: Local | Slurm, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


def _refuse_negative(config: Local | Slurm, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(config, name)}")
