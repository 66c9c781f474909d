"""A vector of floating-point numbers, such as a gripper's position."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from envs.data.statistics import Moments
from policies.encoders.config import Config
from policies.encoders.part import Part

FARTHEST = 10.0  # standard deviations at which values unseen in training are clipped


class State(Part):
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        self.feature_size, self.normalise, self.scale = space.shape[0], config.state_normalise, config.state_scale
        if self.normalise:
            self.register_buffer("mean", torch.zeros(self.feature_size))
            self.register_buffer("std", torch.ones(self.feature_size))
        if config.join == "sum":
            self.project: nn.Module = nn.Linear(self.feature_size, width)
        elif config.join == "tokens":
            self.project = nn.Sequential(nn.Linear(self.feature_size, width), nn.GELU(), nn.Linear(width, width))

    def fit(self, moments: Moments | None) -> None:
        if self.normalise and moments:
            self.mean.copy_(torch.from_numpy(moments.mean))
            # If a number is constant, its deviation is a rounding error: dividing by it would blow up other values when acting.
            std = torch.from_numpy(moments.std)
            self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def feature(self, state: Tensor) -> Tensor:  # [B, feature_size]
        x = ((state.float() - self.mean) / self.std).clamp(-FARTHEST, FARTHEST) if self.normalise else state.float()
        return x * self.scale

    def forward(self, state: Tensor) -> Tensor:
        return self.project(self.feature(state))[:, None]
