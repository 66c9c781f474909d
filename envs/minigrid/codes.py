"""One byte per cell: MiniGrid's (object, colour, state) triple as a code, with tables of what each code means for vision and
for actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

OBJECTS, COLOURS, STATES = len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX)
OPEN, CLOSED, LOCKED = STATE_TO_IDX["open"], STATE_TO_IDX["closed"], STATE_TO_IDX["locked"]


def code(kind: Any, colour: Any, state: Any) -> Any:
    """The code of numbers or of arrays."""
    return (state * COLOURS + colour) * OBJECTS + kind


EMPTY = code(OBJECT_TO_IDX["empty"], 0, 0)  # also means: nothing carried, nothing in the box
WALL = code(OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], OPEN)  # MiniGrid shows walls outside the grid

_CODES = np.arange(OBJECTS * COLOURS * STATES)
TRIPLE = np.zeros((256, 3), np.uint8)  # [256,3] each code's triple in MiniGrid's observation
TRIPLE[_CODES] = np.stack([_CODES % OBJECTS, _CODES // OBJECTS % COLOURS, _CODES // (OBJECTS * COLOURS)], axis=1)
_KIND, _COLOUR, _STATE = TRIPLE.T  # [256] each; bytes that are not a code count as MiniGrid's "unseen"


def _is(*names: str) -> np.ndarray:
    return np.isin(_KIND, [OBJECT_TO_IDX[name] for name in names])  # [256] bool


DOOR = _is("door")
GOAL = _is("goal")
LAVA = _is("lava")
PORTABLE = _is("key", "ball", "box")  # can be picked up
BOX = _is("box")
LOCKED_DOOR = DOOR & (_STATE == LOCKED)
OPEN_DOOR = DOOR & (_STATE == OPEN)
CLOSED_DOOR = DOOR & (_STATE == CLOSED)
CLEAR = ~(_is("wall") | (DOOR & (_STATE != OPEN)))  # [256] bool: light passes (MiniGrid: see_behind)
WALKABLE = _is("empty", "floor", "goal", "lava") | OPEN_DOOR  # (MiniGrid: can_overlap)

TOGGLED = np.arange(256, dtype=np.uint8)  # [256] the code after `toggle`, with the right key; only doors change
TOGGLED[DOOR] = code(OBJECT_TO_IDX["door"], _COLOUR[DOOR], np.where(_STATE[DOOR] == OPEN, CLOSED, OPEN))
FITTING_KEY = np.zeros(256, np.uint8)  # [256] the key that opens this locked door
FITTING_KEY[LOCKED_DOOR] = code(OBJECT_TO_IDX["key"], _COLOUR[LOCKED_DOOR], 0)

# What an action does, as flags, given the cell ahead. Rules that depend on the carried key are completed in engine.py.
MOVES, ENDS, WINS, TOUCHES = 1, 2, 4, 8
RULES = np.zeros((2, len(Actions), 256), np.uint8)  # [hands full?, action, code ahead]
RULES[:, Actions.forward] = WALKABLE * MOVES + (GOAL | LAVA) * ENDS + GOAL * WINS
RULES[0, Actions.pickup] = PORTABLE * TOUCHES
RULES[1, Actions.drop, EMPTY] = TOUCHES
RULES[:, Actions.toggle] = (DOOR | BOX) * TOUCHES

TURN = np.zeros(len(Actions), np.intp)  # [7] quarter turns, clockwise
TURN[[Actions.left, Actions.right]] = 3, 1
