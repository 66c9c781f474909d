"""`cluster=slurm`: submits the runs of a sweep as job arrays, and returns.

submitit writes the sbatch script and sends `sweeps.job.Job` to the node. The state of the jobs is read from the runs' own status
files and from squeue (sweeps/state.py), not from submitit, which waits forever for a job that ended without reporting.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig

from conf import status
from conf.clusters import Slurm
from conf.errors import BadRequest
from sweeps import launching
from sweeps.job import Job, packed
from sweeps.pool import Run
from sweeps.snapshot import ROOT, snapshot
from sweeps.state import of_sweep
from sweeps.table import headline
from sweeps.together import grouped

FILES = "slurm"  # folder in the sweep's folder: scripts, logs of the jobs, and the code that they run
POLL = 5.0  # seconds between checks with cluster.wait=true


class SlurmSweep:
    def __init__(self, context: HydraContext, config: DictConfig):
        self.context, self.config = context, config
        cluster = launching.cluster_of(config)
        assert isinstance(cluster, Slurm)
        self.cluster = cluster
        if not all(map(shutil.which, ("sbatch", "squeue", "srun"))):
            raise BadRequest(
                "there is no SLURM on this machine (sbatch, squeue, srun); log in to your cluster, or leave out cluster=slurm"
            )

    def launch(self, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
        runs = launching.runs_of(self.config, self.context, job_overrides)
        home = runs[0].folder.parent
        with launching.alone(home):
            launching.remember(home, self.cluster, len(runs))
            states = {state.folder.name: state.status for state in of_sweep(home)}
            todo = [run for run in runs if states[run.folder.name] not in ("done", "running", "queued")]
            if len(todo) < len(runs):
                going = sum(states[run.folder.name] in ("running", "queued") for run in runs)
                print(f"{len(runs) - len(todo) - going} of {len(runs)} runs are done already, {going} are queued or running")
            if todo:
                self._submit(todo, home)
        if self.cluster.wait or not launching.placed(job_overrides):  # a search needs the results
            self._wait(home, runs)
        return [launching.returned(run) for run in runs]

    def show(self, job_overrides: Sequence[Sequence[str]]) -> None:
        """dry=true: the script, and nothing is submitted."""
        runs = launching.runs_of(self.config, self.context, job_overrides)
        home = runs[0].folder.parent
        jobs = self._jobs(runs, os.getcwd())
        words = f"{len(runs)} runs in {len(jobs)} jobs, submitted as {len([*_arrays(jobs)])} arrays"
        print(f"\n{words}. The first:\n\n{script(self.cluster, home, min(len(jobs), max_array()))}")

    def _jobs(self, runs: Sequence[Run], cwd: str, code: Path | None = None) -> list[Job]:
        cluster = self.cluster
        placed = []
        for run in grouped(runs, cluster.together):
            launch = Path(run.command[0]) if code is None else code / Path(run.command[0]).name
            others = [replace(other, folder=other.folder.absolute()) for other in run.others]
            placed.append(replace(run, folder=run.folder.absolute(), command=[str(launch), *run.command[1:]], others=others))
        return packed(placed, cluster.pack, cwd, cluster.cpus, cluster.retries, cluster.requeues)

    def _submit(self, runs: Sequence[Run], home: Path) -> None:
        code = snapshot(home.absolute() / FILES / "code") if self.cluster.snapshot else None
        jobs = self._jobs(runs, os.getcwd(), code)
        before = [status.read(run.folder) for run in runs]
        ids: list[str] = []
        try:
            for run, values in zip(runs, before, strict=True):
                kept = {key: value for key, value in values.items() if key in ("step", "steps", "loss", "success")}
                status.write(run.folder, status="pending", **kept)
            for array in _arrays(jobs):
                ids += submitted(self.cluster, home, array, code or ROOT)
            for job, name in zip(jobs, ids, strict=True):
                for run in (member for group in job.runs for member in group.members):
                    if status.read(run.folder).get("status") == "pending":  # a run that has started writes its job itself
                        status.update(run.folder, job=name)
        except BaseException as error:  # submit all jobs or none
            arrays = {one.partition("_")[0] for one in ids}
            if arrays:
                subprocess.run(["scancel", *arrays], check=False)
            for path in (home / FILES).glob("*"):  # files of a cancelled array, and of jobs that have no number yet
                if path.stem.partition("_")[0] in arrays or re.fullmatch(r"(\.submission_file_)?[0-9a-f]{32}", path.stem):
                    path.unlink()
            for run, values in zip(runs, before, strict=True):
                if status.read(run.folder).get("status") == "pending":
                    status.write(run.folder, **{"status": "pending", **values})
            if (sentence := refusal(error)) is not None:
                raise BadRequest(f"SLURM refused the jobs, so nothing was submitted: {sentence}") from error
            raise
        heads = sorted({one.partition("_")[0] for one in ids}, key=int)
        print(
            f"submitted {len(runs)} runs in {len(jobs)} jobs: {', '.join(heads)}\n"
            f"  python -m sweeps status {home}\n  python -m sweeps cancel {home}\n"
            f"the command again, or python -m sweeps resume {home}, goes on with what is not done",
            flush=True,
        )

    def _wait(self, home: Path, runs: Sequence[Run]) -> None:
        names, shown = {run.folder.name for run in runs}, ""
        while True:
            states = [state for state in of_sweep(home) if state.folder.name in names]
            if (words := headline(states)) != shown:
                print(words, flush=True)
                shown = words
            if not any(state.going for state in states):
                return
            time.sleep(POLL)


def submitted(cluster: Slurm, home: Path, jobs: Sequence[Job], code: Path) -> list[str]:
    """The ids of one array."""
    executor = _executor(cluster, home, code)
    with _outside_of_any_job(), executor.batch():
        handles = [executor.submit(job) for job in jobs]
    return [str(handle.job_id) for handle in handles]


def script(cluster: Slurm, home: Path, jobs: int) -> str:
    executor = _executor(cluster, home, ROOT)
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry"))


def parameters(cluster: Slurm) -> dict[str, Any]:
    """As submitit names them."""
    given = {
        "job_name": "iolaus",
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "dependency": cluster.dependency,
        "time": cluster.time_min,
        "nodes": cluster.nodes if cluster.nodes > 1 else None,
        "ntasks_per_node": cluster.processes if cluster.nodes * cluster.processes > 1 else None,
        "cpus_per_task": cluster.cpus * cluster.pack,
        "gpus_per_node": cluster.gpus or None,
        "mem": _times(cluster.memory, cluster.pack),
        "signal_delay_s": cluster.signal_s,
        "array_parallelism": cluster.parallel or 1_000_000,
    }
    more: dict[str, Any] = {"requeue": True, "signal": f"{cluster.signal}@{cluster.signal_s}"}
    for line in cluster.extra:
        key, _, value = line.removeprefix("--").partition("=")
        more[key] = value or True
    return {**{key: value for key, value in given.items() if value is not None}, "additional_parameters": more}


def max_array() -> int:
    """The largest size of a job array on this cluster."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 1000
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown)
    return max(1, int(found[1]) - 1) if found else 1000


def refusal(error: BaseException) -> str | None:
    """The message of sbatch, without submitit's traceback."""
    if found := re.search(r"sbatch: error: (?:Batch job submission failed: )?(.*)", str(error)):
        return found[1].strip()
    return None


def _executor(cluster: Slurm, home: Path, code: Path) -> Any:
    import submitit

    python = f"env PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}} {shlex.quote(sys.executable)}"
    executor = submitit.SlurmExecutor(folder=str(home.absolute() / FILES), python=python)
    executor.update_parameters(**parameters(cluster))
    return executor


def _arrays(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    size = max_array()
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """A job that is submitted from inside another inherits its SLURM_*, and srun refuses them."""
    from submitit.helpers import clean_env

    where = os.environ.get("SLURM_CONF")
    with clean_env():
        if where is not None:
            os.environ["SLURM_CONF"] = where
        yield


def _times(memory: str | None, runs: int) -> str | None:
    if memory is None or (found := re.fullmatch(r"(\d+)([KMGT]?)B?", memory.strip(), re.IGNORECASE)) is None:
        return memory
    return f"{int(found[1]) * runs}{found[2].upper() or 'M'}"
