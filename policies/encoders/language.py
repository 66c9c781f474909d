"""An instruction in words."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from policies.encoders.config import Config
from policies.encoders.part import Part, shapes_are_fixed


class Mission(Part):
    """The instruction as one token: the sum of its words, weighted by position (`mission=words`), or of its pairs of neighbouring
    words (`mission=pairs`). A pair means the same wherever it stands: "red cube" is what to push, whatever the word order."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        self.pairs = config.mission == "pairs"
        self.word = nn.Embedding(int(space.high.max()) + 1, width, padding_idx=0)
        if self.pairs:
            self.pair = nn.Linear(2 * width, width)
            return
        self.position = nn.Parameter(torch.ones(space.shape[0], width))  # "red key, blue door" is not "blue key, red door"
        nn.init.normal_(self.position, mean=1.0, std=0.5)

    def forward(self, mission: Tensor) -> Tensor:  # [B, words] uint8, 0: no word
        used = mission.shape[1]
        if mission.device.type == "cpu" and not shapes_are_fixed(mission):  # most missions are far shorter than the longest
            used = max(1, int((mission > 0).any(0).sum()))  # words fill a mission from the front
        there = mission[:, :used] > 0  # not left to the table's padding_idx, which vmap knows of the first of stacked runs only
        x = F.embedding(mission[:, :used].long(), self.word.weight) * there[..., None]  # [B, used, width]
        if self.pairs:
            x = F.gelu(self.pair(torch.cat([x, F.pad(x[:, 1:], (0, 0, 0, 1))], -1))) * there[..., None]
        else:
            x = x * self.position[:used]
        return x.sum(1, keepdim=True) / there.sum(1).clamp(min=1).sqrt()[:, None, None]
