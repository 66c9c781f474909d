"""The contract of an encoder of one modality."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from envs.data.statistics import Moments
from policies.encoders.config import Config


class Part(nn.Module):
    """Constructed as `cls(config, space, width)`; the forward pass maps a modality [B, ...] to tokens [B, tokens, width]. A part
    with `film` takes the instruction's token [B, width] as a second argument, in `feature` too."""

    tokens: int
    feature_size: int = 0  # length of `feature`, if it differs from the tokens; 0: the tokens are the features

    @classmethod
    def accepts(cls, config: Config, space: spaces.Space) -> str | None:
        """A sentence if this modality cannot be read with this configuration, else None."""
        return None

    def __init__(self, config: Config, space: Any, width: int):
        super().__init__()
        self.tokens = 1

    def fit(self, moments: Moments | None) -> None:
        """Store the needed statistics of the training data in buffers. Called once, before training."""

    def first_mark(self, width: int) -> Tensor:
        """[tokens, width]: what the learned embedding that marks each token starts from."""
        return torch.zeros(self.tokens, width)

    def feature(self, modality: Tensor) -> Tensor:
        """[B, feature_size], before any projection to the tokens' width."""
        raise NotImplementedError("feature(modality) -> [B, feature_size]")


def shapes_are_fixed(x: Tensor) -> bool:
    """Whether torch.compile or torch.vmap is at work."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(x)
