"""MiniGrid's rules for N worlds at once, in NumPy, bit-exact with `MiniGridEnv.step` and `gen_obs`.

A world is a row of one-byte codes. Each world also stores its picture rotated to the four directions. A 7x7 view is then seven
runs of seven adjacent cells, and an observation is one gather. Visibility is computed as in MiniGrid, row by row away from the
agent. A row (7 bits lit, 7 bits clear) has only 128 x 128 cases, so each row is one table look-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import DIR_TO_VEC

from envs.minigrid.codes import (
    BOX,
    CLEAR,
    EMPTY,
    ENDS,
    FITTING_KEY,
    LOCKED_DOOR,
    MOVES,
    RULES,
    TOGGLED,
    TOUCHES,
    TRIPLE,
    TURN,
    WALL,
    WINS,
)

VERSION = 1  # part of every dataset's address: raise it if episodes can change
VIEW = 7  # the agent sees VIEW x VIEW cells and stands in the middle of the near edge
HALF, FAR = VIEW // 2, VIEW - 1
STRIP = 3 * VIEW  # bytes of one column of the view: the far cell first, as in MiniGrid's image[i]
RIM = FAR  # width of the walls added around the grid, so that no view leaves the array


class Engine:
    """N worlds of one size. `load` starts episodes, `step` plays, `observe` returns observations."""

    def __init__(self, num_envs: int, width: int, height: int, see_through_walls: bool) -> None:
        self.num_envs, self.width, self.height, self.see_through_walls = num_envs, width, height, see_through_walls
        self.stride = width + 2 * RIM
        self.size = self.stride * (height + 2 * RIM)  # S, cells of one world
        self.canvas = max(width, height) + FAR  # side of a rotated picture; square, so that all four have the same stride
        area = self.canvas**2

        self.codes = np.full((num_envs, self.size), WALL, np.uint8)  # [N,S]
        self.contents = np.full((num_envs, self.size), EMPTY, np.uint8)  # [N,S] what is inside a box
        self.home = np.arange(num_envs) * self.size  # [N] where each world starts in the flat codes
        self.first = np.arange(num_envs) * 4 * area  # [N] where its pictures start
        self.cell = self.home.copy()  # [N] where the agent is, as an index into the flat codes
        self.direction = np.zeros(num_envs, np.intp)  # [N]
        self.carried = np.full(num_envs, EMPTY, np.uint8)  # [N]
        self.carried_contents = np.full(num_envs, EMPTY, np.uint8)  # [N]
        self.steps = np.zeros(num_envs, np.int64)  # [N]
        self.max_steps = np.ones(num_envs, np.int64)  # [N]
        self.lanes = np.arange(num_envs)  # [N]
        self.aim = np.zeros((num_envs, 2), np.intp)  # [N,2] what the id's rule asks for in this layout (rules.py)
        self.changes = np.zeros(num_envs, np.int64)  # [N] grows when the world (not the agent) changes, so that plans are renewed
        self.pictures = np.zeros((num_envs, 4 * area), "V3")  # [N,4*area] the rotated pictures
        self.clear = np.zeros((num_envs, 4, self.size), np.uint8)  # [N,4,S] bit i: light passes cell i of the row through here

        self.ahead = np.array([y * self.stride + x for x, y in DIR_TO_VEC])  # [4] one step forward
        self.right = np.roll(self.ahead, -1)  # [4] one step to the agent's right
        self.inside = _inside(width, height)  # [H*W] indices of the grid's cells among the S
        self.start, self.source = _turned(width, height)  # [4,S] where a view starts; [4*area] which cell a picture shows
        self.windows = self._windows()

    def _windows(self) -> np.ndarray:
        """Overlapping windows into the pictures: windows[start] is one view, as 7 strips."""
        last = self.pictures.size - (FAR * self.canvas + FAR)
        return np.ndarray((last, VIEW), f"V{STRIP}", self.pictures, strides=(3, 3 * self.canvas))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "windows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The windows of a copy refer to the copy's own pictures."""
        vars(self).update(state)
        self.windows = self._windows()

    def load(self, lanes: np.ndarray, layouts: np.ndarray) -> None:
        """Start new episodes in these lanes [K] from rows of the bank [K]."""
        codes = np.full((len(lanes), self.size), WALL, np.uint8)  # [K,S]
        codes[:, self.inside] = layouts["codes"]
        self.codes[lanes] = codes
        self.contents[lanes[:, None], self.inside] = layouts["contents"]
        self.cell[lanes] = self.home[lanes] + self.inside[layouts["cell"]]
        self.direction[lanes] = layouts["direction"]
        self.carried[lanes] = self.carried_contents[lanes] = EMPTY
        self.steps[lanes] = 0
        self.max_steps[lanes] = layouts["max_steps"]
        self.aim[lanes] = layouts["aim"]
        self.changes[lanes] += 1
        self.pictures[lanes] = SHOWN.take(codes.take(self.source, axis=1))
        if not self.see_through_walls:
            self.clear[lanes] = rows_across(CLEAR.view(np.uint8).take(codes), self.stride)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Play actions [N] (intp); returns reward [N] float64, terminated [N] bool, truncated [N] bool."""
        self.steps += 1
        self.direction += TURN.take(actions)
        self.direction &= 3
        ahead = self.ahead.take(self.direction)
        front = self.cell + ahead
        rule = actions << 8
        rule += self.codes.take(front)
        rule += (self.carried != EMPTY) * FULL_HANDS
        effect = _RULES.take(rule)
        ahead *= effect & MOVES
        self.cell += ahead
        touching = np.flatnonzero(effect & TOUCHES)
        if len(touching):
            self._touch(touching, actions[touching], front[touching])
        won, over = self._judge(actions, effect)
        reward = np.zeros(self.num_envs)
        if won.any():
            reward[won] = 1 - 0.9 * (self.steps[won] / self.max_steps[won])
        return reward, over, self.steps >= self.max_steps

    @staticmethod
    def aims(env: Any) -> tuple[int, int]:
        """What of a layout `_judge` needs to know."""
        return 0, 0

    def _judge(self, actions: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which lanes [N] have won and which are over, after `actions` and their `effect` on what was ahead.

        MiniGrid's core rule: the goal wins, goal and lava end the episode. rules.py has the others.
        """
        return (effect & WINS) != 0, (effect & ENDS) != 0

    def front(self) -> np.ndarray:
        """The cell ahead of every agent [N], as an index into the flat codes."""
        return self.cell + self.ahead.take(self.direction)

    def facing(self) -> np.ndarray:
        """The code of the cell ahead of every agent [N]."""
        return self.codes.reshape(-1).take(self.front())

    def observe(self, lanes: np.ndarray | slice = slice(None)) -> np.ndarray:
        """MiniGrid's image for these lanes, uint8 [K,7,7,3], in a new array."""
        direction, home = self.direction[lanes], self.home[lanes]
        place = direction * self.size + self.cell[lanes] - home
        view = self.windows[self.start.take(place) + self.first[lanes]]  # [K,7] strips
        if not self.see_through_walls:
            lit = self.lit(place + 4 * home, self.ahead.take(direction))
            shown = view.view(np.uint8)
            shown &= STRIPS.take(lit.view(np.uint8).reshape(-1, 8)[:, :VIEW]).view(np.uint8)
        view.view("V3")[:, HALF * VIEW + FAR] = SHOWN.take(self.carried[lanes])  # the agent's own cell shows what it carries
        return view.view(np.uint8).reshape(-1, VIEW, VIEW, 3)

    def lit(self, row: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Visible cells, uint64 [K]: byte i is column i of the view, its bit j is row j. `row` [K] indexes the flat `clear`."""
        clear = self.clear.reshape(-1)
        state = np.full(len(row), 1 << HALF << VIEW)  # light starts at the agent
        lit = np.zeros(len(row), np.uint64)
        for _ in range(VIEW):  # from the agent's row to the farthest one
            state += clear.take(row)
            lit += lit
            lit += LIT.take(state)
            state = ONWARD.take(state)
            row += ahead
        return lit

    def _touch(self, lanes: np.ndarray, actions: np.ndarray, front: np.ndarray) -> None:
        """Pick up, drop or toggle in lanes [K] that have something to act on ahead."""
        codes, contents = self.codes.reshape(-1), self.contents.reshape(-1)
        there, inside = codes[front], contents[front]
        after, after_inside = there.copy(), inside.copy()

        picking = actions == Actions.pickup
        after[picking] = after_inside[picking] = EMPTY
        self.carried[lanes[picking]], self.carried_contents[lanes[picking]] = there[picking], inside[picking]

        dropping = actions == Actions.drop
        hands = lanes[dropping]
        after[dropping], after_inside[dropping] = self.carried[hands], self.carried_contents[hands]
        self.carried[hands] = self.carried_contents[hands] = EMPTY

        toggling = actions == Actions.toggle
        opening = toggling & BOX[there]
        after[opening], after_inside[opening] = inside[opening], EMPTY
        turning = toggling & (~LOCKED_DOOR[there] | (self.carried[lanes] == FITTING_KEY[there])) & ~BOX[there]
        after[turning] = TOGGLED[there[turning]]

        contents[front] = after_inside
        changed = after != there
        self._write(lanes[changed], front[changed], there[changed], after[changed])

    def _write(self, lanes: np.ndarray, cells: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Write codes `after` [K] to these cells [K], in all places that store them."""
        self.codes.reshape(-1)[cells] = after
        self.changes[lanes] += 1
        local = cells - self.home[lanes]
        corner = self.start[:, local] + HALF * self.canvas + FAR  # [4,K] the cell itself, relative to the start of its view
        self.pictures[lanes, corner] = SHOWN[after]
        darkened = CLEAR[before] != CLEAR[after]
        lanes, local = lanes[darkened, None, None], local[darkened, None, None]
        turns, i = np.arange(4)[:, None], np.arange(VIEW)
        self.clear[lanes, turns, local - (i - HALF) * self.right[:, None]] ^= (1 << i).astype(np.uint8)  # [K,4,7]


FULL_HANDS = len(Actions) << 8  # offset into the flat RULES, [hands full?, action, code ahead], if something is carried
_RULES = RULES.reshape(-1)
SHOWN = TRIPLE.reshape(-1).view("V3")  # [256] each triple as one item of three bytes
ROWS = np.arange(1 << VIEW)
REVERSED = np.array([int(f"{row:0{VIEW}b}"[::-1], 2) for row in ROWS], np.uint8)  # [128]
_SEEN = np.repeat(ROWS[:, None] >> np.arange(VIEW) & 1, 3, axis=1).astype(bool)  # [128,21]
STRIPS = np.where(_SEEN, 255, 0).astype(np.uint8).view(f"V{STRIP}")[:, 0]  # [128] a column's byte mask, by its visible cells


def _light() -> tuple[np.ndarray, np.ndarray]:
    """MiniGrid's process_vis for one row. For (lit << 7 | clear): the visible row, and the light that reaches the next row.

    Light spreads along the row to the right, then to the left, through clear cells. Every clear lit cell, except the last of each
    pass, also lights the cell beyond it and that cell's neighbour.
    """
    lit, clear = (grid.reshape(-1) for grid in np.meshgrid(ROWS, ROWS, indexing="ij"))
    beyond = np.zeros_like(lit)
    for steps, side in ((range(FAR), 1), (range(FAR, 0, -1), -1)):
        for i in steps:
            passes = lit & clear & (1 << i)
            neighbour = passes << 1 if side == 1 else passes >> 1
            lit = lit | neighbour
            beyond = beyond | passes | neighbour
    columns = ((lit[:, None] >> np.arange(VIEW) & 1) << (8 * np.arange(VIEW))).sum(axis=1).astype(np.uint64)
    return columns, beyond << VIEW


LIT, ONWARD = _light()  # [16384] uint64, byte i is 1 where cell i of the row is seen; [16384] the next row's `lit << 7`


def _inside(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y + RIM) * (width + 2 * RIM) + x + RIM).reshape(-1)  # [H*W]


def _turned(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """How cells map to the four rotated pictures (rows run to the agent's right, columns run towards the agent).

    Returns where the view of an agent in each cell starts, [4,S], and which cell each position of the pictures shows, [4*area].
    """
    canvas = max(width, height) + FAR
    stride = width + 2 * RIM
    start = np.zeros((4, stride * (height + 2 * RIM)), np.intp)  # 0 for cells of the rim, where no agent stands
    source = np.zeros((4, canvas, canvas), np.intp)  # cell 0 is a wall of the rim
    y, x = np.mgrid[:height, :width]
    inside = _inside(width, height).reshape(height, width)
    for direction, (right, back) in enumerate(
        ((y, width - 1 - x), (width - 1 - x, height - 1 - y), (height - 1 - y, x), (x, y)),
    ):
        start[direction, inside] = (direction * canvas + right) * canvas + back
        source[direction, right + HALF, back + FAR] = inside
    return start, source.reshape(-1)


def rows_across(marked: np.ndarray, stride: int) -> np.ndarray:
    """For every cell and direction, which of the 7 cells of the view's row through it are marked: uint8 [K,S] -> [K,4,S]."""
    rows = np.zeros((len(marked), 4, marked.shape[1]), np.uint8)
    for direction, right in ((0, stride), (3, 1)):  # facing right, the row runs down; facing up, right; 2 and 1 mirror them
        row = marked
        for more in (1, 2, 3):  # covers 1, then 2, then 4, then 7 cells to the right
            row = row[:, : -more * right] | row[:, more * right :] << more  # [K,S-6*right] in the end
        middle = slice(HALF * right, -HALF * right)
        rows[:, direction, middle] = row
        rows[:, direction ^ 2, middle] = REVERSED.take(row)
    return rows
