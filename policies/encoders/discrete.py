"""Encoders of a choice among a few, and of a cell of a map."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor

from policies.encoders.config import Config
from policies.encoders.part import Part
from policies.nets import Table


class Choice(Part):
    """A choice among a few, such as a direction: one embedding per choice."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Discrete, width: int):
        super().__init__(config, space, width)
        self.embedding = Table(int(space.n), width)

    def forward(self, choice: Tensor) -> Tensor:  # [B]
        return self.embedding(choice.long())[:, None]


class Position(Part):
    """A cell of a map: one table per coordinate, summed, so that what is learned about a row holds in all of its cells."""

    tokens = 1
    first: Tensor

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        sizes = torch.from_numpy(space.high.astype(int) + 1)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)  # first row of each coordinate in the table
        self.coordinate = Table(int(sizes.sum()), width)

    def forward(self, position: Tensor) -> Tensor:  # [B, coordinates] uint8
        return self.coordinate(position.long() + self.first).sum(1, keepdim=True)
