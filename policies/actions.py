"""Views of an action space. Today one: a discrete action as a token with a categorical head."""

from __future__ import annotations

from gymnasium import spaces
from torch import Tensor

from policies.noise import Noise


def only_discrete(name: str, space: spaces.Space) -> str | None:
    """The sentence of a policy that chooses among tokens, if this space has none."""
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return None
    return f"policy={name} needs discrete actions counted from 0, but this environment acts in {space}"


def choose(logits: Tensor, noise: Noise, greedy: bool) -> Tensor:
    """One token [B, ...] out of logits [B, ..., V]."""
    return logits.argmax(-1) if greedy else noise.categorical(logits)
