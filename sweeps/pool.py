"""Run processes on this machine, a few at a time, and divide threads and GPUs among them.

A run that crashes, hangs, or is killed fails alone, and its status.json says why. Ctrl-C asks all of them to save and stop.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from conf import status
from conf.clusters import Local
from conf.errors import Exit
from sweeps.processes import Ended, Pid, Processes, ServerDied, Starter
from sweeps.state import FAILED, State, locked, of_run
from sweeps.table import Board, duration

OUTPUT = "output.txt"  # in the run's folder: everything that it prints
PATIENCE = 60.0  # seconds that a run has to save and stop before it is killed
TICK = 0.1  # seconds between checks of clocks and signals
LOG_END = 20  # last lines of a failed run's output that status.json keeps


@dataclass
class Run:
    folder: Path
    command: list[str]  # launch.py and its overrides
    others: list[Run] = field(default_factory=list)  # runs that its process trains together with it (cluster.together)
    tries: int = 0
    code: int | None = None  # as of a process: below 0 the signal that killed it
    failure: str | None = None  # the reason, if the launcher knows it better than the run

    @property
    def state(self) -> State:
        return of_run(self.folder)

    @property
    def members(self) -> list[Run]:
        return [self, *self.others]


@dataclass
class Live:
    run: Run
    slot: int
    began: float
    pid: int | None = None
    stopping: float | None = None  # the time when the run was asked to stop
    why: str | None = None  # the reason, if being stopped is a failure


@dataclass
class Pool:
    config: Local
    runs: Sequence[Run]
    starter: Starter
    cwd: str
    gpus: Sequence[str] = ()
    live: dict[int, Live] = field(default_factory=dict)
    stops: int = 0  # Ctrl-C and SIGTERM received
    seconds: list[float] = field(default_factory=list)  # that finished runs took

    def __post_init__(self) -> None:
        cores = len(os.sched_getaffinity(0))
        self.jobs = max(1, min(self.config.jobs or len(self.gpus) or cores, len(self.runs)))
        self.threads = self.config.threads or max(1, cores // self.jobs)
        self.queue = list(range(len(self.runs)))
        self.members = [member for run in self.runs for member in run.members]

    def __call__(self) -> bool:
        """Run all of them. Returns whether it finished, rather than being stopped."""
        for run in self.members:
            if run.state.status not in ("running", "preempted", "interrupted"):
                status.update(run.folder, status="pending")
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        before = {number: signal.signal(number, self._signalled) for number in handled}
        try:
            with Board(self.look) as self.board:
                while (self.queue and not self.stops) or self.live:
                    self._start()
                    self._receive()
                    self._watch()
                    self.board.refresh()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.starter.close()
        return not self.stops

    def look(self) -> tuple[list[State], float | None]:
        left = len(self.queue) + len(self.live)
        mean = sum(self.seconds) / len(self.seconds) if self.seconds else None
        return [run.state for run in self.members], mean and mean * left / self.jobs

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1 if not self.stops or number == signal.SIGINT else 0

    def _start(self) -> None:
        while self.queue and len(self.live) < self.jobs and not self.stops:
            # A run whose launcher was killed may still be saving, and a run may have been started by hand.
            if (number := next((number for number in self.queue if not self._held(number)), None)) is None:
                return
            self.queue.remove(number)
            if all(member.state.status == "done" for member in self.runs[number].members):
                self.runs[number].code = Exit.DONE
                continue
            slot = min(set(range(self.jobs)) - {live.slot for live in self.live.values()})
            run = self.runs[number]
            run.tries += 1
            environment = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS")}
            if self.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
            self.live[number] = Live(run, slot, time.monotonic())
            self.starter.start(number, run.command, run.folder / OUTPUT, self.cwd, environment)

    def _held(self, number: int) -> bool:
        return any(locked(member.folder) for member in self.runs[number].members)

    def _receive(self) -> None:
        try:
            for event in self.starter.events(TICK):
                if isinstance(event, Pid):
                    self.live[event.number].pid = event.pid
                elif isinstance(event, Ended):
                    self._ended(self.live.pop(event.number), event.number, event.code)
        except ServerDied as error:  # the kernel has asked its runs to stop; they continue as separate Python processes
            self.board.say(str(error))
            again = sorted(self.live)
            _wait_for([live.pid for live in self.live.values() if live.pid])
            self.live.clear()
            self.queue = again + self.queue
            self.starter = Processes()

    def _watch(self) -> None:
        now = time.monotonic()
        for number, live in self.live.items():
            limit = 60 * self.config.timeout_min
            if self.stops and live.stopping is None:
                self._stop(number, live)
            elif limit and live.stopping is None and now - live.began > limit:
                self._stop(number, live, f"it took longer than cluster.timeout_min={self.config.timeout_min:g}")
            elif live.stopping is not None and (now - live.stopping > PATIENCE or self.stops > 1):
                self.starter.kill(number, signal.SIGKILL)

    def _stop(self, number: int, live: Live, why: str | None = None) -> None:
        live.stopping, live.why = time.monotonic(), why
        self.starter.kill(number, signal.SIGTERM)

    def _ended(self, live: Live, number: int, code: int) -> None:
        run, took = live.run, time.monotonic() - live.began
        run.code = code
        # Stopped from outside, and not for a fault of its own:
        stopped = code == Exit.PREEMPTED or bool(self.stops and not live.why)
        failed = record_end(run, code, stopped, live.why)
        if not failed and not stopped:
            self.seconds.append(took)
        if failed and run.tries <= self.config.retries and not self.stops:
            self.board.say(f"{failed[0].state.label} failed and is tried again: {failed[0].state.reason}")
            self.queue.append(number)
            return
        if failed and self.config.fail_fast:
            self.stops = max(self.stops, 1)  # 2 would kill the runs that are saving
        for member in run.members:
            self._report(member, run.folder / OUTPUT, took)

    def _report(self, run: Run, output: Path, took: float) -> None:
        finished = [one for number, one in enumerate(self.runs) if one.code is not None and number not in self.queue]
        state, ended = run.state, sum(len(one.members) for one in finished)
        words = f"{ended} of {len(self.members)}  {state.label}  {state.status} after {duration(took)}"
        for name, label in (("loss", "loss"), ("success", "val success")):
            if state.values.get(name) is not None:
                words += f", {label} {state.values[name]:.3f}"
        if state.status in FAILED:
            words += f": {state.reason}\n    {output}"
        self.board.say(words)


def record_end(run: Run, code: int, stopped: bool, why: str | None = None) -> list[Run]:
    """Writes down how a process ended, for each of its runs; returns those that failed. Of several runs in a process, each has
    said itself how it ended, unless the process was killed."""
    failed = []
    for member in run.members:
        said = status.read(member.folder).get("status")
        if said == "done" and (code <= Exit.DONE or run.others):  # a signal that came behind its last word changes nothing
            continue
        if run.others and said in ("preempted", "interrupted"):
            continue
        if stopped and not (run.others and said in FAILED):
            if said not in ("preempted", "interrupted"):
                status.update(member.folder, status="interrupted", exit_code=code)
            continue
        if not (run.others and said in FAILED):
            record_failure(member.folder, run.folder / OUTPUT, code, why)
        failed.append(member)
    return failed


def record_failure(folder: Path, output: Path, code: int, why: str | None = None) -> None:
    """Add what the launcher knows about a failed run to the run's status.json."""
    lines = _last_lines(output)
    if why is None and code < 0:
        name = signal.Signals(-code).name
        why = f"it was killed by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    elif why is None and code == Exit.DONE:
        why = "it ended without finishing"
    said = status.read(folder).get("status")
    status.update(
        folder,
        status=said if said == "diverged" else "failed",
        exit_code=code,
        reason=why or (lines[-1].strip() if lines else f"exit code {code}"),
        log_end="\n".join(lines),
    )


def _last_lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 100_000))
            lines = file.read().decode(errors="replace").splitlines()
            return [line for line in lines if line.strip(" ~^")][-LOG_END:]  # without the marks below a traceback's lines
    except OSError:
        return []


def _wait_for(pids: Sequence[int]) -> None:
    """Wait until these processes, which are not our children, are gone; kill those that do not end."""
    until = time.monotonic() + PATIENCE
    while any(_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(TICK)
    for pid in filter(_exists, pids):
        os.killpg(pid, signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
