"""Dropout that draws as `Noise` does: which numbers are dropped is a function of (seed, step, first row, place in the network).

PyTorch's own draws from a generator with a state, which stacked runs (trainers/loop/stacked.py) would have to share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.noise import GOLDEN, finalised

PER_WORD = 4  # draws from 64 random bits: a probability is exact to 2^-16


class Dropout(nn.Module):
    """`key` is set before each step, to the same number in all of a network's; `number` tells them apart."""

    key: Tensor  # [] int64
    stride: Tensor
    rate: Tensor  # [] the probability to be dropped, in a tensor because stacked runs may differ in it

    def __init__(self, rate: float):
        super().__init__()
        self.probability, self.number = rate, 0
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("rate", torch.tensor(rate), persistent=False)
        self.register_buffer("stride", torch.tensor(GOLDEN), persistent=False)  # in a tensor, as that of Noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        stream = finalised(self.key + (self.number + 1) * self.stride)
        counter = torch.arange(1, x.numel() // PER_WORD + 2, device=x.device)
        draws = finalised(stream + counter * self.stride).view(torch.int16)[: x.numel()].view(x.shape)
        kept = draws >= self.rate * (1 << 16) - (1 << 15)
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.probability}"


def dropouts(network: nn.Module) -> dict[str, Dropout]:
    """All of a network's by name, numbered."""
    found = {name: module for name, module in network.named_modules() if isinstance(module, Dropout)}
    for number, module in enumerate(found.values()):
        module.number = number
    return found
