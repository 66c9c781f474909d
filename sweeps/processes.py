"""Two ways to start a run in a process of its own: forked from one that has imported PyTorch, or a Python of its own."""

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

from sweeps.forkserver import PR_SET_PDEATHSIG

ROOT = Path(__file__).parents[1]
PRELOADED = ("torch", "hydra.main", "conf.check", "trainers.setup", "trainers.offline", "trainers.evaluate.final")


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


class ForkServer:
    """sweeps/forkserver.py, which starts to import as soon as this is made."""

    def __init__(self, modules: Sequence[str] = PRELOADED) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweeps.forkserver", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is ours to hear
        )
        self.rest = b""
        self.threads: int | None = None  # not known before it is ready

    def start(self, number: int, command: Sequence[str], output: Path, cwd: str, environment: Mapping[str, str]) -> None:
        self._tell(id=number, argv=list(command), output=str(output.absolute()), cwd=cwd, env=dict(environment))

    def kill(self, number: int, signal: int) -> None:
        self._tell(kill=number, signal=signal)

    def ready(self, modules: Sequence[str] = ()) -> bool:
        """Waits until it has imported everything, these too; whether it may be forked."""
        try:
            while self.threads is None:
                [*self.events(1.0)]
            self.threads = None
            self._tell(**{"import": list(modules)})
            while self.threads is None:
                [*self.events(1.0)]
        except ServerDied:
            return False
        return self.threads == 1

    def events(self, timeout: float) -> Iterator[Pid | Ended]:
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        if not select.select([pipe], [], [], timeout)[0]:
            return
        data = os.read(pipe, 1 << 16)
        if not data:
            raise ServerDied("the process that starts the runs was killed; what was running goes on from its checkpoints")
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "pid" in said:
                yield Pid(said["id"], said["pid"])
            elif "code" in said:
                yield Ended(said["id"], said["code"])
            else:
                self.threads = said["threads"]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _tell(self, **words: object) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `events` will say so
            self.process.stdin.write((json.dumps(words) + "\n").encode())
            self.process.stdin.flush()


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
    """A signal to save that comes before the run has handlers for it would kill it; and it stops when its launcher dies."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
