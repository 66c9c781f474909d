"""An image: bytes [B, height, width, 3] are moved to the device and converted to floats there."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from conf.errors import BadRequest
from envs.data.statistics import Moments
from policies.encoders.backbones import BACKBONES
from policies.encoders.config import Config
from policies.encoders.part import Part
from policies.nets import mlp, sinusoidal_embedding
from policies.noise import Noise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; every backbone's input is normalised with them


def size(config: Config, space: spaces.Space) -> tuple[int, int]:
    """Height and width of the backbone's input."""
    height, width, _ = space.shape or (0, 0, 0)
    return config.image_size or height, config.image_size or width


class Image(Part):
    mean: Tensor
    std: Tensor

    @classmethod
    def accepts(cls, config: Config, space: spaces.Space) -> str | None:
        return BACKBONES[config.image].accepts(config, size(config, space))

    def __init__(self, config: Config, space: spaces.Box, width: int):
        super().__init__(config, space, width)
        self.config, self.sides = config, tuple(space.shape[:2])
        self.backbone = BACKBONES[config.image](config, size(config, space))
        rows, columns = self.backbone.cells or (1, 1)
        self.tokens = rows * columns
        self.feature_size = self.tokens * self.backbone.features
        # An MLP, because word order decides: the same colour is a cube's or a goal's. It starts at zero: the image as it is.
        self.film = mlp([width, 2 * width, self.backbone.film], nn.GELU) if config.image_film else None
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(value).view(3, 1, 1), persistent=False)
        if config.join != "concat":
            self.project = nn.Linear(self.backbone.features, width)

    def fit(self, moments: Moments | None) -> None:
        if self.config.image_pretrained:
            self.backbone.load_pretrained()

    def first_mark(self, width: int) -> Tensor:
        """Of a cell: sines and cosines of its row, then of its column."""
        if self.backbone.cells is None:
            return super().first_mark(width)
        # As the embedding counts in thousands:
        places = torch.cartesian_prod(*(torch.arange(side) / 1000 for side in self.backbone.cells))  # [cells, 2]
        waves = torch.cat([sinusoidal_embedding(place, width // 2) for place in places.unbind(1)], 1)
        return F.pad(waves, (0, width - waves.shape[1]))

    def shifted(self, image: Tensor, noise: Noise) -> Tensor:
        """Each row's images [B, To, h, w, 3] moved by up to `image_shift` pixels; the border is repeated."""
        most = self.config.image_shift
        offset = (noise.uniform(2) * (2 * most + 1)).long() - most  # [B, 2]
        rows, columns = (
            (torch.arange(side, device=image.device) + offset[:, axis, None]).clamp(0, side - 1)  # [B, side]
            for axis, side in enumerate(image.shape[2:4])
        )
        batch = torch.arange(len(image), device=image.device)[:, None, None]
        return image[batch, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2, 4)

    def freeze(self) -> None:
        """Keep the backbone as it is, so that its features can stand in for the images."""
        self.backbone.requires_grad_(False)

    def feature(self, image: Tensor, instruction: Tensor | None = None) -> Tensor:
        """Of images [B, h, w, 3] uint8, or of the features [B, feature_size] of a frozen backbone; `instruction` [B, width], with
        `film`."""
        if image.is_floating_point():
            return image
        if image.shape[1:3] != self.sides:  # a spatial average would take any size, and be wrong
            (height, width), there = self.sides, "x".join(map(str, image.shape[1:3]))
            raise BadRequest(
                f"this policy learned from images of {height}x{width} pixels and was given {there}: resize them first"
            )
        x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std  # stays channels-last in memory
        if self.config.image_size and x.shape[-2:] != (self.config.image_size,) * 2:
            x = F.interpolate(x, (self.config.image_size,) * 2, mode="bilinear", antialias=True)
        narrow = self.config.image_bf16 and self.training
        with torch.autocast(x.device.type, torch.bfloat16) if narrow else nullcontext():
            asked = () if self.film is None or instruction is None else (self.film(instruction),)
            features = self.backbone(x, *asked)
        return features.float().flatten(1)

    def forward(self, image: Tensor, instruction: Tensor | None = None) -> Tensor:
        features = self.feature(image, instruction).reshape(-1, self.backbone.features)  # [B * tokens, features]
        return self.project(features).unflatten(0, (-1, self.tokens))
