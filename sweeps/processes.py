"""Two ways to start a run in its own process: forked from one that has imported PyTorch, or as a new Python."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conf import version
from conf.targets import imported
from sweeps.forkserver import PR_SET_PDEATHSIG, serve

IMPORTED = ("hydra.main", "trainers.run")
OF_TRAINING = ("trainers.offline", "torch._dynamo")  # the latter by PyTorch's optimisers, for a second


@dataclass
class Pid:
    number: int
    pid: int


@dataclass
class Ended:
    number: int
    code: int  # below 0: the signal that killed it


class ServerDied(Exception):
    pass


class Starter(Protocol):
    def start(self, number: int, command: Sequence[str], output: Path, cwd: str, environment: Mapping[str, str]) -> None: ...
    def kill(self, number: int, signal: int) -> None: ...
    def events(self, timeout: float) -> Iterator[Pid | Ended]: ...
    def close(self) -> None: ...


def starter(commands: Sequence[Sequence[str]]) -> Starter:
    """For runs with these commands. Forks if that is safe: what this process has imported and looked up, its runs share."""
    trains = any(not any(word.startswith("mode=") and word != "mode=train" for word in command) for command in commands)
    for name in (*IMPORTED, *OF_TRAINING * trains):
        imported(name)
    version.of_this_process()
    alone = sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1
    return ForkServer() if alone else Processes()


class ForkServer:
    """sweeps/forkserver.py, forked from this process."""

    def __init__(self) -> None:
        requests, self.requests = os.pipe()
        self.answers, answers = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.requests)
            os.close(self.answers)
            serve(requests, answers)
        os.close(requests)
        os.close(answers)
        self.rest = b""

    def start(self, number: int, command: Sequence[str], output: Path, cwd: str, environment: Mapping[str, str]) -> None:
        self._tell(id=number, argv=list(command), output=str(output.absolute()), cwd=cwd, env=dict(environment))

    def kill(self, number: int, signal: int) -> None:
        self._tell(kill=number, signal=signal)

    def events(self, timeout: float) -> Iterator[Pid | Ended]:
        if not select.select([self.answers], [], [], timeout)[0]:
            return
        data = os.read(self.answers, 1 << 16)
        if not data:
            raise ServerDied("the process that starts the runs was killed; what was running goes on from its checkpoints")
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            yield Pid(said["id"], said["pid"]) if "pid" in said else Ended(said["id"], said["code"])

    def close(self) -> None:
        os.close(self.requests)
        os.close(self.answers)
        os.waitpid(self.pid, 0)

    def _tell(self, **words: object) -> None:
        with suppress(BrokenPipeError):  # `events` reports it
            os.write(self.requests, (json.dumps(words) + "\n").encode())


class Processes:
    """A new Python for each run: slower by an import of PyTorch, but it works everywhere."""

    def __init__(self) -> None:
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.fresh: list[Pid] = []

    def start(self, number: int, command: Sequence[str], output: Path, cwd: str, environment: Mapping[str, str]) -> None:
        with open(output, "ab") as file:
            self.running[number] = subprocess.Popen(
                [sys.executable, *command],
                cwd=cwd,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_before_python,
            )
        self.fresh.append(Pid(number, self.running[number].pid))

    def kill(self, number: int, signal: int) -> None:
        if (process := self.running[number]).poll() is None:
            os.killpg(process.pid, signal)

    def events(self, timeout: float) -> Iterator[Pid | Ended]:
        fresh, self.fresh = self.fresh, []
        yield from fresh
        until = time.monotonic() + timeout
        while True:
            ended = [number for number, process in self.running.items() if process.poll() is not None]
            for number in ended:
                yield Ended(number, self.running.pop(number).returncode)
            if ended or time.monotonic() >= until:
                return
            time.sleep(0.02)

    def close(self) -> None:
        pass


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _before_python() -> None:
    """Ignore signals to save until the run has handlers, since they would kill it; and stop it when its launcher dies."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
