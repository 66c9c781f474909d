"""Random numbers that are a pure function of (seed, step, row): no generator state to save, lose or split.

A row draws the same numbers for any division of a batch over ranks or lanes, and in a resumed run. Each number is a counter
hashed by SplitMix64's finaliser (Steele et al. 2014), in 64-bit integers that wrap.
"""

from __future__ import annotations

import copy
import math
from enum import IntEnum

import torch
from torch import Tensor

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


GOLDEN = _signed(_GOLDEN)  # what counters are multiplied by, as a signed integer


def finalised(x: Tensor) -> Tensor:
    """SplitMix64's output function on int64 seen as 64 bits; `>>` copies the sign, so each shift masks it off."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(_MIX[0])
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(_MIX[1])
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def fold(*keys: int) -> int:
    """One 63-bit seed from several numbers, for generators that take a single seed."""
    state = 0
    for key in keys:
        state = (state + _GOLDEN + (key & _WORD)) & _WORD
        state = ((state ^ (state >> 30)) * _MIX[0]) & _WORD
        state = ((state ^ (state >> 27)) * _MIX[1]) & _WORD
        state ^= state >> 31
    return state >> 1


def folded(seed: int) -> int:
    """A seed as Noise uses it, in a tensor of 64-bit integers."""
    return _signed(fold(seed))


class Purpose(IntEnum):
    """What random numbers are used for. It is folded into the seed, so that two uses of one seed never share a number."""

    TRAINING = 1
    DROPOUT = 2
    VALIDATION = 3
    ACTING = 4
    RANDOM_PLAY = 5
    HEALTH = 6
    SHARED = 7
    CORRECTION = 8


def shared_uniform(seed: int, step: int) -> float:
    """The number of `Noise.shared_uniform`, without a Noise."""
    return (fold(seed, step, Purpose.SHARED) >> 39) / (1 << 24)


class Noise:
    """Draws for rows that share a seed. `step` is one number, or one per row. Every call draws new numbers."""

    def __init__(self, seed: int | Tensor, step: int | Tensor, rows: Tensor, number: int | None = None):
        """`number`: the step as a number, if `step` is a tensor shared by all rows (so that a captured step can be replayed).
        `seed`: where vmap stacks runs, a tensor that holds `folded(seed)`; such runs have no `shared_uniform`."""
        # `full`, because a number that is copied to a GPU would be a copy that no graph can capture.
        start = step.to(torch.int64) if isinstance(step, Tensor) else torch.full((), step, dtype=torch.int64, device=rows.device)
        key = finalised(start + (folded(seed) if isinstance(seed, int) else seed))
        self.rows = finalised(rows.to(torch.int64) * GOLDEN + key)  # [B] one stream per row
        # A tensor: torch.compile would fold a number and the counter into an index expression, and overflow.
        self.stride = torch.full((), GOLDEN, device=rows.device)
        self.drawn = 0
        self.key = seed, step if number is None else number

    def __getitem__(self, lanes: Tensor) -> Noise:
        """The streams of some rows. They draw the same numbers as the full Noise, so use only one of the two."""
        part = copy.copy(self)
        part.rows = self.rows[lanes]
        return part

    @torch._disable_dynamo  # torch.compiler.disable, but it imports torch._dynamo (a second of CPU) only when it is called
    def shared_uniform(self) -> float:
        """One number in [0, 1) for all rows of a step, the same for any split of them. It does not advance the rows' streams."""
        seed, step = self.key
        assert isinstance(seed, int) and isinstance(step, int), "rows with steps of their own have nothing in common"
        return shared_uniform(seed, step)

    def uniform(self, *shape: int) -> Tensor:
        """[B, *shape] in [0, 1), float32."""
        size = math.prod(shape)
        counter = torch.arange(self.drawn + 1, self.drawn + size + 1, device=self.rows.device)
        self.drawn += size
        bits = finalised(self.rows[:, None] + counter * self.stride)  # [B, size]
        # The top 24 bits: as many as a float32 holds exactly.
        unit = ((bits >> 40) & ((1 << 24) - 1)).to(torch.float32) * (1.0 / (1 << 24))
        return unit.view(len(self.rows), *shape)

    def normal(self, *shape: int) -> Tensor:
        """[B, *shape], standard normal, float32 (Box-Muller)."""
        radius = (-2.0 * torch.log1p(-self.uniform(*shape))).sqrt()
        return radius * torch.cos(2.0 * math.pi * self.uniform(*shape))

    def gumbel(self, *shape: int) -> Tensor:
        """[B, *shape], standard Gumbel. In float64: float32 cuts off its far tail, which silently lowers the sampling temperature
        (Zheng et al. 2024)."""
        uniform = self.uniform(*shape).clamp(min=0.5 / (1 << 24))  # keeps both logarithms finite
        if uniform.device.type != "mps":  # mps has no float64
            uniform = uniform.double()
        return -torch.log(-torch.log(uniform))

    def categorical(self, logits: Tensor) -> Tensor:
        """One index [B, *shape] sampled from each row of `logits` [B, *shape, V], by the Gumbel-max trick."""
        return (logits + self.gumbel(*logits.shape[1:])).argmax(-1)
