"""Observations {modality: [B, To, ...]} -> tokens [B, To, S, width].

`TABLE` says which part reads a modality: by the kind of its space, and by its name if the kind has several meanings.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from envs.data.statistics import Statistics
from policies.encoders.config import Config
from policies.encoders.discrete import Choice, Position
from policies.encoders.grid import GRIDS, GridMLP
from policies.encoders.image import Image
from policies.encoders.language import Mission
from policies.encoders.part import Part, shapes_are_fixed
from policies.encoders.state import State
from policies.noise import Noise

ANY = "*"
# (kind of space, name of the modality) -> the part that reads it, given the config. A new modality is one more line.
TABLE = {
    ("choice", ANY): lambda config: Choice,
    ("floats", ANY): lambda config: State,
    ("integers", "mission"): lambda config: Mission,
    ("integers", "position"): lambda config: Position,
    ("map", ANY): lambda config: GRIDS[config.grid],
    ("picture", ANY): lambda config: Image,
}


def kind(space: spaces.Space) -> str | None:
    if isinstance(space, spaces.Discrete):
        return "choice"
    if not isinstance(space, spaces.Box):
        return None
    whole, dimensions = np.issubdtype(space.dtype, np.integer), len(space.shape)
    if dimensions == 1:
        return "integers" if whole else "floats"
    if dimensions == 3 and space.dtype == np.uint8:
        return "picture" if space.shape[-1] == 3 and (space.high == 255).all() else "map"
    return None


def reader(config: Config, name: str, space: spaces.Space) -> type[Part] | None:
    found = TABLE.get((str(kind(space)), name)) or TABLE.get((str(kind(space)), ANY))
    return found(config) if found else None


class Encoder(nn.Module):
    """Tokens of one width, each normalised and marked with its modality; or one token in which all features are joined."""

    def __init__(self, config: Config, space: spaces.Dict, width: int):
        super().__init__()
        used = {name: part for name, part in space.items() if name not in config.ignore}
        readers = {name: reader(config, name, part) for name, part in used.items()}
        parts: dict[str, Part] = {name: found(config, used[name], width) for name, found in readers.items() if found}
        self.parts = nn.ModuleDict(parts)
        self.join, self.shifts = config.join, config.image_shift > 0
        film = {GridMLP: config.grid_film, Image: config.image_film}
        self.with_instruction = {name for name, found in readers.items() if found and film.get(found)}
        self.tokens, self.width = 1, width
        if self.join == "concat":
            self.width = sum(part.feature_size or part.tokens * width for part in parts.values())
        elif self.join == "tokens":
            self.tokens = sum(part.tokens for part in parts.values())
            self.norm = nn.LayerNorm(width)
            start = torch.cat([part.first_mark(width) for part in parts.values()])
            self.kind = nn.Parameter(torch.randn(self.tokens, width) * 0.02 + start)

    @staticmethod
    def accepts(config: Config, space: spaces.Dict) -> str | None:
        if missing := sorted(set(config.ignore) - set(space)):
            return f"policy.encoder.ignore names {', '.join(missing)}, but the observation has {', '.join(sorted(space))}"
        used = {name: part for name, part in space.items() if name not in config.ignore}
        if not used:
            return "policy.encoder.ignore leaves nothing to see"
        readers = {name: reader(config, name, part) for name, part in used.items()}
        for key, asked, needed in (("grid_film", config.grid_film, GridMLP), ("image_film", config.image_film, Image)):
            if asked and not {needed, Mission} <= set(readers.values()):
                what = "a grid" if needed is GridMLP else "an image"
                return (
                    f"policy.encoder.{key} needs {what} and an instruction (mission), and one of them is not seen; leave it out"
                )
        if unknown := sorted(name for name, found in readers.items() if found is None):
            return f"no encoder for the observation {', '.join(unknown)}"
        sentences = (found.accepts(config, used[name]) for name, found in readers.items() if found)
        return next((sentence for sentence in sentences if sentence), None)

    def fit(self, statistics: Statistics) -> None:
        for name, part in self.parts.items():
            part.fit(statistics.observations.get(name))  # type: ignore[operator]

    def forward(self, observation: dict[str, Tensor], known: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """`known` [B, To]: which frames exist (None: all); the output for others is meaningless. `noise` draws the
        augmentation of training."""
        shape = next(iter(observation.values())).shape[:2]  # B, To
        seen = {name: observation[name] for name in self.parts}
        if self.training and self.shifts and noise is not None:
            images = {name: part for name, part in self.parts.items() if isinstance(part, Image)}
            seen |= {name: part.shifted(seen[name], noise) for name, part in images.items()}
        frames = {name: value.flatten(0, 1) for name, value in seen.items()}
        # Windows often reach back before the start of their episode. A CPU skips frames that do not exist; on a GPU, counting
        # them would wait for the device, and stacked runs have different numbers of them.
        there = None
        if known is not None and shape[1] > 1 and known.device.type == "cpu" and not shapes_are_fixed(known):
            there = known.flatten().nonzero()[:, 0]
            frames = {name: x.index_select(0, there) for name, x in frames.items()}
        tokens = self.joined(frames)
        if there is not None:
            tokens = tokens.new_zeros(math.prod(shape), *tokens.shape[1:]).index_copy(0, there, tokens)
        return tokens.unflatten(0, shape)

    def joined(self, frames: dict[str, Tensor]) -> Tensor:
        """[n, S, width] of frames {modality: [n, ...]}."""
        instruction = self.parts["mission"](frames["mission"]) if self.with_instruction else None  # [n, 1, width]

        def read(name: str, how: Callable[..., Tensor]) -> Tensor:
            if instruction is None:
                return how(frames[name])
            if name == "mission":
                return instruction
            return how(frames[name], instruction[:, 0]) if name in self.with_instruction else how(frames[name])

        if self.join == "tokens":
            return self.norm(torch.cat([read(name, part) for name, part in self.parts.items()], dim=1)) + self.kind
        if self.join == "sum":
            return torch.stack([read(name, part).sum(1, keepdim=True) for name, part in self.parts.items()]).sum(0)
        features = []
        for name, part in self.parts.items():
            assert isinstance(part, Part)
            features.append(read(name, part.feature) if part.feature_size else read(name, part).flatten(1))
        return torch.cat(features, dim=-1)[:, None]
