from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from policies.encoders import Config, Encoder, Position


def test_a_position_is_the_sum_of_its_coordinates():
    """What is learned about a row holds in all of its columns, and a row is not the column of the same number."""
    part = Position(Config(), spaces.Box(np.zeros(2, np.uint8), np.array([4, 6], np.uint8), dtype=np.uint8), 8)
    places = torch.tensor([[0, 0], [0, 6], [4, 0], [4, 6]], dtype=torch.uint8)
    corner = part(places)[:, 0]  # [4, 8]
    assert corner.shape == (4, 8)
    assert torch.allclose(corner[1] - corner[0], corner[3] - corner[2], atol=1e-6)
    swapped = part(torch.tensor([[3, 2], [2, 3]], dtype=torch.uint8))[:, 0]
    assert not torch.allclose(swapped[0], swapped[1])


def test_whatever_is_one_of_a_few_has_an_encoder():
    seen = spaces.Dict({"key": spaces.Discrete(2), "weather": spaces.Discrete(5)})
    assert Encoder.accepts(Config(), seen) is None
    tokens = Encoder(Config(), seen, 16)({"key": torch.tensor([[1]]), "weather": torch.tensor([[4]])})
    assert tokens.shape == (1, 1, 2, 16)
    unknown = spaces.Dict({"smell": spaces.Box(0, 1, (3,)), "key": spaces.Discrete(2)})
    assert Encoder.accepts(Config(), unknown) == "no encoder for the observation smell"
