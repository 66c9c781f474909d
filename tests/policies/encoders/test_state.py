from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from envs.data.statistics import Moments
from policies.encoders import Config
from policies.encoders.state import State

SPACE = spaces.Box(-10, 10, (2,), np.float32)
MOMENTS = Moments(np.array([3.0, 1.0]), np.array([0.5, 0.0]), np.zeros(2), np.zeros(2))


def test_a_state_is_normalised_by_the_training_data():
    part = State(Config(), SPACE, 8)
    part.fit(MOMENTS)
    # A number that never changed in training is not amplified if it changes later, and nothing exceeds ten standard deviations.
    assert part.feature(torch.tensor([[4.0, 1.5], [99.0, 1.0]])).tolist() == [[2.0, 0.5], [10.0, 0.0]]
    other = State(Config(), SPACE, 8)
    other.load_state_dict(part.state_dict())
    assert torch.equal(part(torch.ones(1, 2)), other(torch.ones(1, 2)))

    scaled = State(Config(state_scale=20), SPACE, 8)
    scaled.fit(MOMENTS)
    assert scaled.feature(torch.tensor([[4.0, 1.5], [99.0, 1.0]])).tolist() == [[40.0, 10.0], [200.0, 0.0]]


def test_write_up_004_took_it_as_it_is():
    part = State(Config(state_normalise=False), SPACE, 8)
    part.fit(MOMENTS)
    assert part.feature(torch.tensor([[4.0, 1.5]])).tolist() == [[4.0, 1.5]]
