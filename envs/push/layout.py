"""Where cubes and goals lie when an episode begins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

LYING = np.array([0.0, 0.0, 0.02])  # the centre of a cube in the middle of the table
REACH = 0.15  # metres from the middle in which cubes and goals lie, in x and in y
FARTHER = 0.1  # metres that they are apart at first: 6 % of PandaPush-v3's own episodes are solved before they begin
RUN_UP = 0.09  # metres behind a cube that the hand needs to push it
ASIDE = 0.07  # metres that one cube keeps from the other's way to any goal
COLOURS = ("green", "red", "blue", "yellow")


@dataclass
class Layout:
    cubes: dict[str, np.ndarray]  # colour -> [3]
    goals: dict[str, np.ndarray]
    asked: tuple[str, str]  # the colours of the cube to push, and of the goal to push it to


def one_pair(random: np.random.Generator) -> Layout:
    """As PandaPush-v3 begins with the same seed, unless that is too near; then the following draws of its stream."""
    while True:
        goal, cube = _place(random), _place(random)
        if np.linalg.norm(goal - cube) > FARTHER:
            return Layout({"green": cube}, {"red": goal}, ("green", "red"))


def two_pairs(random: np.random.Generator) -> Layout:
    """Four colours, of which two are cubes. Every cube has a free way to every goal, so that the layout does not tell what is
    asked."""
    colours = [COLOURS[index] for index in random.permutation(len(COLOURS))]
    while True:
        places = [_place(random) for _ in colours]
        if _free(places[:2], places[2:]):
            cubes, goals = dict(zip(colours[:2], places[:2], strict=True)), dict(zip(colours[2:], places[2:], strict=True))
            return Layout(cubes, goals, any_pair(cubes, goals, random))


def any_pair(cubes: dict[str, np.ndarray], goals: dict[str, np.ndarray], random: np.random.Generator) -> tuple[str, str]:
    """One of the four, all equally likely."""
    return list(cubes)[int(random.integers(2))], list(goals)[int(random.integers(2))]


def _place(random: np.random.Generator) -> np.ndarray:
    return LYING + random.uniform((-REACH, -REACH, 0), (REACH, REACH, 0))


def _free(cubes: list[np.ndarray], goals: list[np.ndarray]) -> bool:
    if min(np.linalg.norm(cubes[0] - cubes[1]), np.linalg.norm(goals[0] - goals[1])) < FARTHER:
        return False
    for (cube, other), goal in product((cubes, cubes[::-1]), goals):
        way = goal - cube
        length = np.linalg.norm(way)
        start = cube - way * RUN_UP / max(length, 1e-6)
        way = goal - start
        nearest = start + way * np.clip((other - start) @ way / max(way @ way, 1e-9), 0, 1)
        if length < FARTHER or np.linalg.norm(other - nearest) < ASIDE:
            return False
    return True
