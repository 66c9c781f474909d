"""Network parts that several policies share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.dropout import Dropout
from policies.recompute import Recomputable

MOST_ROWS = 512  # of a table whose gradient is a matrix product


def sinusoidal_embedding(time: Tensor, width: int) -> Tensor:
    """`time` in [0, 1] -> [B, width]: sines and cosines at geometric frequencies, as a transformer's positions."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)  # [half]
    angle = 1000.0 * time[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Table(nn.Embedding):
    """An embedding with few rows, each of which is read often. On a GPU its gradient is a matrix product: the kernels that add up
    each row's gradients in a fixed order sort the indices first, which can take longer than the rest of the step."""

    def forward(self, index: Tensor) -> Tensor:
        if not index.is_cuda or self.num_embeddings > MOST_ROWS:
            return super().forward(index)
        with torch.autocast("cuda", enabled=False):  # a row is read as it is
            return rows_by_product(self.weight, index)


def rows_by_product(weight: Tensor, index: Tensor) -> Tensor:
    """weight[index], as a product with a matrix of zeros and ones."""
    chosen = index[..., None] == torch.arange(len(weight), device=index.device)
    return chosen.to(weight.dtype) @ weight


class Attention(nn.Module):
    """Multi-head attention of `x` to itself or to a `context`, whose keys and values may be computed once and reused."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, width/heads]

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self.split(key), self.split(value)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """`mask` [B, 1, 1, S]: which tokens of the context exist; None: all."""
        y = F.scaled_dot_product_attention(self.split(self.query(x)), *keys_values, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class DiTBlock(Recomputable):
    """A transformer block steered by a condition vector (adaLN-Zero, Peebles & Xie 2022), with cross-attention to context.

    The modulation and the cross-attention's output start at zero, so each block starts as the identity.
    """

    def __init__(self, width: int, heads: int, feedforward: int, cross_attention: bool = True, dropout: float = 0.0):
        super().__init__()
        self.norm_self = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, heads)
        if cross_attention:
            self.norm_cross = nn.LayerNorm(width)
            self.cross_attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.dropout = Dropout(dropout)  # on the block's output; inside attention it would rule out the fast kernel
        for layer in (self.modulation, *([self.cross_attention.out] if cross_attention else [])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The context's [B,S,d] keys and values for `forward`, computed once for any number of passes."""
        return self.cross_attention.keys_values(context)

    def forward(self, x: Tensor, condition: Tensor, context: tuple[Tensor, Tensor] | None, mask: Tensor | None = None) -> Tensor:
        """x [B,T,d], condition [B,d]; `context` are this block's keys and values, or None without cross-attention. If the context
        has B/R rows, each serves R rows of x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        y = self.norm_self(x) * (1 + scale1) + shift1
        x = x + self.dropout(gate1 * self.self_attention(y, self.self_attention.keys_values(y)))
        if context is not None:
            queries = self.norm_cross(x).reshape(len(context[0]), -1, x.shape[-1])  # [B/R, R*T, d]
            x = x + self.dropout(self.cross_attention(queries, context, mask).view_as(x))
        y = self.norm_mlp(x) * (1 + scale2) + shift2
        return x + self.dropout(gate2 * self.mlp(y))


def mlp(widths: Sequence[int], activation: type[nn.Module], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these widths. The last one starts at zero, so that the first loss is exactly that of chance."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths[:-1]):
        # As one layer, so that a network has the same names with and without dropout.
        layers += [nn.Linear(a, b), nn.Sequential(activation(), Dropout(dropout)) if dropout else activation()]
    last = nn.Linear(widths[-2], widths[-1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
