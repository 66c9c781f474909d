"""Handle what a killed search leaves: a lock that its runs still hold, runs that still save, trials whose end it missed."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from conf import status
from conf.errors import BadRequest
from sweeps.state import AGAIN, of_run, slurm_states

PATIENCE = 20  # seconds to wait for the lock


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Let one process at a time run a search: two would queue each other's trials again.

    Runs of a killed search were forked from it and hold its lock until they have saved.
    """
    with open(home / ".search.lock", "w") as lock:
        for left in reversed(range(PATIENCE)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise BadRequest(f"another process is searching in {home}; wait for it, or stop it") from None
                time.sleep(1)
        yield


def wait_for_leftovers(folders: Sequence[Path]) -> list[Path]:
    """The folders that processes of a killed search still hold. These processes save and end by themselves."""

    def held() -> list[Path]:
        states = [of_run(folder) for folder in folders]
        return [state.folder for state in states if state.status == "running" and not state.values.get("job")]

    if first := held():
        print(f"waiting for {len(first)} runs that a stopped search left behind", flush=True)
    while held():
        time.sleep(0.5)
    return first


def status_of(folder: Path) -> str:
    values = status.read(folder)
    job = str(values.get("job") or "")
    asked = job not in ("", status.job_id()) and values.get("status") in ("running", *AGAIN)  # our own job is not the run's
    said = of_run(folder, values, slurm_states([job]) if asked else {}).status
    if said == "done":
        with suppress(OSError, ValueError):
            if json.loads((folder / "summary.json").read_text()).get("status") == "pruned":
                return "pruned"
    return said
