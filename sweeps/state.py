"""The state of every run of a sweep, derived from the status files that the runs and their launchers write.

A run that died without a word still says `running`. On this machine its lock tells, in a SLURM job squeue, then sacct (often
there is no accounting), and otherwise the age of its last heartbeat.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import status
from conf.errors import BadRequest
from conf.status import BEAT

SILENT = 12 * BEAT  # seconds without a heartbeat after which a run on another machine counts as dead
AGAIN = ("pending", "preempted", "interrupted")  # ended or not begun, through no fault of its own
FAILED = ("failed", "diverged", "died", status.DAMAGED)
# Of SLURM's job states, those in which the job will not go on by itself.
OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "REVOKED")
BROKEN = ("BOOT_FAIL", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


@dataclass
class State:
    folder: Path
    status: str  # as in status.json, or `queued` (in SLURM's queue), or `died` (ended without reporting)
    values: dict[str, Any]  # of status.json

    @property
    def label(self) -> str:
        return re.sub(r"-[0-9a-f]{6}(-\d+)?$", "", self.folder.name)

    @property
    def reason(self) -> str:
        return str(self.values.get("reason") or ("its process ended without a word" if self.status == "died" else ""))

    @property
    def going(self) -> bool:
        return self.status in ("running", "queued")


def of_sweep(home: Path) -> list[State]:
    """The states of all runs below `home`, by name."""
    folders = sorted(Path(entry.path) for entry in os.scandir(home) if entry.is_dir() and _is_run(Path(entry.path)))
    found = {folder: status.read(folder) for folder in folders}
    jobs = {str(values["job"]) for values in found.values() if values.get("job") and values.get("status") in ("running", *AGAIN)}
    queue = slurm_states(jobs) if jobs else {}
    return [of_run(folder, values, queue) for folder, values in found.items()]


def of_run(folder: Path, values: dict[str, Any] | None = None, queue: Mapping[str, str] | None = None) -> State:
    """`queue` holds SLURM's states of the jobs that could be asked for."""
    values = status.read(folder) if values is None else values
    said, job = values.get("status", "pending"), str(values.get("job") or "")
    in_slurm = (queue or {}).get(job)
    if said == "running" and not _alive(folder, values, in_slurm):
        return State(folder, "died", values)
    if said in AGAIN and in_slurm and in_slurm not in OVER:
        return State(folder, "queued", values)
    if said == "pending" and in_slurm in BROKEN:
        reason = f"SLURM job {job} ended as {in_slurm} before the run began; its log is in {folder.parent / 'slurm'}"
        return State(folder, "died", {**values, "reason": reason})
    return State(folder, said, values)


def newest_sweep(runs: Path = Path("runs")) -> Path:
    """The sweep that was launched last."""
    found = [*runs.glob("*/sweep.json"), *runs.glob("*/*/sweep.json")]
    if not found:
        raise BadRequest(f"there is no sweep below {runs.resolve()}; give the folder of one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def slurm_states(jobs: Iterable[str]) -> dict[str, str]:
    """The state of each job that SLURM still knows, from squeue, and from sacct for the rest."""
    wanted = set(jobs)
    heads = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    states: dict[str, str] = {}
    # -r lists the waiting elements of an array one by one; jobs that ended minutes ago are listed too.
    for command in (
        ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", heads],
        ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", heads],
    ):
        if wanted <= states.keys():
            break
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        for line in done.stdout.splitlines():
            job, _, state = line.strip().partition("|")
            if job in wanted and state:
                states.setdefault(job, state.split()[0])  # "CANCELLED by 1000"
    return states


def _alive(folder: Path, values: Mapping[str, Any], in_slurm: str | None) -> bool:
    if values.get("host") == socket.gethostname():
        return locked(folder)
    if in_slurm is not None:
        return in_slurm not in OVER
    return time.time() - values.get("heartbeat", 0) < SILENT


def locked(folder: Path) -> bool:
    """Whether a process holds the run's lock. The lock is released when its process ends, even by a kill."""
    try:
        with open(folder / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held
        return True
    return False


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").exists()
