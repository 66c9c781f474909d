"""A scripted expert that is a continuous function of where things are: a network can imitate it.

An expert with stages (rise, travel, descend, push) solves as many episodes, but its imitators stall where two stages meet: the
mean of both is no movement at all. The same network reached 94 % with this expert and 6 % with that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STEP = 0.05  # metres that an action of 1 moves the hand
RADIUS = 0.07  # of the hand's way around the cube
LOW = 0.02  # height at which it pushes
CLEAR = 0.11  # of other cubes: nearer than that the hand begins to rise
SPEED = 0.45  # of a push; a faster one shoots the cube past its goal and off the table


def action(hand: np.ndarray, cube: np.ndarray, goal: np.ndarray, others: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Float32 [3]: go around the cube to the side away from the goal, and, the more the hand is there, push. All [3], metres.
    Over `others`, cubes that should stay where they are, the hand rises."""
    way = goal[:2] - cube[:2]
    distance = float(np.hypot(*way))
    ahead = way / max(distance, 1e-6)  # unit vectors of the push's own axes
    left = np.array([-ahead[1], ahead[0]])
    hand_from_cube = hand[:2] - cube[:2]
    along, aside = float(hand_from_cube @ ahead), float(hand_from_cube @ left)
    radius = max(float(np.hypot(along, aside)), 1e-6)
    angle = float(np.arctan2(aside, -along))  # 0 right behind the cube
    outward = hand_from_cube / radius
    around = np.array([-outward[1], outward[0]]) * np.sign(angle)  # the way that makes the angle smaller

    behind = float(np.clip(1 - abs(angle) / 0.6, 0, 1))
    behind = behind * behind * (3 - 2 * behind)
    pushing = behind * float(np.clip((0.075 - hand[2]) / 0.03, 0, 1))  # not before the hand is down
    orbit = around * min(1.0, 1.5 * abs(angle) * RADIUS / STEP) * np.clip(1.6 - radius / 0.1, 0.25, 1.0)
    orbit = orbit + outward * np.clip((RADIUS - radius) / STEP, -1, 1)
    gap = np.clip((-along - 0.045) / STEP, 0, 1)  # quicker as long as the cube is not touched
    push = ahead * (min(SPEED, 0.12 + 0.14 * distance / STEP) + 0.6 * gap) - left * np.clip(0.9 * aside / STEP, -0.5, 0.5)
    height = LOW + 0.05 * np.clip((0.062 - radius) / 0.02, 0, 1) * (1 - pushing)  # rise rather than bump into the cube
    for other in others:
        near = float(np.clip((CLEAR - np.hypot(*(hand[:2] - other[:2]))) / 0.04, 0, 1)) * (1 - behind)
        height = max(height, LOW + 0.06 * near)
        orbit = orbit * (1 - 0.8 * near * np.clip((height - hand[2]) / 0.03, 0, 1))  # rise first
    move = np.array([*(pushing * push + (1 - pushing) * orbit), np.clip((height - hand[2]) / STEP, -1, 1)])
    return (move / max(1.0, np.abs(move).max())).astype(np.float32)
