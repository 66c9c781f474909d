"""What an id adds to MiniGrid's core rules: when an episode is won, and when it ends.

Each rule is a subclass of the engine; RULES maps MiniGrid's classes to them. A rule reads two numbers from each layout, its aims:
the code of an object, or a cell in the engine's numbering.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from minigrid import envs as ids
from minigrid.core.actions import Actions
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv

from envs.minigrid.codes import COLOR_TO_IDX, EMPTY, OBJECT_TO_IDX, OPEN_DOOR, TOUCHES, code
from envs.minigrid.engine import RIM, VIEW, Engine


def rules_of(env: MiniGridEnv) -> type[Engine] | None:
    """The engine that implements this environment's rules; None if there is none."""
    kind = type(env)
    core = all(getattr(kind, name) is getattr(MiniGridEnv, name) for name in ("gen_obs", "gen_obs_grid", "_reward"))
    author = next(parent for parent in kind.__mro__ if "step" in vars(parent))
    return RULES.get(author) if core and env.agent_view_size == VIEW else None


class OpenTheDoor(Engine):
    """Unlock: won when its only door is open."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return _cell(env, env.door.cur_pos), 0

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        won = OPEN_DOOR[self.codes[self.lanes, self.aim[:, 0]]]
        return won, won


class PickUp(Engine):
    """UnlockPickup, BlockedUnlockPickup, KeyCorridor, ObstructedMaze: won when the target, which is unique, is carried."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return _code(env.obj), 0

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        won = self.carried == self.aim[:, 0]
        return won, won


class Fetch(Engine):
    """Fetch: won when an object of this kind and colour is carried; picking up any other ends the episode."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return code(OBJECT_TO_IDX[env.targetType], COLOR_TO_IDX[env.targetColor], 0), 0

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.carried == self.aim[:, 0], self.carried != EMPTY


class GoTo(Engine):
    """GoToDoor, GoToObject: won by `done` beside the target; `done` elsewhere, or `toggle` anywhere, ends the episode."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return _cell(env, env.target_pos), 0

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = np.abs(self.cell - self.home - self.aim[:, 0])
        done = actions == Actions.done
        return done & ((distance == 1) | (distance == self.stride)), done | (actions == Actions.toggle)


class PutNear(Engine):
    """PutNear: won when the object is dropped next to where another object was at the start.

    Any other drop, and picking up any other object, ends the episode.
    """

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return code(OBJECT_TO_IDX[env.move_type], COLOR_TO_IDX[env.moveColor], 0), _cell(env, env.target_pos)

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dropping, carries = actions == Actions.drop, self.carried != EMPTY
        dropped = dropping & (effect & TOUCHES != 0)
        down, right = np.divmod(self.front() - self.home - self.aim[:, 1] + self.stride + 1, self.stride)
        near = (down >= 0) & (down <= 2) & (right <= 2)
        wrong = (actions == Actions.pickup) & carries & (self.carried != self.aim[:, 0])
        return dropped & near, dropped | (dropping & carries) | wrong


class RedBlueDoors(Engine):
    """RedBlueDoors: won when the blue door is opened while the red one is open; opening it earlier ends the episode."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        red, blue = (env.grid.grid.index(door) for door in (env.red_door, env.blue_door))
        return tuple(_cell(env, (cell % env.width, cell // env.width)) for cell in (red, blue))  # type: ignore[return-value]

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        red, blue = OPEN_DOOR[self.codes[self.lanes[:, None], self.aim]].T
        return red & blue, blue


class Memory(Engine):
    """Memory: won in the right one of two cells; the wrong one ends the episode. `pickup` acts as `toggle` here."""

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        return _cell(env, env.success_pos), _cell(env, env.failure_pos)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return super().step(np.where(actions == Actions.pickup, int(Actions.toggle), actions))

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right, wrong = (self.aim == (self.cell - self.home)[:, None]).T
        return right, right | wrong


RULES: dict[type, type[Engine]] = {
    MiniGridEnv: Engine,
    ids.UnlockEnv: OpenTheDoor,
    ids.UnlockPickupEnv: PickUp,
    ids.BlockedUnlockPickupEnv: PickUp,
    ids.KeyCorridorEnv: PickUp,
    ids.ObstructedMazeEnv: PickUp,
    ids.FetchEnv: Fetch,
    ids.GoToDoorEnv: GoTo,
    ids.GoToObjectEnv: GoTo,
    ids.PutNearEnv: PutNear,
    ids.RedBlueDoorEnv: RedBlueDoors,
    ids.MemoryEnv: Memory,
}


def _cell(env: MiniGridEnv, position: tuple[int, int]) -> int:
    """A cell in the engine's numbering of one world."""
    x, y = position
    return int((y + RIM) * (env.width + 2 * RIM) + x + RIM)


def _code(thing: WorldObj) -> int:
    return int(code(*thing.encode()))
