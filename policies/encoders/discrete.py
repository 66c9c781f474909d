"""One of a few, and a cell of a map."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policies.encoders.config import Config
from policies.encoders.part import Part


class Choice(Part):
    """One of a few, such as a direction: an embedding each."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Discrete, width: int):
        super().__init__(config, space, width)
        self.embedding = nn.Embedding(int(space.n), width)

    def forward(self, choice: Tensor) -> Tensor:  # [B]
        return self.embedding(choice.long())[:, None]


class Position(Part):
    """A cell of a map: one table for each coordinate, summed, so that what is learned in a row is known in all of it."""

    tokens = 1
    first: Tensor

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        sizes = torch.from_numpy(space.high.astype(int) + 1)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)  # row of the table where a coordinate's begin
        self.coordinate = nn.Embedding(int(sizes.sum()), width)

    def forward(self, position: Tensor) -> Tensor:  # [B, coordinates] uint8
        return self.coordinate(position.long() + self.first).sum(1, keepdim=True)
