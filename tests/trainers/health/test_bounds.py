"""The bounds shown beside a loss are those that apply to it, and no others."""

from __future__ import annotations

import math

import pytest

from envs.data.statistics import Floor
from policies.base import Window
from trainers.health.bounds import Bounds

ACTION = Window(observations=1, actions=1)
PLAN = Window(observations=1, actions=4)
STEPS = Window(observations=8, actions=8, align="each")


def bounds(window: Window, repeated: float = 1.0) -> Bounds:
    made = Bounds(window, Floor(0.5, repeated=repeated, chance=math.log(7)))
    made.chance = 2.0
    return made


@pytest.mark.parametrize(
    "window, repeated, floor",
    [(ACTION, 0.9, 0.5), (ACTION, 0.1, None), (PLAN, 1.0, None), (STEPS, 1.0, 0.5), (STEPS, 0.9, None)],
)
def test_a_floor_is_that_of_a_loss_about_the_next_action_alone(window, repeated, floor):
    assert bounds(window, repeated).floor_of("loss") == floor


def test_of_a_loss_with_other_terms_only_the_cross_entropy_has_bounds():
    made = bounds(STEPS)
    assert made.beside("loss") == " (chance 2.000, floor 0.500)"
    made.look("train", {"train/loss", "train/cross_entropy"})
    assert made.beside("loss") == "" and made.beside("cross_entropy") == " (chance 2.000, floor 0.500)"
    made.look("val", {"val/loss"})
    assert made.beside("loss") == " (chance 2.000, floor 0.500)"


def test_the_first_action_of_a_plan_has_bounds_of_its_own():
    made = bounds(PLAN)
    assert made.beside("loss") == " (chance 2.000)"
    assert made.beside("first_action_loss") == f" (chance {math.log(7):.3f}, floor 0.500)"
    assert made.beside("reconstruction") == ""
