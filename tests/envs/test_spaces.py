from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from envs.spaces import Spaces, random_actions


def test_spaces_survive_json():
    high = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3))
    box = spaces.Box(np.zeros((7, 7, 3), np.uint8), high, dtype=np.uint8)
    for action in (spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3, start=-1), spaces.Box(-np.inf, 2.0, (1,))):
        given = Spaces(spaces.Dict({"grid": box, "direction": spaces.Discrete(4)}), action)
        assert Spaces.from_json(json.loads(json.dumps(given.to_json()))) == given


def test_a_space_without_a_form_is_named():
    with pytest.raises(TypeError, match="MultiBinary"):
        Spaces(spaces.Dict({"x": spaces.MultiBinary(3)}), spaces.Discrete(2)).to_json()


def test_random_actions_lie_in_any_space():
    low, high = np.array([-1, 2, -np.inf, -np.inf], np.float32), np.array([1, np.inf, 3, np.inf], np.float32)
    space = spaces.Box(low, high)
    uniform = np.random.default_rng(0).random((4000, 4), np.float32)
    uniform[0] = 0
    action = random_actions(space, uniform)
    assert np.isfinite(action).all() and all(row in space for row in action)
    assert action.mean(0) == pytest.approx([0, 3, 2, 0], abs=0.1) and action[:, 3].std() == pytest.approx(1, abs=0.05)
    assert random_actions(spaces.Discrete(3, start=5), uniform[:, 0]).tolist()[:1] == [5]
    assert set(random_actions(spaces.Discrete(3, start=5), uniform[:, 0]).tolist()) == {5, 6, 7}
