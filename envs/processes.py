"""A vector environment over worker processes, for simulators that play one episode at a time.

A simulator is a class with `reset`, `step` and `close` (`Simulator` in `envs/workers.py`). Every worker runs several lanes one
after the other. Workers end with their vector environment: when it is closed or collected, when an exception or Ctrl-C leaves one
of its methods, and when the process that made them dies.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.deal import Deal
from envs.spaces import Spaces
from envs.workers import Lanes, Layout, Observation, Simulator, Task, Worker, WorkerError, map_arrays, shared_file, size


class ProcessVector(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Same-step autoreset; `call` asks the simulators for more, such as the expert's action. Returned arrays are never written
    again."""

    def __init__(
        self, make: Callable[[], Simulator], deal: Deal, spaces: Spaces, num_workers: int | None = None, infos: Sequence[str] = ()
    ) -> None:
        """`make` makes one simulator: a class, or a `functools.partial` of one, that a worker can import. `num_workers`: None for
        one a core, 0 to play in this process; one lane alone is always played in this process, which starts faster."""
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = lanes = deal.num_envs
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batch_space(spaces.observation, lanes)
        self.action_space = batch_space(spaces.action, lanes)
        self.deal, self.infos, self.make = deal, tuple(infos), make
        self.episode = np.full(lanes, -1, np.int64)  # [N] index into the dealt episodes, -1: the lane idles
        self._ahead = np.full(lanes, -1, np.int64)  # [N] the episode that follows it
        self._names, self._ready = tuple(spaces.observation), False
        layout = _layout(spaces, lanes, self.infos)
        count = min(cores() if num_workers is None else num_workers, lanes)
        edges = np.linspace(0, lanes, max(1, count) + 1).astype(int).tolist()
        discrete = np.issubdtype(self.action_space.dtype, np.integer) and len(self.action_space.shape or ()) == 1
        tasks = [Task(make, layout, self._names, self.infos, (low, high), discrete) for low, high in pairwise(edges)]
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
            for worker in self.workers:  # they import and build at the same time
                worker.receive()
        except BaseException:
            self.close()
            raise
        finally:
            os.close(file)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Deal from the top. `seed` has nothing to decide: the episodes' own seeds were given when this was made."""
        del seed, options
        self.deal.restart()
        self.episode = self._deal(np.arange(self.num_envs))
        self._command("reset")
        self._ahead = self._deal(np.arange(self.num_envs))
        self._ready = True
        return self._copy("observation."), {"episode_index": self.episode.copy()}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """A lane whose action is not finite ends its episode there: truncated, and `info["failed"]` says so."""
        if not self._ready:
            raise ResetNeeded("call reset before step")
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have the shape {self.action_space.shape}, got {actions.shape}")
        self._arrays["action"][:] = actions
        self._command("step")
        terminated, truncated = self._arrays["terminated"].copy(), self._arrays["truncated"].copy()
        info: dict[str, Any] = {name: self._arrays["info." + name].copy() for name in self.infos}
        if self._arrays["failed"].any():
            info["failed"] = self._arrays["failed"].copy()
        done = terminated | truncated
        if done.any():
            lanes = np.flatnonzero(done)
            self.episode = np.where(done, self._ahead, self.episode)
            self._ahead[lanes] = self._deal(lanes)
            final = self._copy("observation.")
            for name in self._names:
                final[name][lanes] = self._arrays["final." + name][lanes]
            info |= {"final_obs": final, "_final_obs": done}
        info["episode_index"] = self.episode.copy()
        return self._copy("observation."), self._arrays["reward"].copy(), terminated, truncated, info

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What the method `name` of each lane's simulator returns; None in lanes that have no episode left."""
        return [value for part in self._command("call", name, arguments) for value in part]

    def close_extras(self, **kwargs: Any) -> None:
        self._ready = False
        if self._local:
            self._local.close()
        elif hasattr(self, "_finalizer"):
            self._finalizer()

    def _deal(self, lanes: np.ndarray) -> np.ndarray:
        """Tell the workers which episode these lanes play next; returns their indices."""
        hand = self.deal.next(lanes)
        self._arrays["seed"][lanes], self._arrays["task"][lanes] = np.where(hand.episode < 0, -1, hand.seed), hand.task
        return hand.episode

    def _command(self, *command: Any) -> list[Any]:
        """The same command to all workers, and their answers. Whatever goes wrong in between, no worker is left behind."""
        if self.closed:
            raise WorkerError("this vector environment is closed")
        try:
            if self._local:
                return [getattr(self._local, command[0])(*command[1:])]
            for worker in self.workers:
                worker.send(command)
            return [worker.receive() for worker in self.workers]
        except BaseException:
            for worker in self.workers:  # in the middle of something, or stuck in it
                worker.process.kill()
            self.close()
            raise

    def _copy(self, prefix: str) -> Observation:
        return {name: self._arrays[prefix + name].copy() for name in self._names}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        worker.stop()


def _layout(spaces: Spaces, lanes: int, infos: Sequence[str]) -> Layout:
    layout: Layout = {name: ((lanes,), "int64") for name in ("seed", "task")}
    layout |= {name: ((lanes,), "bool") for name in ("playing", "terminated", "truncated", "failed")}
    layout |= {name: ((lanes,), "float64") for name in ("reward", *(f"info.{name}" for name in infos))}
    layout["action"] = ((lanes, *(spaces.action.shape or ())), str(spaces.action.dtype))
    for name, space in spaces.observation.items():
        for prefix in ("observation.", "final."):
            layout[prefix + name] = ((lanes, *(space.shape or ())), str(space.dtype))
    return layout
