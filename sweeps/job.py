"""The program of one SLURM job: a few command lines, side by side, each in its own process group.

    USR1, USR2  the time limit is near (or somebody asks): the runs save, the job requeues itself and leaves at once
    TERM        preemption or scancel, and only SLURM knows which: the runs save. A cancelled job must not come back, so it does
                not requeue itself; a job that is being preempted is requeued by SLURM, provided that it is still there when its
                grace time ends, so it waits

SLURM sends each signal to every process of the job, and we pass it on: the runs get it two or three times, which they expect.
The job fails if one of its runs does, so that `afterok` means it. Runs that are done are skipped when it begins again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from conf import status
from conf.errors import Exit
from sweeps.pool import OUTPUT, Run, record_end
from sweeps.processes import Ended, Processes, Starter, starter

TICK = 0.1
PREEMPTION = 3600.0  # seconds to wait for SLURM to end a preempted job; longer than any grace time
ASKED = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Job:
    """`Job(...)()` is what submitit calls on the node."""

    runs: list[Run]  # with absolute folders
    cwd: str
    threads: int
    retries: int = 0
    requeues: int = 100
    stop: int | None = field(default=None, init=False)

    def __call__(self) -> None:
        for number in (*ASKED, signal.SIGTERM):
            signal.signal(number, self._signalled)  # instead of submitit's
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        again, failed = self._compute()
        if again and self.stop in ASKED:
            self._requeue()
        if again and self.stop == signal.SIGTERM and _is_preempted():
            print("this job is being preempted; waiting for SLURM to requeue it", flush=True)
            time.sleep(PREEMPTION)
        sys.exit(Exit.FAILED if failed else Exit.PREEMPTED if again else Exit.DONE)

    def _signalled(self, number: int, frame: object) -> None:
        if self.stop is None or number == signal.SIGTERM:
            self.stop = number

    def _compute(self) -> tuple[bool, bool]:
        """Whether there is something left to do, and whether a run failed."""
        todo = [run for run in self.runs if any(_said(member) != "done" for member in run.members)]
        tries = dict.fromkeys(range(len(todo)), 0)
        starter = self._starter([run.command for run in todo])
        live: set[int] = set()
        ranks = of_task()
        told = again = failed = False
        waiting = list(tries)
        while waiting or live:
            while waiting and self.stop is None:
                number = waiting.pop(0)
                run = todo[number]
                tries[number] += 1
                live.add(number)
                starter.start(number, run.command, run.folder / OUTPUT, self.cwd, ranks)
            if self.stop is not None:
                again = again or bool(waiting)
                waiting = []
                if not told:
                    for number in live:
                        starter.kill(number, signal.SIGTERM)  # to the runs all signals mean: save and exit
                told = True
            for event in starter.events(TICK):
                if not isinstance(event, Ended):
                    continue
                live.remove(event.number)
                run = todo[event.number]
                if ranks.get("RANK", "0") != "0":  # the first process of the run says what became of it
                    again, failed = again or event.code == Exit.PREEMPTED, failed or event.code not in (Exit.DONE, Exit.PREEMPTED)
                    continue
                asked = self.stop is not None and (event.code < 0 or _said(run) in ("preempted", "interrupted"))
                ill = record_end(run, event.code, asked or event.code == Exit.PREEMPTED)
                again = again or any(_said(member) in ("preempted", "interrupted") for member in run.members)
                if ill and tries[event.number] <= self.retries and self.stop is None:
                    waiting.append(event.number)
                else:
                    failed = failed or bool(ill)
        starter.close()
        return again, failed

    def _starter(self, commands: Sequence[Sequence[str]]) -> Starter:
        for name in ("OMP", "MKL", "OPENBLAS"):
            os.environ[f"{name}_NUM_THREADS"] = str(self.threads)
        return starter(commands) if len(commands) > 1 else Processes()  # one run imports PyTorch once anyway

    def _requeue(self) -> None:
        if os.environ.get("SLURM_PROCID", "0") != "0":  # once a job
            return
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) >= self.requeues:
            print(f"not requeued: it has been {self.requeues} times (cluster.requeues)", flush=True)
            return
        done = subprocess.run(["scontrol", "requeue", str(status.job_id())], capture_output=True, text=True)
        if done.returncode:
            print(f"not requeued: {done.stderr.strip()}", flush=True)


def _is_preempted() -> bool:
    """Whether SLURM will requeue this job; a cancelled job has no PreemptTime."""
    done = subprocess.run(["scontrol", "show", "job", str(status.job_id())], capture_output=True, text=True)
    times = [word.partition("=")[2] for word in done.stdout.split() if word.startswith("PreemptTime=")]
    return any(time not in ("None", "Unknown", "") for time in times)


def of_task() -> dict[str, str]:
    """The environment by which the processes of a run that has several tasks find each other, as torchrun sets it."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks == "1":
        return {}
    names = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    first = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()[0]
    shown = subprocess.run(["scontrol", "show", "node", first, "-o"], capture_output=True, text=True).stdout
    address = re.search(r"NodeAddr=(\S+)", shown)
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "MASTER_ADDR": address[1] if address else first,
        "MASTER_PORT": str(20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000),
    }


def _said(run: Run) -> str | None:
    return status.read(run.folder).get("status")


def packed(runs: Sequence[Run], size: int, cwd: str, threads: int, retries: int, requeues: int) -> list[Job]:
    return [Job(list(runs[i : i + size]), cwd, threads, retries, requeues) for i in range(0, len(runs), size)]
