"""An instruction in words."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from policies.encoders.config import Config
from policies.encoders.part import Part, shapes_are_fixed


class Mission(Part):
    """The instruction as one token: a position-weighted sum of its words' embeddings."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        self.word = nn.Embedding(int(space.high.max()) + 1, width, padding_idx=0)
        self.position = nn.Parameter(torch.ones(space.shape[0], width))  # "red key, blue door" is not "blue key, red door"
        nn.init.normal_(self.position, mean=1.0, std=0.5)

    def forward(self, mission: Tensor) -> Tensor:  # [B, words] uint8, 0: no word
        used = mission.shape[1]
        if mission.device.type == "cpu" and not shapes_are_fixed(mission):  # most missions are far shorter than the longest
            used = max(1, int((mission > 0).any(0).sum()))  # words fill a mission from the front
        there = mission[:, :used] > 0  # not left to the table's padding_idx, which vmap knows of the first of stacked runs only
        x = F.embedding(mission[:, :used].long(), self.word.weight) * (self.position[:used] * there[..., None])
        return x.sum(1, keepdim=True) / there.sum(1).clamp(min=1).sqrt()[:, None, None]
