"""The expert: shortest plans to the goal from every state of a world at once, so labelling a state is a look-up.

A state is (phase, direction, cell). The phases are: fetch the key, unlock its door, walk to the goal. The search runs backwards
from the goal, one distance at a time. All states at one distance are the bits of one Python integer, so turning and walking
backwards are shifts, and a level takes some forty integer operations for a room of any size.
"""

from __future__ import annotations

import functools

import numpy as np
from gymnasium.vector import VectorEnv
from minigrid.core.actions import Actions

from envs.minigrid.codes import CLOSED_DOOR, EMPTY, FITTING_KEY, GOAL, LAVA, LOCKED_DOOR, PORTABLE, WALKABLE
from envs.minigrid.engine import Engine
from envs.minigrid.vector import BatchedVector

PHASES = 3
LEFT, RIGHT, FORWARD, USE = 1, 2, 4, 8  # bits of a set of optimal actions; USE means pick up or toggle, whichever applies
ONLY = 16  # ONLY + action is the set that contains just that action


class Planner:
    """Labels the current state of every lane with an optimal action, whichever actions led there.

    Among several optimal actions, one is drawn from (seed, episode seed, step), independent of the number of lanes; with
    `straight`, walking on is preferred to turning. A state from which the goal cannot be reached is labelled `done`.
    """

    def __init__(self, seed: int, straight: bool = False) -> None:
        self.seed, self.straight = seed, straight
        self.vector: BatchedVector | None = None

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The best action [N] in the current state of every lane."""
        vector = self._met(vector)
        engine = vector.engine
        for lane in np.flatnonzero(self.known != engine.changes).tolist():
            self._replan(engine, lane)
        np.copyto(self.known, engine.changes)

        cell = self.number[engine.cell - engine.home]
        best = self.best[np.arange(vector.num_envs), self.phase, engine.direction, cell]  # [N] sets of actions
        if self.straight:
            best = np.where((best < ONLY) & (best & FORWARD != 0), FORWARD, best)
        draw = uniform(self.seed, vector.seeds, engine.steps)
        action = MEMBERS[best, (draw * SIZE[best]).astype(np.intp)]
        picks_up = (best < ONLY) & (action == Actions.toggle) & PORTABLE[engine.facing()]
        return np.where(picks_up, Actions.pickup, action)

    def _met(self, vector: VectorEnv) -> BatchedVector:
        """The unwrapped vector environment, after preparing for it if it is a new one."""
        vector = vector.unwrapped
        assert isinstance(vector, BatchedVector), "only the engine shows its state"
        if vector is not self.vector:
            self._meet(vector)
        return vector

    def _meet(self, vector: BatchedVector) -> None:
        num_envs, engine = vector.num_envs, vector.engine
        cells = len(engine.inside)
        self.vector = vector
        self.number = np.zeros(engine.size, np.intp)  # [S] the engine's cells, numbered without its rim
        self.number[engine.inside] = np.arange(cells)
        self.known = np.full(num_envs, -1)  # [N] the `engine.changes` for which each plan was made
        self.plans: list[Plan | None] = [None] * num_envs
        self.phase = np.zeros(num_envs, np.intp)  # [N]
        self.best = np.zeros((num_envs, PHASES, 4, cells), np.uint8)  # [N,phase,direction,cell] sets of optimal actions

    def _replan(self, engine: Engine, lane: int) -> None:
        """The world has changed. If the plan's current errand was done, go on to its next phase; otherwise make a new plan."""
        codes, carried, plan = self._world(engine, lane), int(engine.carried[lane]), self.plans[lane]
        one_change = engine.changes[lane] == self.known[lane] + 1
        if plan is not None and one_change and plan.fulfilled(int(self.phase[lane]), codes, carried):
            self.phase[lane] += 1
            return
        plan = self.plans[lane] = Plan(codes, carried, engine.width)
        self.phase[lane] = 0
        self.best[lane, : len(plan.best)] = plan.best

    def _world(self, engine: Engine, lane: int) -> np.ndarray:
        """The codes of a lane's cells, with the goal."""
        return engine.codes[lane, engine.inside]


class Plan:
    """The optimal actions in every state of one world: `best` [phases,4,cells].

    Exact for worlds with at most one locked door and one portable object, and any number of closed doors.
    """

    def __init__(self, codes: np.ndarray, carried: int, width: int) -> None:
        self.errands, self.key = _errands(codes, carried)
        phases, cells = len(self.errands) + 1, len(codes)
        walkable = WALKABLE[codes] & ~LAVA[codes] & inner_cells(cells, width)
        free = np.repeat(walkable[None], phases, axis=0)  # [phases,cells] can be entered at once
        gate = np.repeat(CLOSED_DOOR[codes][None], phases, axis=0)  # [phases,cells] can be entered after USE
        for phase, errand in enumerate(self.errands):
            free[phase + 1 :, errand] = True  # the key is gone, the door is open
        if not self.errands and carried == EMPTY:
            gate |= PORTABLE[codes]  # an object in the way can be picked up: the hands are empty and not needed for anything else
        goal = np.broadcast_to(GOAL[codes], (phases, 4, cells))
        self.best = backwards(free, gate, goal, self.errands, width)

    def fulfilled(self, phase: int, codes: np.ndarray, carried: int) -> bool:
        """Whether the errand of this phase has just been done."""
        if phase == len(self.errands) or carried != self.key:
            return False
        return bool(WALKABLE[codes[self.errands[phase]]])


def _errands(codes: np.ndarray, carried: int) -> tuple[list[int], int]:
    """The cells of the key and the door to be picked up and unlocked, in order, and the key's code."""
    for door in np.flatnonzero(LOCKED_DOOR[codes]).tolist():
        key = int(FITTING_KEY[codes[door]])
        if carried == key:
            return [door], key
        keys = np.flatnonzero(codes == key).tolist()
        if keys and carried == EMPTY:
            return [keys[0], door], key
    return [], EMPTY


def inner_cells(cells: int, width: int) -> np.ndarray:
    """The cells [cells] that are not part of the outer wall. Agents never stand there, so shifts of states never wrap."""
    y, x = np.divmod(np.arange(cells), width)
    return (x > 0) & (x < width - 1) & (y > 0) & (y < cells // width - 1)


def backwards(free: np.ndarray, gate: np.ndarray, goal: np.ndarray, errands: list[int], width: int) -> np.ndarray:
    """Breadth-first search from the states `goal` [phases,4,cells]; returns the sets of optimal actions [phases,4,cells].

    Bit (phase * 4 + direction) * cells + cell of an integer is a state. Entering a gate takes two levels: USE, then FORWARD.
    """
    phases, cells = free.shape
    facing_right, facing_down, facing_left, facing_up = _facing(phases, cells)
    not_right, not_up = ~facing_right, ~facing_up
    errand = 0  # states in which USE completes the phase's errand
    for phase, cell in enumerate(errands):
        for direction, step in enumerate((1, width, -1, -width)):
            errand |= 1 << ((phase * 4 + direction) * cells + cell - step)

    def behind(states: int) -> int:
        """The states from which walking forward leads into these states."""
        right, down = (states & facing_right) >> 1, (states & facing_down) >> width
        return right | down | (states & facing_left) << 1 | (states & facing_up) << width

    goal_bits = _bits(goal)
    free_bits, gate_bits, unseen = (_bits(np.repeat(cells[:, None], 4, axis=1)) for cells in (free, gate, free | gate))
    unseen &= ~goal_bits
    level, before = goal_bits, 0  # states at the current distance from the goal, and at one less
    found = [0, 0, 0, 0]  # states where each action is optimal
    wrap = 3 * cells
    while level or before:
        actions = (
            (level & not_up) << cells | (level & facing_up) >> wrap,  # where a left turn leads into this level
            (level & not_right) >> cells | (level & facing_right) << wrap,
            behind(level & free_bits),
            (behind(before & gate_bits) if gate_bits else 0) | level >> 4 * cells & errand,
        )
        before, level = level, (actions[0] | actions[1] | actions[2] | actions[3]) & unseen
        unseen ^= level
        found = [old | new & level for old, new in zip(found, actions, strict=True)]
    size = -(-4 * phases * cells // 8)
    boards = np.frombuffer(b"".join(board.to_bytes(size, "little") for board in found), np.uint8).reshape(4, size)
    flags = np.unpackbits(boards, axis=1, count=4 * phases * cells, bitorder="little")  # [4,states]
    return np.dot(np.array([LEFT, RIGHT, FORWARD, USE], np.uint8), flags).reshape(phases, 4, cells)


def _bits(states: np.ndarray) -> int:
    """States [phases,4,cells] bool as the bits of an integer."""
    return int.from_bytes(np.packbits(states, bitorder="little").tobytes(), "little")


@functools.cache
def _facing(phases: int, cells: int) -> tuple[int, int, int, int]:
    """All states that face right, down, left, up."""
    one_phase = [((1 << cells) - 1) << direction * cells for direction in range(4)]
    right, down, left, up = (sum(states << phase * 4 * cells for phase in range(phases)) for states in one_phase)
    return right, down, left, up


_ACTIONS = {LEFT: Actions.left, RIGHT: Actions.right, FORWARD: Actions.forward, USE: Actions.toggle}
_SETS = [[int(action) for bit, action in _ACTIONS.items() if bits & bit] or [int(Actions.done)] for bits in range(ONLY)]
_SETS += [[int(action)] for action in Actions]
SIZE = np.array([len(members) for members in _SETS])  # [23]
MEMBERS = np.array([members + [0] * (4 - len(members)) for members in _SETS])  # [23,4] the actions of each set


def uniform(seed: int, episodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each (seed, episode seed, step), by SplitMix64's finaliser, independent of the number of lanes."""
    x = np.array([seed], np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    x = (x + episodes.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + steps.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return ((x ^ x >> np.uint64(31)) >> np.uint64(11)) * 2.0**-53
