"""A causal transformer over long streams of steps, and the cache that lets it act one step at a time.

Blocks normalise first (pre-LN), positions are rotary, and each layer attends only to the last `reach` steps. This band makes the
ring cache exact: keys and values that left the window have no influence in training either. (If a transformer is trained without
the band and its window is cut later, the deeper layers' cached values still depend on steps that left it.) Rotary positions
depend only on distances, so the ring can turn for ever. Dropout applies to the blocks' outputs, never inside attention, which
would rule out the fast kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.base import Memory
from policies.dropout import Dropout
from policies.recompute import Recomputable

CHUNK = 64  # queries per attention call on a CPU, so that most of the masked keys are skipped
SLOWEST = 1000.0  # steps of the slowest rotation, so that positions hundreds of steps apart differ


class Block(Recomputable):
    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.dropout = Dropout(dropout)

    def project(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, T, d/heads] of x [B, T, d]; the first two rotated by `turn`."""
        width = x.shape[-1]
        turned, value = self.query_key_value(self.norm_attention(x)).split((2 * width, width), dim=-1)
        turned = rotated(
            turned.unflatten(-1, (2 * self.heads, -1)), turn
        )  # [B, T, 2*heads, d/heads]: both at once, half the work
        query, key = turned.transpose(1, 2).chunk(2, dim=1)
        return query, key, value.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))

    def forward(self, x: Tensor, turn: Tensor, bands: list[Band] | None) -> tuple[Tensor, Tensor, Tensor]:
        """The block's output, and its keys and values for a cache; `bands` is None if every step sees every other."""
        query, key, value = self.project(x, turn)
        if bands is None:
            return self.add(x, F.scaled_dot_product_attention(query, key, value)), key, value
        parts = [
            F.scaled_dot_product_attention(query[:, :, asks], key[:, :, seen], value[:, :, seen], attn_mask=mask)
            for asks, seen, mask in bands
        ]
        return self.add(x, torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]), key, value

    def step(self, x: Tensor, turn: Tensor, keys: Tensor, values: Tensor, row: Tensor, hidden: Tensor) -> Tensor:
        """One more step x [N, 1, d], written to rows `row` [N*heads] of the caches [N, heads, W, d/heads]."""
        query, key, value = self.project(x, turn)
        for cache, new in ((keys, key), (values, value)):
            cache.view(-1, cache.shape[-1]).index_copy_(0, row, new.reshape(-1, cache.shape[-1]))
        # Not PyTorch's fused attention: for a single query on a CPU it is several times slower than two matrix products.
        past, scale = keys.flatten(0, 1).transpose(1, 2), query.shape[-1] ** -0.5
        score = torch.baddbmm(hidden, query.flatten(0, 1), past, alpha=scale)  # [N*heads, 1, W]
        attended = torch.bmm(score.softmax(-1), values.flatten(0, 1))
        return self.add(x, attended.unflatten(0, (-1, self.heads)))


class Transformer(nn.Module):
    rate: Tensor

    def __init__(self, width: int, layers: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        exponent = -torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width
        self.register_buffer("rate", (SLOWEST**exponent).float(), persistent=False)  # [d/heads/2] radians a step
        self.blocks = nn.ModuleList(Block(width, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, reach: int | None, turn: Tensor | None = None) -> Tensor:
        """x [B, T, d]; each step sees itself and the `reach` - 1 before it, or (None) all steps see each other. `turn` is
        `self.turn(T)`, for callers that ask many times."""
        steps = x.shape[1]
        turn = self.turn(steps) if turn is None else turn
        bands = None if reach is None else banded(steps, reach, x.device)
        for block in self.blocks:
            x, _, _ = block(x, turn, bands)
        return self.norm(x)

    def turn(self, steps: int) -> Tensor:
        """By how much each of the positions 0 ... steps - 1 is rotated."""
        return rotation(torch.arange(steps, device=self.rate.device), self.rate)

    def start(self, lanes: int, capacity: int, device: torch.device) -> Memory:
        """An empty cache of the last `capacity` steps."""
        shape = (lanes, self.heads, capacity)
        names = [f"{kind}.{layer}" for layer in range(len(self.blocks)) for kind in ("keys", "values")]
        cache = {name: torch.zeros(*shape, self.head_width, device=device) for name in names}
        return {
            "empty": torch.full(shape, -torch.inf, device=device),
            **cache,
        }  # `empty` is added to scores: 0 for stored steps

    def prefill(self, x: Tensor, memory: Memory, lanes: Tensor) -> None:
        """Start the caches of `lanes` with the steps x [len(lanes), T, d]."""
        steps = x.shape[1]
        turn = self.turn(steps)
        bands = banded(steps, steps, x.device)
        memory["empty"][lanes] = torch.where(torch.arange(memory["empty"].shape[2], device=x.device) < steps, 0.0, -torch.inf)
        for layer, block in enumerate(self.blocks):
            x, memory[f"keys.{layer}"][lanes, :, :steps], memory[f"values.{layer}"][lanes, :, :steps] = block(x, turn, bands)

    def step(self, x: Tensor, memory: Memory, position: Tensor) -> Tensor:
        """The output of step x [N, d] after `position` [N] earlier ones; writes it into `memory`."""
        empty = memory["empty"]  # [N, heads, W]
        turn = rotation(position[:, None], self.rate)
        begins = torch.arange(0, empty.numel(), empty.shape[2], device=x.device).view(-1, self.heads)  # [N, heads]
        row = (begins + (position % empty.shape[2])[:, None]).flatten()
        empty.view(-1).index_fill_(0, row, 0.0)
        hidden = empty.flatten(0, 1)[:, None]
        x = x[:, None]
        for layer, block in enumerate(self.blocks):
            x = block.step(x, turn, memory[f"keys.{layer}"], memory[f"values.{layer}"], row, hidden)  # type: ignore[operator]
        return self.norm(x)[:, 0]


Band = tuple[slice, slice, Tensor]  # which queries, which keys, and what is added to their scores


def banded(steps: int, reach: int, device: torch.device) -> list[Band]:
    """Queries in chunks, each with the keys that any query of the chunk may see. On a GPU, one chunk: more kernels would take
    longer than the masked keys do."""
    bands, chunk = [], CHUNK if device.type == "cpu" else steps
    for begin in range(0, steps, chunk):
        end, least = min(begin + chunk, steps), max(0, begin - reach + 1)
        back = torch.arange(begin, end, device=device)[:, None] - torch.arange(least, end, device=device)
        mask = torch.zeros(back.shape, device=device).masked_fill((back < 0) | (back >= reach), -torch.inf)
        bands.append((slice(begin, end), slice(least, end), mask))
    return bands


def rotation(position: Tensor, rate: Tensor) -> Tensor:
    """Cosines and sines [2, ..., T, 1, d] by which each position turns; in float64 until the end, for precision at far ones."""
    kind = torch.float64 if position.device.type != "mps" else torch.float32  # which has no float64
    angle = position[..., None].to(kind) * rate
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)]).float().unsqueeze(-2)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """x [..., T, heads, width], rotated; its two halves are the coordinates of points."""
    a, b = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([b, a], dim=-1) * turn[1]
