"""Layouts, made by MiniGrid's own `reset(seed)`, once per process. How layouts are generated is not implemented again here."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (registers the ids)
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv

from envs.minigrid.codes import EMPTY, code
from envs.minigrid.engine import Engine
from envs.minigrid.rules import rules_of


def simulator(id: str) -> MiniGridEnv:
    """A real MiniGrid environment without Gymnasium's wrappers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated ids are still valid ids
        return gymnasium.make(id, disable_env_checker=True).unwrapped  # type: ignore[return-value]


def reset(env: MiniGridEnv, seed: int, max_steps: int) -> dict:
    """`env.reset(seed)` with our own step limit, if there is one, and without BabyAI's messages about rejected samples."""
    with contextlib.redirect_stdout(io.StringIO()):
        observation, _ = env.reset(seed=int(seed))
    if max_steps:
        env.max_steps = max_steps
    return observation


class Bank:
    """All layouts of one id that this process has made, as records: codes, contents, cell, direction, mission, max_steps, aim."""

    def __init__(self, id: str, max_steps: int) -> None:
        self.env = simulator(id)
        self.env.gen_obs = dict  # type: ignore[method-assign]  # skips two thirds of a reset; only the layout is needed
        self.id, self.max_steps = id, max_steps
        self.rules = rules_of(self.env) or Engine  # layouts of ids that the engine cannot play are only compared
        cells = self.env.width * self.env.height
        dtype = [("codes", "u1", cells), ("contents", "u1", cells), ("cell", "i4"), ("direction", "i4")]
        self._table = np.zeros(64, np.dtype([*dtype, ("mission", "i4"), ("max_steps", "i4"), ("aim", "i4", 2)]))
        self.missions: list[str] = []  # the different missions; a layout holds the index of its own
        self._row: dict[int, int] = {}  # seed -> row of the table
        self._mission: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the same bank; in another process it is that process's bank of the id."""
        return bank, (self.id, self.max_steps)

    def layouts(self, seeds: np.ndarray) -> np.ndarray:
        """The layouts of these seeds [K] as a record array [K]. New ones are made now."""
        row = self._row
        for seed in seeds.tolist():
            if seed not in row:
                row[seed] = self._make(seed)
        return self._table[[row[seed] for seed in seeds.tolist()]]

    def _make(self, seed: int) -> int:
        env, index = self.env, len(self._row)
        if index == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        reset(env, seed, self.max_steps)
        objects: list[WorldObj | None] = env.grid.grid
        layout = self._table[index]
        layout["codes"] = np.frombuffer(bytes([EMPTY if thing is None else _code(thing) for thing in objects]), np.uint8)
        layout["contents"] = EMPTY
        for cell, thing in enumerate(objects):
            if thing is not None and thing.contains is not None:
                assert thing.contains.contains is None, "a box inside a box has no code"
                layout["contents"][cell] = _code(thing.contains)
        x, y = env.agent_pos
        layout["cell"], layout["direction"] = y * env.width + x, env.agent_dir
        layout["max_steps"], layout["aim"] = env.max_steps, self.rules.aims(env)
        layout["mission"] = self._mission.setdefault(env.mission, len(self._mission))
        if layout["mission"] == len(self.missions):
            self.missions.append(env.mission)
        return index


@functools.cache
def bank(id: str, max_steps: int = 0) -> Bank:
    """The bank of this id in this process."""
    return Bank(id, max_steps)


def _code(thing: WorldObj) -> int:
    if thing.type == "door":
        return code(*thing.encode())
    return _STATELESS[thing.type, thing.color]  # three times faster than encode(), which matters as most things are walls


_STATELESS = {(kind, colour): code(k, c, 0) for kind, k in OBJECT_TO_IDX.items() for colour, c in COLOR_TO_IDX.items()}
