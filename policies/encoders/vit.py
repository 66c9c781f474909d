"""ViT-B/16 (Dosovitskiy et al. 2021) without its classifier, in the names of timm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.recompute import Recomputable

PATCH, WIDTH, LAYERS, HEADS = 16, 768, 12, 12


class PatchEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, patches, d]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, T, d/heads]
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(Recomputable):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH, eps=1e-6), SelfAttention()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-6), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, size: tuple[int, int], pooled: bool):
        super().__init__()
        self.pooled = pooled
        self.grid = (size[0] // PATCH, size[1] // PATCH)
        self.patch_embed = PatchEmbedding()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.grid[0] * self.grid[1], WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, h, w]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0] if self.pooled else x[:, 1:]  # the class token [B, d], or those of the patches [B, patches, d]


def resized(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positional embeddings [1, 1 + side * side, d] of a square of patches, interpolated to another grid."""
    side = int((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    square = F.interpolate(square, grid, mode="bicubic", antialias=True)
    return torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)
