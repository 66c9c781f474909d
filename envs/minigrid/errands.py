"""The expert for ids with their own rule: it does one errand after another, each by a shortest path.

An errand is an action and the states in which to take it: `pickup` facing a key, `toggle` facing a door, `drop` facing an empty
cell, `done` beside a door. Whatever blocks the path to the target becomes an errand first: an object is carried away, a locked
door needs its key, the key's box has to be opened. Each errand takes a shortest path, but the sequence of errands is not always
the shortest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from minigrid.core.actions import Actions

from envs.minigrid.codes import BOX, CLOSED_DOOR, DOOR, EMPTY, FITTING_KEY, LAVA, LOCKED_DOOR, OPEN_DOOR, PORTABLE, WALKABLE
from envs.minigrid.engine import Engine
from envs.minigrid.planner import ONLY, Planner, backwards, inner_cells
from envs.minigrid.rules import Fetch, GoTo, Memory, OpenTheDoor, PickUp, PutNear, RedBlueDoors

IN_THE_WAY, BEHIND_A_LOCK = 8, 30  # estimated cost, in steps, of an object in the way and of a locked door


class World:
    """The current state of one lane. Cells are numbered without the engine's rim."""

    def __init__(
        self, codes: np.ndarray, contents: np.ndarray, carried: tuple[int, int], at: int, aim: tuple[int, int], width: int
    ) -> None:
        self.codes, self.contents, self.at, self.aim = codes, contents, at, aim
        self.carried, self.in_hand = carried  # the object, and what is inside it
        self.steps = (1, width, -1, -width)
        self.free = WALKABLE[codes] & ~LAVA[codes] & inner_cells(len(codes), width)
        self.free[at] = True
        self.gate = CLOSED_DOOR[codes]  # can be entered after `toggle`
        self.fixed = False  # whether moving objects and opening doors is forbidden

    def leave_alone(self) -> World:
        """For rules where touching anything but the target ends the episode."""
        self.fixed, self.gate = True, np.zeros_like(self.gate)
        return self

    def reached(self) -> np.ndarray:
        """The cells [cells] that the agent can walk to."""
        found, queue = np.zeros(len(self.codes), bool), [self.at]
        found[self.at] = True
        passable = (self.free | self.gate).tolist()
        while queue:
            cell = queue.pop()
            for step in self.steps:
                if passable[cell + step] and not found[cell + step]:
                    found[cell + step] = True
                    queue.append(cell + step)
        return found

    def facing(self, cells: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """The reachable states [4,cells] in which the agent faces one of these cells."""
        states = np.zeros((4, len(self.codes)), bool)
        for direction, step in enumerate(self.steps):
            before = cells - step
            before = before[(before >= 0) & (before < len(self.codes))]
            states[direction, before[reached[before]]] = True
        return states

    def obstacle(self, cells: np.ndarray, barred: set[int]) -> int:
        """The first object or locked door on a cheapest path to one of these cells; -1 if there is none."""
        targets, queue, come_from, cost = set(cells.tolist()), [(0, self.at)], {self.at: -1}, {self.at: 0}
        codes = self.codes.tolist()
        while queue:
            steps, cell = heapq.heappop(queue)
            if cell in targets:
                way = []
                while cell != self.at:
                    cell = come_from[cell]
                    way.append(cell)
                return next((cell for cell in reversed(way) if PORTABLE[codes[cell]] or LOCKED_DOOR[codes[cell]]), -1)
            for step in self.steps:
                ahead = cell + step
                if not 0 <= ahead < len(codes) or ahead in barred or (cell != self.at and not self._passable(cell)):
                    continue
                there = codes[ahead]
                extra = IN_THE_WAY if PORTABLE[there] else BEHIND_A_LOCK if LOCKED_DOOR[there] else int(CLOSED_DOOR[there])
                if steps + 1 + extra < cost.get(ahead, 1 << 30) and (ahead in targets or self._passable(ahead)):
                    cost[ahead], come_from[ahead] = steps + 1 + extra, cell
                    heapq.heappush(queue, (steps + 1 + extra, ahead))
        return -1

    def _passable(self, cell: int) -> bool:
        return bool(self.free[cell] or self.gate[cell] or PORTABLE[self.codes[cell]] or LOCKED_DOOR[self.codes[cell]])


Errand = tuple[np.ndarray, int]  # states [4,cells], action
NOTHING = np.zeros((4, 0), bool), int(Actions.done)


def act_on(world: World, cells: np.ndarray, action: int, barred: frozenset[int] = frozenset()) -> Errand | None:
    """The next errand needed to take `action` facing one of these cells; None if that is impossible."""
    if not len(cells):
        return None
    locked = cells[LOCKED_DOOR[world.codes[cells]]]
    if action == Actions.toggle and len(locked) and (key := _key(world, int(locked[0]), barred)) is not None:
        return key if key is not NOTHING else None
    states = world.facing(cells, world.reached())
    if states.any():
        if action == Actions.pickup and world.carried != EMPTY:
            return _put_down(world)
        return states, int(action)
    if world.fixed:
        return None
    closed = set(barred)
    while (obstacle := world.obstacle(cells, closed)) >= 0:
        there = np.array([obstacle])
        full_box = world.contents[obstacle] != EMPTY
        means = Actions.pickup if PORTABLE[world.codes[obstacle]] and not full_box else Actions.toggle
        errand = act_on(world, there, means, barred=frozenset(closed))
        if errand is not None:
            return errand
        closed.add(obstacle)
    return None


def _key(world: World, door: int, barred: frozenset[int]) -> Errand | None:
    """The errand that gets the key of a locked door; None if it is carried already, NOTHING if it cannot be reached."""
    key = int(FITTING_KEY[world.codes[door]])
    if world.carried == key:
        return None
    if world.in_hand == key:
        return _put_down(world)
    barred |= {door}
    lying, boxed = np.flatnonzero(world.codes == key), np.flatnonzero(BOX[world.codes] & (world.contents == key))
    return act_on(world, lying, Actions.pickup, barred) or act_on(world, boxed, Actions.toggle, barred) or NOTHING


def _put_down(world: World) -> Errand | None:
    """`drop` where the object blocks nothing: no door or object is adjacent, and the cells around stay connected."""
    reached = world.reached()
    empty = np.flatnonzero((world.codes == EMPTY) & world.free)
    empty = empty[empty != world.at]
    width = world.steps[1]
    ring = np.array([-width - 1, -width, -width + 1, 1, width + 1, width, width - 1, -1])
    around = empty[:, None] + ring  # [K,8] the cells around, in order
    open_ring = world.free[around] | world.gate[around]
    gaps = (open_ring & ~np.roll(open_ring, 1, axis=1)).sum(1)  # into how many parts an object would split the cells around it
    quiet = (gaps <= 1) & ~(DOOR | PORTABLE)[world.codes[around[:, 1::2]]].any(1)
    for choice in (empty[quiet], empty):
        states = world.facing(choice, reached)
        if states.any():
            return states, int(Actions.drop)
    return None


def _pick_up(world: World) -> Errand | None:
    return act_on(world, np.flatnonzero(world.codes == world.aim[0]), Actions.pickup)


def _open_the_door(world: World) -> Errand | None:
    return act_on(world, np.array([world.aim[0]]), Actions.toggle)


def _red_then_blue(world: World) -> Errand | None:
    red, blue = world.aim
    world.gate[blue] = False
    return act_on(world, np.array([blue if OPEN_DOOR[world.codes[red]] else red]), Actions.toggle)


def _fetch(world: World) -> Errand | None:
    return _pick_up(world.leave_alone())


def _go_to(world: World) -> Errand | None:
    beside = np.array([world.aim[0] + step for step in world.leave_alone().steps])
    beside = beside[(beside >= 0) & (beside < len(world.codes))]
    states = np.zeros((4, len(world.codes)), bool)
    states[:, beside[world.free[beside]]] = True
    return states, int(Actions.done)


def _put_near(world: World) -> Errand | None:
    thing, place = world.leave_alone().aim
    if world.carried != thing:
        return _pick_up(world)
    width = world.steps[1]
    near = place + np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    near = near[world.codes[near] == EMPTY]
    return world.facing(near, world.reached()), int(Actions.drop)


def _the_right_cell(world: World) -> Errand | None:
    right, wrong = world.aim
    world.free[wrong] = False
    states = np.zeros((4, len(world.codes)), bool)
    states[:, right] = True
    return states, int(Actions.done)  # the action does not matter: the episode ends on arrival


ERRANDS: dict[type[Engine], Callable[[World], Errand | None]] = {
    PickUp: _pick_up,
    OpenTheDoor: _open_the_door,
    RedBlueDoors: _red_then_blue,
    Fetch: _fetch,
    GoTo: _go_to,
    PutNear: _put_near,
    Memory: _the_right_cell,
}
# Which of each rule's aims are cells.
CELLS = {PickUp: (), OpenTheDoor: (0,), RedBlueDoors: (0, 1), Fetch: (), GoTo: (0,), PutNear: (1,), Memory: (0, 1)}


class ErrandPlanner(Planner):
    """Labels every state on the way to the current errand. Whenever the world changes, it chooses the next errand."""

    def _replan(self, engine: Engine, lane: int) -> None:
        kind, aim = type(engine), engine.aim[lane].tolist()
        for index in CELLS[kind]:
            aim[index] = int(self.number[aim[index]])
        at = int(self.number[engine.cell[lane] - engine.home[lane]])
        contents = engine.contents[lane, engine.inside]
        carried = int(engine.carried[lane]), int(engine.carried_contents[lane])
        world = World(self._world(engine, lane), contents, carried, at, tuple(aim), engine.width)
        errand = ERRANDS[kind](world)
        best = self.best[lane, 0]
        best[:] = 0
        if errand is not None and errand[0].any():
            states, action = errand
            best[:] = backwards(world.free[None], world.gate[None], states[None], [], engine.width)[0]
            best[states] = ONLY + action
