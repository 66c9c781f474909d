"""The rules of Dark Room: cells, moves, held-out goals, and exact returns.

The grid, the order of actions, the horizon and the split are those of the published runs (dicp, CCCAD), so that numbers can be
compared with theirs. A cell is numbered row * size + column.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np

GAMES = {"room": None, "key_to_door": "key", "recall": "cue"}  # and what each shows beside the position
ACTIONS = 5
STAY = 4
MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])  # row+1, row-1, column+1, column-1, stay
TRAIN_SHARE = 0.9  # of the goals; the rest is the test


@lru_cache
def neighbours(size: int) -> np.ndarray:
    """The cell [cells, ACTIONS] behind each action; walls stop."""
    places = np.stack(np.divmod(np.arange(size * size), size), 1)  # [cells, 2]
    reached = np.clip(places[:, None] + MOVES, 0, size - 1)  # [cells, A, 2]
    return reached[..., 0] * size + reached[..., 1]


@lru_cache
def distances(size: int) -> np.ndarray:
    """Steps [cells, cells] between cells: there are no walls inside."""
    row, column = np.divmod(np.arange(size * size), size)
    return np.abs(row[:, None] - row) + np.abs(column[:, None] - column)


@lru_cache
def shortest_ways(size: int) -> np.ndarray:
    """The action [2, cells * cells] that leads from one cell towards another: rows first, and columns first."""
    here, there = np.divmod(np.arange(size**4), size**2)
    down, right = there // size - here // size, there % size - here % size
    vertical, horizontal = np.where(down > 0, 0, 1), np.where(right > 0, 2, 3)
    across = np.where(right != 0, horizontal, STAY)
    return np.stack([np.where(down != 0, vertical, across), np.where((down != 0) & (right == 0), vertical, across)])


def cell_of(position: np.ndarray, size: int) -> np.ndarray:
    """The number [N] of the cell at (row, column) [N, 2]."""
    return position[:, 0] * np.int64(size) + position[:, 1]


def start(size: int) -> int:
    return size // 2 * size + size // 2


def split(size: int, seed: int, val: int, test: list[int]) -> dict[str, np.ndarray]:
    """The goal cells of each split, in the published order. `test`: cells that are held out instead of the published ones."""
    cells = list(range(size * size))
    random.Random(seed).shuffle(cells)
    if not test:
        trained = min(round(len(cells) * TRAIN_SHARE), len(cells) - 1)
        cells, test = cells[:trained], cells[trained:]
    cells = [cell for cell in cells if cell not in test]
    return {"train": np.array(cells[: len(cells) - val]), "val": np.array(cells[len(cells) - val :]), "test": np.array(test)}


# --- exact returns -------------------------------------------------------------------------------------------------------


def room_optimum(size: int, horizon: int, goals: np.ndarray) -> np.ndarray:
    """Walk there and stay: every step that ends on the goal pays 1."""
    return np.clip(horizon + 1 - distances(size)[start(size), goals], 0, horizon)


def room_random(size: int, horizon: int, goals: np.ndarray) -> np.ndarray:
    """The expected return of uniformly random actions: the expected number of steps on the goal."""
    where = np.eye(size * size)[start(size)]
    visits = np.zeros(size * size)
    for _ in range(horizon):
        where = where @ _walk(size)
        visits += where
    return visits[goals]


def door_optimum(size: int, horizon: int, keys: np.ndarray, doors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the shortest way to the key and on to the door."""
    to_key = np.maximum(distances(size)[start(size), keys], 1)  # a key under the agent's feet takes a step to pick up
    total = to_key + distances(size)[keys, doors]
    return (to_key <= horizon).astype(float) + (total <= horizon), np.minimum(total, horizon)


def door_random(size: int, horizon: int, keys: np.ndarray, doors: np.ndarray) -> np.ndarray:
    """The expected return of random actions: the chance to reach the key in time, plus that to go on to the door in time."""
    arrival = _first_visits(size, horizon)
    in_time = arrival.cumsum(0)  # [t, from, to]
    to_key = arrival[:, start(size), keys]  # [t, E]
    onward = in_time[::-1][:, keys, doors]  # [t, E] within the steps that are left after step t + 1
    onward = np.concatenate([onward[1:], np.zeros_like(onward[:1])])
    return (to_key * (1 + onward)).sum(0)


@lru_cache
def _walk(size: int) -> np.ndarray:
    """How random actions move, [cells, cells]."""
    chance = np.zeros((size * size, size * size))
    for action in range(ACTIONS):
        np.add.at(chance, (np.arange(size * size), neighbours(size)[:, action]), 1 / ACTIONS)
    return chance


@lru_cache
def _first_visits(size: int, horizon: int) -> np.ndarray:
    """The chance [horizon, from, to] that step t + 1 of a random walk is the first that ends there."""
    walk = _walk(size)
    found = [walk]
    away = 1 - np.eye(size * size)
    for _ in range(horizon - 1):  # from s, go anywhere but to g, and reach g from there
        found.append(walk @ (away * found[-1]))
    return np.stack(found)
