"""`cluster=local`: the runs of a sweep in a pool on this machine."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig

from conf.clusters import Local
from conf.errors import BadRequest
from sweeps import launching
from sweeps.pool import Pool
from sweeps.processes import Processes, Starter, starter
from sweeps.state import FAILED, State, of_sweep
from sweeps.together import grouped


class LocalSweep:
    def __init__(self, context: HydraContext, config: DictConfig):
        self.context, self.config = context, config
        cluster = launching.cluster_of(config)
        assert isinstance(cluster, Local)
        self.cluster = replace(cluster, threads=cluster.threads or int(os.environ.get("OMP_NUM_THREADS", 0)))
        # The launcher computes nothing, and with a second thread it could not fork safely.
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    def launch(self, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
        runs = launching.runs_of(self.config, self.context, job_overrides)
        home = runs[0].folder.parent
        # Forked before the lock is taken, or the server would hold the lock too.
        fresh = [run.command for run in runs if run.state.status != "done"]
        processes = starter(fresh) if fresh else Processes()
        with launching.alone(home):
            launching.remember(home, self.cluster, len(runs))
            states = {state.folder.name: state for state in of_sweep(home)}
            elsewhere = [run for run in runs if _is_elsewhere(states[run.folder.name])]
            todo = [run for run in runs if states[run.folder.name].status != "done" and run not in elsewhere]
            if len(todo) < len(runs):
                others = f", {len(elsewhere)} are queued or running in SLURM or on another machine" if elsewhere else ""
                print(f"{len(runs) - len(todo) - len(elsewhere)} of {len(runs)} runs are done already{others}", flush=True)
            if todo:
                self._run(todo, home, processes)
        return [launching.returned(run) for run in runs]

    def show(self, job_overrides: Sequence[Sequence[str]]) -> None:
        """dry=true: nothing is started."""
        first = grouped(launching.runs_of(self.config, self.context, job_overrides), self.cluster.together)[0]
        print(f"\nThe first as a command of its own:\n  {shlex.join([sys.executable, *first.command])}")

    def _run(self, todo: list[launching.Run], home: Path, processes: Starter) -> None:
        groups = grouped(todo, self.cluster.together)
        pool = Pool(self.cluster, groups, processes, os.getcwd(), self._gpus())
        at_once = f"{pool.jobs} at a time, " if len(groups) > 1 else ""
        kind = f"{len(todo)} runs" + (f" in {len(groups)} groups" if len(groups) < len(todo) else "")
        words = f"{kind}, {at_once}{pool.threads} thread{'s' * (pool.threads > 1)} each; python -m sweeps status {home}"
        print(words, flush=True)
        finished = pool()
        if not finished:
            ended = [run.state.status for run in todo]
            failed = sum(status in FAILED for status in ended)
            why = "stopped at the first failure (cluster.fail_fast)" if failed and self.cluster.fail_fast else "stopped"
            print(
                f"{why}; {ended.count('done')} of {len(todo)} runs are done. To go on:\n  {launching.own_command()}", flush=True
            )

    def _gpus(self) -> list[str]:
        """The GPUs to use, as CUDA_VISIBLE_DEVICES names them."""
        if self.cluster.gpus == 0 or self.config.device == "cpu":
            return []
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        if self.cluster.gpus > len(names):
            raise BadRequest(f"cluster.gpus={self.cluster.gpus}, but this machine has {len(names)}")
        return names[: self.cluster.gpus] if self.cluster.gpus > 0 else names


def _is_elsewhere(state: State) -> bool:
    """Whether somebody else computes the run, or will. One that is still going on here is waited for, by its lock."""
    here = state.values.get("host") == socket.gethostname() and not state.values.get("job")
    return state.going and not here
