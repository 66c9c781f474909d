from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from envs.data.statistics import Moments, Statistics
from policies.actions import Vectors, refuse

BOX = spaces.Box(-1, 1, (2,), np.float32)


def test_the_data_lie_between_minus_one_and_one_with_their_mean_at_zero():
    vectors = Vectors(BOX)
    vectors.fit(Statistics({}, Moments(np.array([0.3, 0.0]), np.ones(2), np.array([-0.1, -1.0]), np.array([0.5, 0.5]))))
    extremes = torch.tensor([[-0.1, -1.0], [0.3, 0.0], [0.5, 0.5]])
    assert torch.allclose(vectors.encode(extremes), torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.5, 0.5]]))
    assert torch.allclose(vectors.decode(vectors.encode(extremes)), extremes)
    assert (vectors.decode(torch.full((1, 2), 9.0)) == 1).all()  # never outside the space


def test_discrete_actions_are_relaxed():
    vectors = Vectors(spaces.Discrete(3, start=5))
    assert vectors.encode(torch.tensor([5, 7])).tolist() == [[1, -1, -1], [-1, -1, 1]]
    assert vectors.decode(torch.tensor([[0.1, 0.7, 0.2]])).tolist() == [6]


def test_spaces_without_a_view_are_refused():
    assert refuse("act", BOX) is None and refuse("act", spaces.Discrete(3)) is None
    for space in (spaces.MultiDiscrete([2, 2]), spaces.Box(0, 1, (2, 2), np.float32), spaces.Box(0, 9, (2,), np.int64)):
        assert "policy=act needs" in str(refuse("act", space))
