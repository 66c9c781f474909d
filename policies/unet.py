"""A conditional 1-D U-Net over action chunks (Janner et al. 2022; Chi et al. 2023): convolutions along the chunk's steps, and a
condition vector that scales and shifts every block's features (FiLM, Perez et al. 2018)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.recompute import Recomputable

GROUPS = 8  # groups of channels in a GroupNorm
FROM_CHANNELS = 128  # from so many, a product of matrices is faster than a convolution


def norm(channels: int, normalise: bool) -> nn.Module:
    return nn.GroupNorm(GROUPS, channels) if normalise else nn.Identity()


class Convolution(nn.Conv1d):
    """On a CPU a product of matrices, as PyTorch's convolution takes up to three times as long for many channels of few steps."""

    def forward(self, x: Tensor) -> Tensor:  # [B, inward, H] -> [B, outward, H / stride]
        if x.device.type != "cpu" or self.in_channels < FROM_CHANNELS:
            return super().forward(x)
        padding = int(self.padding[0])
        windows = F.pad(x, (padding, padding)).unfold(2, self.kernel_size[0], self.stride[0])  # [B, inward, H / stride, kernel]
        return F.linear(windows.transpose(1, 2).flatten(2), self.weight.flatten(1), self.bias).transpose(1, 2)


class Block(nn.Module):
    """Two convolutions; between them the condition scales and shifts each channel."""

    def __init__(self, inward: int, outward: int, condition: int, kernel: int, normalise: bool):
        super().__init__()
        self.first = Convolution(inward, outward, kernel, padding=kernel // 2)
        self.second = Convolution(outward, outward, kernel, padding=kernel // 2)
        self.norm_first, self.norm_second = (norm(outward, normalise) for _ in range(2))
        self.film = nn.Linear(condition, 2 * outward)
        self.shortcut = Convolution(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # [B, inward, H], [B, condition] -> [B, outward, H]
        scale, shift = self.film(F.mish(condition))[..., None].chunk(2, dim=1)  # [B, outward, 1] each
        y = F.mish(self.norm_first(self.first(x))) * (1 + scale) + shift
        y = F.mish(self.norm_second(self.second(y)))
        return y + self.shortcut(x)


class Stage(Recomputable):
    """Two blocks at one length of the chunk."""

    def __init__(self, inward: int, outward: int, condition: int, kernel: int, normalise: bool):
        super().__init__()
        self.first = Block(inward, outward, condition, kernel, normalise)
        self.second = Block(outward, outward, condition, kernel, normalise)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.second(self.first(x, condition), condition)


class UNet1d(nn.Module):
    """[B, H, A] and a condition [B, condition] -> [B, H, A]. Each stage but the last halves the number of steps.

    On the way back, each stage but the first joins the features of the way down that have its length. `join_first`: it joins them
    before the chunk grows (Chi et al. 2023), so its blocks run at half the length, on features of twice the channels."""

    def __init__(
        self,
        actions: int,
        channels: tuple[int, ...],
        condition: int,
        kernel: int,
        normalise: bool = True,
        join_first: bool = False,
    ):
        super().__init__()
        self.join_first = join_first
        shape = (condition, kernel, normalise)
        climbs = [*itertools.pairwise(channels)][::-1]  # (to, from), beginning with the shortest chunk
        self.down = nn.ModuleList(Stage(a, b, *shape) for a, b in itertools.pairwise((actions, *channels)))
        self.shrink = nn.ModuleList(Convolution(width, width, 3, stride=2, padding=1) for width in channels[:-1])
        self.middle = Stage(channels[-1], channels[-1], *shape)
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(width if join_first else wide, width, 4, stride=2, padding=1) for width, wide in climbs
        )
        self.up = nn.ModuleList(Stage(2 * (wide if join_first else width), width, *shape) for width, wide in climbs)
        self.last = Convolution(channels[0], channels[0], kernel, padding=kernel // 2)
        self.norm = norm(channels[0], normalise)
        self.head = Convolution(channels[0], actions, 1)
        self.multiple = 2 ** len(self.shrink)  # chunks are padded to a multiple of this

    def forward(self, chunk: Tensor, condition: Tensor) -> Tensor:
        horizon = chunk.shape[1]
        x = F.pad(chunk.transpose(1, 2), (0, -horizon % self.multiple))  # [B, A, H']
        skips = []
        for stage, shrink in zip(self.down, [*self.shrink, nn.Identity()], strict=True):
            x = stage(x, condition)
            skips.append(x)
            x = shrink(x)
        x = self.middle(x, condition)
        if self.join_first:
            for grow, stage in zip(self.grow, self.up, strict=True):
                x = grow(stage(torch.cat([x, skips.pop()], dim=1), condition))
        else:
            skips.pop()  # the last stage does not shrink, so no stage grows back to its length
            for grow, stage in zip(self.grow, self.up, strict=True):
                x = stage(torch.cat([grow(x), skips.pop()], dim=1), condition)
        x = self.head(F.mish(self.norm(self.last(x))))
        return x[..., :horizon].transpose(1, 2)
