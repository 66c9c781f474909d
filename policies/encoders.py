"""From whatever an environment shows to tokens: one encoder for every policy, made of one tokenizer a modality.

`Encoder(config, space, width)` looks at the observation space's names and sizes: `grid` (a categorical map), `position`
(coordinates of a cell), `mission` (word ids), and whatever else is one of a few, such as `direction`. Its output is tokens
[B, To, S, width].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Config:
    """`encoder=`; lives at `policy.encoder`."""

    grid: str = "mlp"  # mlp: embed each cell, mix all cells | conv: write-up 000's 1x1-conv tokenizer | flat: its 20 M linear
    grid_tokens: int = 4  # tokens made of one grid (mlp only; conv and flat make one a cell)
    grid_embedding: int = 8  # size of a cell's embedding (mlp only)
    grid_hidden: int = 256  # width of the mixing MLP (mlp only)
    ignore: list[str] = field(default_factory=list)  # modalities that the policy does not get to see

    def __post_init__(self) -> None:
        if self.grid not in GRID_TOKENIZERS:
            raise ValueError(f"grid must be one of {', '.join(GRID_TOKENIZERS)}, got {self.grid}")
        for name in ("grid_tokens", "grid_embedding", "grid_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class GridMLP(nn.Module):
    """Embed each cell's code, mix all cells in an MLP, read out a few tokens.

    An egocentric view is not translation invariant: what matters is *which* cell holds the key, so every cell has its own
    weights. Measured five times faster and better than convolutions on MiniGrid (study=attend_or_average).
    """

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__()
        self.tokens, cells = config.grid_tokens, space.shape[0] * space.shape[1]
        self.sizes = [int(high) + 1 for high in space.high.max(axis=(0, 1))]  # values of each channel: object, colour, state
        self.code = nn.Embedding(math.prod(self.sizes), config.grid_embedding)
        self.inward = nn.Linear(cells * config.grid_embedding, config.grid_hidden)
        self.mix = nn.Linear(config.grid_hidden, config.grid_hidden)
        self.outward = nn.Linear(config.grid_hidden, self.tokens * width)

    def forward(self, grid: Tensor) -> Tensor:  # [B, w, h, channels] uint8
        # A cell's channels are read as the digits of one number, so that (door, red, locked) has an embedding of its own.
        number = grid[..., -1].int()  # [B, w, h]
        for channel in range(len(self.sizes) - 2, -1, -1):
            number = number * self.sizes[channel] + grid[..., channel]
        # Not self.code(number): on a CPU the gradient of an embedding takes five times as long as that of a selection.
        embedded = self.code.weight.index_select(0, number.flatten().long())  # [B * w * h, grid_embedding]
        x = F.gelu(self.inward(embedded.view(len(grid), self.inward.in_features)))
        x = x + F.gelu(self.mix(x))
        return self.outward(x).unflatten(-1, (self.tokens, -1))  # [B, tokens, width]


class ResidualConv(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        # GroupNorm instead of the write-up's BatchNorm: acting must equal the training forward pass, whatever the batch.
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = nn.GroupNorm(8, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(y)))


class GridConv(nn.Module):
    """Write-up 000's state tokenizer: convolutions over raw codes, one token a cell. `flat` is the layout before its fix."""

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__()
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
        x = self.features(grid.permute(0, 3, 1, 2).float() / 10.0)  # codes reach 10; [B, 128, w, h]
        if self.flat:
            return self.project(x.flatten(1)).unflatten(-1, (self.tokens, -1))
        return self.token(self.project(x).transpose(1, 2))  # [B, cells, width]


class Direction(nn.Module):
    """One of a few: an embedding each. Serves every modality that is `Discrete`."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Discrete, width: int):
        super().__init__()
        self.embedding = nn.Embedding(int(space.n), width)

    def forward(self, direction: Tensor) -> Tensor:  # [B]
        return self.embedding(direction.long())[:, None]


class Position(nn.Module):
    """A cell of a map: one table for each coordinate, summed, so that what is learned in a row is known in all of it."""

    tokens = 1
    first: Tensor

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__()
        sizes = torch.from_numpy(space.high.astype(int) + 1)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)  # row of the table where a coordinate's begin
        self.coordinate = nn.Embedding(int(sizes.sum()), width)

    def forward(self, position: Tensor) -> Tensor:  # [B, coordinates] uint8
        return self.coordinate(position.long() + self.first).sum(1, keepdim=True)


class Mission(nn.Module):
    """The instruction as one token: a position-weighted sum of its words' embeddings."""

    tokens = 1

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__()
        self.word = nn.Embedding(int(space.high.max()) + 1, width, padding_idx=0)
        self.position = nn.Parameter(torch.ones(space.shape[0], width))  # "red key, blue door" is not "blue key, red door"
        nn.init.normal_(self.position, mean=1.0, std=0.5)

    def forward(self, mission: Tensor) -> Tensor:  # [B, words] uint8, 0 where there is none
        x = self.word(mission.long()) * self.position
        return x.sum(1, keepdim=True) / (mission > 0).sum(1).clamp(min=1).sqrt()[:, None, None]


GRID_TOKENIZERS: dict[str, type[nn.Module]] = {"mlp": GridMLP, "conv": GridConv, "flat": GridConv}


class Encoder(nn.Module):
    """Observations {name: [B, To, ...]} -> tokens [B, To, S, width], each token normalised and marked with what it is."""

    def __init__(self, config: Config, space: spaces.Dict, width: int):
        super().__init__()
        kinds = {"grid": GRID_TOKENIZERS[config.grid], "position": Position, "mission": Mission}
        used = {name: part for name, part in space.items() if name not in config.ignore}
        self.parts = nn.ModuleDict({name: kinds.get(name, Direction)(config, part, width) for name, part in used.items()})
        self.tokens = sum(part.tokens for part in self.parts.values())  # type: ignore[misc]  # S
        self.norm = nn.LayerNorm(width)
        self.kind = nn.Parameter(torch.randn(self.tokens, width) * 0.02)

    @staticmethod
    def accepts(config: Config, space: spaces.Dict) -> str | None:
        if missing := sorted(set(config.ignore) - set(space)):
            return f"policy.encoder.ignore names {', '.join(missing)}, but the observation has {', '.join(sorted(space))}"
        if not set(space) - set(config.ignore):
            return "policy.encoder.ignore leaves nothing to see"
        known = {"grid", "position", "mission", *config.ignore}
        unknown = sorted(name for name, part in space.items() if name not in known and not isinstance(part, spaces.Discrete))
        return f"no encoder for the observation {', '.join(unknown)}" if unknown else None

    def forward(self, observation: dict[str, Tensor], known: Tensor | None = None) -> Tensor:
        """`known` [B, To]: the frames that there are, if not all. What comes out for the others means nothing."""
        shape = next(iter(observation.values())).shape[:2]  # B, To
        frames = {name: observation[name].flatten(0, 1) for name in self.parts}
        # Windows with a memory often reach back behind the start of their episode. A CPU does not encode what is not there; a GPU
        # would have to be waited for, to learn how much there is.
        there = None
        if known is not None and shape[1] > 1 and known.device.type == "cpu" and not torch.compiler.is_compiling():
            there = known.flatten().nonzero()[:, 0]
            frames = {name: x.index_select(0, there) for name, x in frames.items()}
        tokens = self.norm(torch.cat([part(frames[name]) for name, part in self.parts.items()], dim=1)) + self.kind
        if there is not None:
            tokens = tokens.new_zeros(math.prod(shape), *tokens.shape[1:]).index_copy(0, there, tokens)
        return tokens.unflatten(0, shape)
