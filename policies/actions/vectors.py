"""Actions as vectors, for regression and Gaussian diffusion."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from envs.data.statistics import Statistics

LOSSES = ("l1", "huber", "mse")


def refuse(policy: str, space: spaces.Space) -> str | None:
    """The sentence for an action space that has no views."""
    if isinstance(space, spaces.Discrete):
        return None
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1:
        return None
    return f"policy={policy} needs discrete actions or a one-dimensional Box of floats, but this environment acts in {space}"


def elementwise(name: str, prediction: Tensor, target: Tensor) -> Tensor:
    match name:
        case "l1":
            return (prediction - target).abs()
        case "huber":
            return F.smooth_l1_loss(prediction, target, reduction="none")
        case "mse":
            return (prediction - target).square()
    raise AssertionError(name)


class Vectors(nn.Module):
    """An action as `size` numbers, in [-1, 1] over the training data, with mean 0. Discrete: a one-hot vector of 1 and -1."""

    center: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Space):
        super().__init__()
        self.discrete = isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.Discrete):
            self.size, self.first = int(space.n), int(space.start)
            return
        assert isinstance(space, spaces.Box)
        self.size = int(np.prod(space.shape))
        self.register_buffer("center", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))
        for name, bound in (("low", space.low), ("high", space.high)):
            self.register_buffer(name, torch.from_numpy(bound.astype(np.float32)), persistent=False)

    def fit(self, statistics: Statistics) -> None:
        if self.discrete:
            return
        mean, low, high = (
            torch.from_numpy(x).float() for x in (statistics.action.mean, statistics.action.low, statistics.action.high)
        )
        self.center.copy_(mean)
        self.scale.copy_(torch.maximum(high - mean, mean - low).clamp(min=1e-6))

    def encode(self, action: Tensor) -> Tensor:
        """[..., size] of actions [..., *A]."""
        if self.discrete:
            token = (action - self.first).clamp(min=0)
            # Not F.one_hot, which asks the values of a CPU's tensor.
            return (token[..., None] == torch.arange(self.size, device=token.device)).float() * 2 - 1
        return (action - self.center) / self.scale

    def decode(self, vector: Tensor) -> Tensor:
        """Actions [..., *A] inside the space: the largest number is the discrete action."""
        if self.discrete:
            return vector.argmax(-1) + self.first
        return (vector * self.scale + self.center).clamp(self.low, self.high)
