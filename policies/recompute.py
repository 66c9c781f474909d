"""Parts of a network that may be computed twice to save memory (Chen et al. 2016, "gradient checkpointing")."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """With `recompute`, only its inputs are kept for the backward pass, which computes the rest again. It must compute the same
    both times: no random numbers but those of Dropout, and no statistics of batches."""

    recompute = False

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not self.recompute or not torch.is_grad_enabled():
            return super().__call__(*inputs, **named)
        return checkpoint(super().__call__, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def recompute_all(network: nn.Module) -> int:
    """Switch it on in all parts of a network; returns how many there are."""
    parts = [module for module in network.modules() if isinstance(module, Recomputable)]
    for part in parts:
        part.recompute = True
    return len(parts)
