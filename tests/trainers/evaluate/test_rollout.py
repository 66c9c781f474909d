"""The function that a GPU captures for acting, run uncaptured here: it must act like the plain one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from envs.minigrid import Config as MiniGridConfig
from envs.minigrid import MiniGrid
from envs.play import play
from policies.bc_mlp import BCMLP, Config
from trainers.evaluate.rollout import PolicyPlayer, filled, graph_size


def test_acting_in_fixed_shapes_acts_the_same():
    place = MiniGrid(MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0", max_steps=30))
    policy = BCMLP(Config(frames=[2, 0], horizon=4, execute=3), place.spaces).eval()
    plain, fixed = (PolicyPlayer(policy, False, 0, torch.device("cpu")) for _ in range(2))
    sizes = []

    def run(size: int, inputs: dict[str, Any]) -> torch.Tensor:
        sizes.append(size)
        return fixed.act_captured(inputs, 0)

    fixed.captured = cast(Any, SimpleNamespace(run=run))
    seeds = place.seeds("test", 70)  # more than lanes: memory is cleared where an episode begins
    one, other = (play(player, place, seeds, 66, keep=70).actions for player in (plain, fixed))
    for index in range(70):
        assert np.array_equal(one[index], other[index])
    assert set(sizes) == {66, 33}


def test_a_graph_has_all_lanes_or_a_quarter_of_them_again_and_again():
    assert [graph_size(playing, 512) for playing in (512, 257, 256, 65, 64, 17, 1)] == [512, 512, 256, 256, 64, 64, 16]
    assert graph_size(33, 65) == 33  # the larger half
    assert graph_size(1, 5) == 5


def test_rows_are_filled_up_with_zeros():
    assert filled(np.ones((3, 2)), 4).tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
