"""Shared by all launchers: turns the overrides of a sweep's runs into folders and command lines."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from conf import clusters, multirun
from conf.errors import BadRequest, Exit, RunFailed
from conf.folder import config_flags, quoted
from sweeps.pool import Run
from sweeps.state import State, locked, of_run

RECORD = "sweep.json"
# Overrides that decide where runs are computed and which runs there are. They are not part of a single run's command line.
NOT_OF_A_RUN = (
    "cluster",
    "dry",
    "skip_invalid",
    "resume",
    "hydra.mode",
    "hydra.sweep",
    "hydra.launcher",
    "hydra.sweeper",
    "hydra.run",
)


def runs_of(config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]]) -> list[Run]:
    """One run for each list of overrides, checked, with its folder made. Our own sweeper has already checked its runs."""
    lists = [list(overrides) for overrides in job_overrides]
    runs = []
    for overrides in lists if placed(lists) else multirun.checked(config, lists, context.config_loader):
        values = {one.key_or_group: one.value() for one in OverridesParser.create().parse_overrides(overrides[-2:])}
        folder = Path(str(values["hydra.sweep.dir"]), str(values["hydra.sweep.subdir"]))
        runs.append(Run(folder, command_of(config, overrides, folder)))
    return runs


def placed(job_overrides: Sequence[Sequence[str]]) -> bool:
    """Whether the overrides come from our own grid, which adds the folders."""
    return all(any(word.startswith("hydra.sweep.subdir=") for word in overrides) for overrides in job_overrides)


def command_of(config: DictConfig, overrides: Sequence[str], folder: Path) -> list[str]:
    """The command of this run alone: `python launch.py ...`. Pasted again, it continues where the run stopped."""
    words = [*overrides, *config.hydra.overrides.hydra]
    kept = [word for word in words if not is_machinery(word)]
    own = ["hydra.mode=RUN", f"hydra.run.dir={quoted(folder)}", "resume=true"]
    return [os.path.abspath(sys.argv[0]), *config_flags(), *kept, *own]


def cluster_of(config: DictConfig) -> clusters.Local | clusters.Slurm:
    values: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    values.pop("_target_")
    return clusters.typed(values, "cluster" if config.get("cluster", {}).get("name") == values["name"] else "hydra.launcher")


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Let one launcher at a time use a sweep: two would start the same runs."""
    with open(home / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadRequest(
                f"the sweep in {home} is being launched by another process; wait for it, or stop it (python -m sweeps status)"
            ) from None
        lock.truncate(0)
        lock.write(f"{socket.gethostname()} {os.getpid()}")
        lock.flush()
        yield


def launcher_of(home: Path) -> int | None:
    """The id of the process on this machine that is launching the sweep."""
    if not locked(home):
        return None
    host, _, pid = (home / ".lock").read_text().partition(" ")
    return int(pid) if host == socket.gethostname() and pid.isdigit() else None


def remember(home: Path, cluster: clusters.Local | clusters.Slurm, total: int) -> None:
    """Add this command to sweep.json, unless it is there already, so that the sweep can be resumed."""
    path = home / RECORD
    commands = recorded(home)
    words = [os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    commands = [one for one in commands if one["argv"] != words or one["cwd"] != os.getcwd()]
    commands.append({"argv": words, "cwd": os.getcwd(), "runs": total, "time": time.time(), "cluster": asdict(cluster)})
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps({"commands": commands}, indent=1) + "\n")
    os.replace(temporary, path)


def recorded(home: Path) -> list[dict[str, Any]]:
    """The commands that launched this sweep, the newest last."""
    try:
        return list(json.loads((home / RECORD).read_text())["commands"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"{home / RECORD} is damaged; launch the sweep with its own command instead") from error


def own_command() -> str:
    return shlex.join(["python", *sys.argv])


def returned(run: Run) -> JobReturn:
    """The run's result, for the sweeper. Its folder is `working_dir`; summary.json there holds its scores."""
    result, state = JobReturn(), of_run(run.folder)
    result.overrides, result.working_dir = run.command[1:], str(run.folder)
    result.status = JobStatus.COMPLETED if state.status in ("done", "queued", "running") else JobStatus.FAILED
    result.return_value = None if result.status == JobStatus.COMPLETED else RunFailed(f"{state.label}: {state.reason}")
    return result


def worst(states: Sequence[State]) -> int:
    """The exit code of a sweep: the highest of its runs'. A run that has not started and is not queued was stopped."""
    codes = {"done": Exit.DONE, "running": Exit.DONE, "queued": Exit.DONE, "preempted": Exit.PREEMPTED, "diverged": Exit.DIVERGED}
    found: list[int] = []
    for state in states:
        said = state.values.get("exit_code")
        if state.status == "pending":
            found.append(Exit.DONE if state.values.get("job") else Exit.PREEMPTED)
        elif state.status == "failed" and isinstance(said, int) and said > 0:
            found.append(said)
        else:
            found.append(codes.get(state.status, Exit.FAILED))
    return int(max(found, default=Exit.DONE))


def is_machinery(word: str) -> bool:
    """Whether the override belongs to the sweep and not to a single run."""
    key = word.lstrip("+~").partition("=")[0].replace("/", ".")
    return any(key == name or key.startswith(name + ".") for name in NOT_OF_A_RUN)
