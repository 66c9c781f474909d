"""status.json: what a run reports while it goes on, and what its launcher reports before and after.

    status      pending | running | preempted | failed | done (diverged and interrupted are shown as they are written)
    heartbeat   when the process last wrote it, in seconds since 1970      step, steps, loss, success   how far it is
    pid, host   the process                                                exit_code, reason, log_end   how it ended
    job         the SLURM job it belongs to

One process writes it at a time: the run while it holds the folder's lock, its launcher before and after.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FILE = "status.json"
BEAT = 10.0  # seconds between two heartbeats
SOONEST = 1.0  # seconds between two reports of progress
DAMAGED = "damaged"


def read(folder: Path) -> dict[str, Any]:
    """The file's values; {} if there is none, and the status `damaged` if it cannot be read."""
    try:
        found = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return {"status": DAMAGED}
    return found if isinstance(found, dict) and isinstance(found.get("status"), str) else {"status": DAMAGED}


def write(folder: Path, **values: Any) -> None:
    """Replace the file in one step: a reader sees the old file or the new one."""
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, folder / FILE)


def update(folder: Path, **values: Any) -> None:
    write(folder, **{**read(folder), **values})


class Heartbeat:
    """Writes the file for the run of this process: at once when the status changes, else as progress is noted."""

    current: Heartbeat | None = None  # a process has one run at a time

    def __init__(self, folder: Path):
        self.folder = folder
        self.values: dict[str, Any] = {
            "status": "running",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "began": time.time(),
        }
        if job := job_id():
            self.values["job"] = job
        self.lock, self.ended, self.noted = threading.Lock(), threading.Event(), threading.Event()

    def become(self, status: str, **values: Any) -> None:
        with self.lock:
            self.values |= {"status": status, **values}
            write(self.folder, **self.values, heartbeat=time.time())

    def __enter__(self) -> Heartbeat:
        self.become("running")
        Heartbeat.current = self
        self.thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        Heartbeat.current = None
        self.ended.set()
        self.noted.set()
        self.thread.join()

    def _beat(self) -> None:
        while not self.ended.wait(SOONEST):
            self.noted.wait(BEAT)
            self.noted.clear()
            if self.ended.is_set():
                return
            try:
                with self.lock:
                    write(self.folder, **self.values, heartbeat=time.time())
            except OSError:  # a full disc: the run reports it when it saves
                pass


def note(**values: Any) -> None:
    """Progress of the run in this process, if there is one: `step`, `steps`, `loss`, `success`."""
    if (beat := Heartbeat.current) is not None:
        with beat.lock:
            beat.values |= values
        beat.noted.set()


def job_id() -> str | None:
    """The SLURM job of this process, as squeue names it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")
