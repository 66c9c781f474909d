"""A grid of categorical cells, such as MiniGrid's view: three tokenizers."""

from __future__ import annotations

import math

from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from policies.encoders.config import Config
from policies.encoders.part import Part
from policies.nets import Table


class GridMLP(Part):
    """Embed each cell's code, mix all cells in an MLP, read out a few tokens.

    An egocentric view is not translation invariant: what matters is *which* cell holds the key, so every cell has its own
    weights. Measured five times faster and better than convolutions on MiniGrid (study=attend_or_average).
    """

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        self.tokens, cells = config.grid_tokens, space.shape[0] * space.shape[1]
        self.sizes = [int(high) + 1 for high in space.high.max(axis=(0, 1))]  # values of each channel: object, colour, state
        self.code = Table(math.prod(self.sizes), config.grid_embedding)
        self.inward = nn.Linear(cells * config.grid_embedding, config.grid_hidden)
        self.mix = nn.Linear(config.grid_hidden, config.grid_hidden)
        self.outward = nn.Linear(config.grid_hidden, self.tokens * width)
        self.film = nn.Linear(width, 2 * config.grid_embedding) if config.grid_film else None

    def forward(self, grid: Tensor, instruction: Tensor | None = None) -> Tensor:
        """`grid` [B, w, h, channels] uint8; `instruction` [B, width], with `film`."""
        # A cell's channels are the digits of one number, so that (door, red, locked) has its own embedding.
        number = grid[..., -1].int()  # [B, w, h]
        for channel in range(len(self.sizes) - 2, -1, -1):
            number = number * self.sizes[channel] + grid[..., channel]
        number = number.flatten().long()
        # On a CPU the gradient of an embedding takes five times as long as that of a selection.
        embedded = self.code(number) if number.is_cuda else self.code.weight.index_select(0, number)  # [B*w*h, grid_embedding]
        if self.film is not None and instruction is not None:
            scale, shift = self.film(instruction)[:, None].chunk(2, -1)  # [B, 1, grid_embedding]
            embedded = embedded.view(len(grid), -1, scale.shape[-1]) * (1 + scale) + shift
        x = F.gelu(self.inward(embedded.reshape(len(grid), self.inward.in_features)))
        x = x + F.gelu(self.mix(x))
        return self.outward(x).unflatten(-1, (self.tokens, -1))  # [B, tokens, width]


class ResidualConv(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        # GroupNorm instead of the write-up's BatchNorm: acting must equal the training forward pass for any batch.
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = nn.GroupNorm(8, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(y)))


class GridConv(Part):
    """Write-up 000's state tokenizer: convolutions over raw codes, one token a cell. `flat` is the layout before its fix."""

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        channels = space.shape[-1]
        self.tokens, self.flat = space.shape[0] * space.shape[1], config.grid == "flat"
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()),
            ResidualConv(128),
        )
        if self.flat:
            self.project: nn.Module = nn.Linear(128 * self.tokens, width * self.tokens)  # most of the model's parameters
        else:
            self.project = nn.Sequential(nn.Conv2d(128, width, 1), nn.Flatten(2))
            self.token = nn.Linear(width, width)

    def forward(self, grid: Tensor) -> Tensor:  # [B, w, h, channels] uint8
        x = self.features(grid.permute(0, 3, 1, 2).float() / 10.0)  # codes go up to 10; [B, 128, w, h]
        if self.flat:
            return self.project(x.flatten(1)).unflatten(-1, (self.tokens, -1))
        return self.token(self.project(x).transpose(1, 2))  # [B, cells, width]


GRIDS: dict[str, type[Part]] = {"mlp": GridMLP, "conv": GridConv, "flat": GridConv}
