"""A vector environment that plays in worker processes, for simulators that play one episode at a time.

A simulator is a class with `reset`, `step` and `close` (`Simulator` in `envs/workers.py`). Every worker steps several lanes, one
after the other. Workers end when their vector environment is closed or garbage-collected, when one of its methods raises (Ctrl-C
included), and when the process that started them dies.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from envs.deal import Deal
from envs.spaces import Spaces
from envs.vector import DealtVector
from envs.workers import Lanes, Layout, Observation, Simulator, Task, Worker, WorkerError, map_arrays, shared_file, size

Stepped = tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class ProcessVector(DealtVector):
    """`call` calls a method of every simulator, for instance to get the expert's action. Workers are told each lane's next
    episode in advance, so a step and its autoreset take one message.

    `begin_step` and `finish_step` are the two parts of `step`: the caller may think in between. They also step one of the
    `halves` of the lanes, so that the caller may think about the other."""

    def __init__(
        self, make: Callable[[], Simulator], deal: Deal, spaces: Spaces, num_workers: int | None = None, infos: Sequence[str] = ()
    ) -> None:
        """`make` makes one simulator: a class, or a `functools.partial` of one, that a worker can import. `num_workers`: None for
        one per core, 0 to play in this process. A single lane always plays in this process, which starts faster."""
        super().__init__(deal, spaces)
        lanes = self.num_envs
        self.infos, self.make = tuple(infos), make
        self._ahead = np.full(lanes, -1, np.int64)  # [N] the episode that each lane plays next
        self._names = tuple(spaces.observation)
        layout = _layout(spaces, lanes, self.infos)
        count = min(cores() if num_workers is None else num_workers, lanes)
        edges = np.linspace(0, lanes, max(1, count) + 1).astype(int).tolist()
        discrete = np.issubdtype(self.action_space.dtype, np.integer) and len(self.action_space.shape or ()) == 1
        tasks = [Task(make, layout, self._names, self.infos, (low, high), discrete) for low, high in pairwise(edges)]
        self.halves: list[np.ndarray] = []  # the even lanes and the odd ones; none if a worker may have a single lane
        self._sent: tuple[Any, ...] = ()  # the last command
        self.workers: list[Worker] = []
        self._local: Lanes | None = None
        if count == 0 or lanes == 1:
            self._arrays = map_arrays(layout, None)
            self._local = Lanes(tasks[0], self._arrays)
            return
        file = shared_file(size(layout))
        try:
            self._arrays = map_arrays(layout, file)
            self._finalizer = weakref.finalize(self, _stop, self.workers)  # also when the interpreter exits
            for task in tasks:
                self.workers.append(Worker(file, task))
            for worker in self.workers:  # all have been started: they import and build at the same time
                worker.receive()
            if lanes >= 2 * count:
                self.halves = [np.arange(half, lanes, 2) for half in (0, 1)]
        except BaseException:
            self.close()
            raise
        finally:
            os.close(file)

    def step(self, actions: np.ndarray) -> Stepped:
        self.begin_step(actions)
        return self.finish_step()

    def begin_step(self, actions: np.ndarray, half: int | None = None) -> None:
        """Let the workers step all lanes, or one half. `actions` has a row for every lane, whatever it is in the other half."""
        lanes = self._lanes(half)
        self._arrays["action"][lanes] = self._checked(actions)[lanes]
        self._send("step", half)

    def finish_step(self, half: int | None = None) -> Stepped:
        """Wait for the step that `begin_step` began. Returns what `step` returns, of these lanes."""
        self._receive()
        lanes = self._lanes(half)
        reward, terminated, truncated = (np.array(self._arrays[name][lanes]) for name in ("reward", "terminated", "truncated"))
        done, ended, final = terminated | truncated, self.episode[lanes], self._observe(lanes)
        if done.any():
            begin = np.arange(self.num_envs)[lanes][done]
            self.episode = self.episode.copy()
            self.episode[begin] = self._ahead[begin]
            self._ahead[begin] = self._deal(begin)
            for name in self._names:
                final[name][done] = self._arrays["final." + name][begin]
        more = {name: np.array(self._arrays["info." + name][lanes]) for name in self.infos}
        info = self._info(done, ended, final, more, lanes)
        return self._observe(lanes), reward, terminated, truncated, info

    def _lanes(self, half: int | None) -> np.ndarray | slice:
        return slice(None) if half is None else self.halves[half]

    def _begin(self, lanes: np.ndarray) -> None:
        """Start the episode that was dealt in advance, unless the deal was restarted since."""
        if not self.deal.played[lanes].any():
            self._ahead[lanes] = self._deal(lanes)
        self.episode[lanes] = self._ahead[lanes]
        self._command("reset", lanes.tolist())
        self._ahead[lanes] = self._deal(lanes)

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        return {name: np.array(self._arrays["observation." + name][lanes]) for name in self._names}

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a vector environment that plays in worker processes cannot be copied; make another one")

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """Call the method `name` of each lane's simulator; None for lanes that have no episode left."""
        return [value for part in self._command("call", name, arguments) for value in part]

    def close_extras(self, **kwargs: Any) -> None:
        if self._local:
            self._local.close()
        elif hasattr(self, "_finalizer"):
            self._finalizer()

    def _deal(self, lanes: np.ndarray) -> np.ndarray:
        """Tell the workers which episodes these lanes play next; returns the episodes' indices."""
        hand = self.deal.next(lanes)
        self._arrays["seed"][lanes], self._arrays["task"][lanes] = np.where(hand.episode < 0, -1, hand.seed), hand.task
        return hand.episode

    def _command(self, *command: Any) -> list[Any]:
        """Send a command to all workers and return their answers."""
        self._send(*command)
        return self._receive()

    def _send(self, *command: Any) -> None:
        if self.closed:
            raise WorkerError("this vector environment is closed")
        self._sent = command
        with self._killed_together():
            for worker in self.workers:
                worker.send(command)

    def _receive(self) -> list[Any]:
        with self._killed_together():
            if self._local:
                return [getattr(self._local, self._sent[0])(*self._sent[1:])]
            return [worker.receive() for worker in self.workers]

    @contextmanager
    def _killed_together(self) -> Iterator[None]:
        """If anything fails, all workers are killed."""
        try:
            yield
        except BaseException:
            for worker in self.workers:  # they may be busy, or hang
                worker.process.kill()
            self.close()
            raise


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        worker.stop()


def _layout(spaces: Spaces, lanes: int, infos: Sequence[str]) -> Layout:
    layout: Layout = {name: ((lanes,), "int64") for name in ("seed", "task")}
    layout |= {name: ((lanes,), "bool") for name in ("playing", "terminated", "truncated")}
    layout |= {name: ((lanes,), "float64") for name in ("reward", *(f"info.{name}" for name in infos))}
    layout["action"] = ((lanes, *(spaces.action.shape or ())), str(spaces.action.dtype))
    for name, space in spaces.observation.items():
        for prefix in ("observation.", "final."):
            layout[prefix + name] = ((lanes, *(space.shape or ())), str(space.dtype))
    return layout
