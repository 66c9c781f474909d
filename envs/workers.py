"""One worker of `envs/processes.py`: a new interpreter that plays some lanes, in memory shared with its parent.

It is not forked, because a fork of a process that uses PyTorch's threads or a GPU can hang. Arrays lie in an unnamed file; the
pipe carries only commands. A worker exits when its pipe closes, so it never outlives its parent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple, Protocol

import numpy as np

from conf.errors import BadRequest

Observation = dict[str, np.ndarray]
Layout = dict[str, tuple[tuple[int, ...], str]]  # name -> shape and dtype of an array

ALIGNMENT = 64  # bytes: two arrays never share a cache line
PATIENCE = 5.0  # seconds that a worker has to exit before it is killed
PR_SET_PDEATHSIG = 1
# Ctrl-C, SLURM and the launcher of a sweep signal the whole process group. Only the parent reacts.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Simulator(Protocol):
    """Plays one episode at a time. Observations depend on the seed, the task and the actions alone, not on earlier episodes."""

    def reset(self, seed: int, task: int) -> Observation: ...

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, float]]:
        """Observation, reward, terminated, truncated, and the numbers that the vector environment lists in `infos`."""
        ...

    def close(self) -> None: ...


class WorkerError(RuntimeError):
    """A simulator raised, or its process died; the message contains the worker's traceback."""


class Task(NamedTuple):
    """The first message to a worker. Everything in it can be pickled."""

    make: Callable[[], Simulator]
    layout: Layout
    observations: tuple[str, ...]
    infos: tuple[str, ...]
    lanes: tuple[int, int]  # the worker's lanes: first, and one past the last
    discrete: bool


class Lanes:
    """Some lanes of the arrays and their simulators, in a worker or in the main process."""

    def __init__(self, task: Task, arrays: Mapping[str, np.ndarray]):
        self.task, self.arrays = task, arrays
        self.simulators = {lane: task.make() for lane in range(*task.lanes)}

    def reset(self, lanes: list[int]) -> None:
        for lane in lanes:
            if lane in self.simulators:
                self._begin(lane)

    def step(self, half: int | None = None) -> None:
        """Step every lane that plays, or those of the first (0) or second (1) half. Where one ends, its lane begins the next."""
        array = self.arrays
        for lane in range(*self.task.lanes) if half is None else halves(*self.task.lanes)[half]:
            simulator = self.simulators[lane]
            array["reward"][lane] = 0
            array["terminated"][lane] = array["truncated"][lane] = False
            if not array["playing"][lane]:
                continue
            action = array["action"][lane]
            observation, reward, terminated, truncated, info = simulator.step(
                int(action) if self.task.discrete else action.copy()
            )
            array["reward"][lane], array["terminated"][lane], array["truncated"][lane] = reward, terminated, truncated
            for name in self.task.infos:
                array["info." + name][lane] = info[name]
            self._show(lane, observation)
            if array["terminated"][lane] or array["truncated"][lane]:
                for name in self.task.observations:
                    array["final." + name][lane] = array["observation." + name][lane]
                self._begin(lane)

    def call(self, name: str, arguments: tuple[Any, ...]) -> list[Any]:
        """Call the method `name` of every simulator that plays; None for the others."""
        playing = self.arrays["playing"]
        return [getattr(simulator, name)(*arguments) if playing[lane] else None for lane, simulator in self.simulators.items()]

    def close(self) -> None:
        for simulator in self.simulators.values():
            simulator.close()
        self.simulators = {}

    def _begin(self, lane: int) -> None:
        seed, task = int(self.arrays["seed"][lane]), int(self.arrays["task"][lane])
        self.arrays["playing"][lane] = seed >= 0
        if seed >= 0:
            self._show(lane, self.simulators[lane].reset(seed, task))

    def _show(self, lane: int, observation: Observation) -> None:
        for name in self.task.observations:
            self.arrays["observation." + name][lane] = observation[name]


class Worker:
    """The parent's handle on a worker process."""

    def __init__(self, memory: int, task: Task):
        self.lanes = task.lanes
        self.connection, theirs = Pipe()
        main = threading.current_thread() is threading.main_thread()
        code = f"from envs.workers import serve; serve({theirs.fileno()}, {memory}, {main})"
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # inherited: signals wait until the worker ignores them
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # simulators print a lot; their errors on stderr are shown
                pass_fds=(theirs.fileno(), memory),
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self.send(task)

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def receive(self) -> Any:
        try:
            error, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if isinstance(error, BadRequest):
            raise error
        if error:
            raise WorkerError(f"a simulator of lanes {self.lanes[0]} to {self.lanes[1] - 1} failed:\n{error}")
        return value

    def stop(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _death(self) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        code = self.process.poll()
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"exited with code {code}"
        hint = "; out of memory? try fewer env.num_workers" if code == -signal.SIGKILL else ""
        return WorkerError(f"the process that plays lanes {self.lanes[0]} to {self.lanes[1] - 1} {how}{hint}")


def serve(connection: int, memory: int, with_parent: bool) -> None:
    """The main loop of a worker."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    if with_parent and sys.platform == "linux":  # ends simulators that hang: sent when the parent's thread ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe = Connection(connection)
    lanes: Lanes | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message = pipe.recv()
            try:
                if lanes is None:
                    lanes, value = Lanes(message, map_arrays(message.layout, memory)), None
                else:
                    value = getattr(lanes, message[0])(*message[1:])
                pipe.send((None, value))
            except BadRequest as error:
                pipe.send((error, None))
            except Exception:
                pipe.send((traceback.format_exc(), None))
    if lanes:
        lanes.close()
    os._exit(0)  # at once: the parent waits, and a normal exit of the interpreter takes longer


def halves(low: int, high: int) -> tuple[range, range]:
    """Of a worker's lanes: the even and the odd ones, so that the halves of all lanes are the same for any number of workers."""
    return range(low + low % 2, high, 2), range(low + 1 - low % 2, high, 2)


def size(layout: Layout) -> int:
    return sum(_padded(*entry) for entry in layout.values())


def _padded(shape: tuple[int, ...], dtype: str) -> int:
    return -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT


def shared_file(size: int) -> int:
    """An unnamed file, in memory where the system offers it: nothing remains when the processes end."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("iolaus")
    else:
        file, name = tempfile.mkstemp()
        os.unlink(name)
    os.ftruncate(file, size)
    return file


def map_arrays(layout: Layout, file: int | None) -> dict[str, np.ndarray]:
    """The arrays of a layout, one after another, in a file's memory or, without a file, in this process's own."""
    block = np.frombuffer(mmap.mmap(-1 if file is None else file, size(layout)), np.uint8)
    arrays, offset = {}, 0
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, block, offset)
        offset += _padded(shape, dtype)
    return arrays
