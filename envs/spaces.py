"""Observation and action spaces, their JSON form (stored with data and weights), and random actions in any of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Spaces:
    """A policy's observation space, with one entry per modality (`grid`, `direction`, `mission`, `image`, `state`), and its
    action space."""

    observation: spaces.Dict
    action: spaces.Space

    def to_json(self) -> dict[str, Any]:
        return {
            "observation": {name: _to_json(space) for name, space in self.observation.items()},
            "action": _to_json(self.action),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Spaces:
        observation = spaces.Dict({name: _from_json(space) for name, space in record["observation"].items()})
        return cls(observation, _from_json(record["action"]))


def random_actions(space: spaces.Space, uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers in [0, 1) [N, *A] into actions [N, *A] with the distribution of Gymnasium's `sample`: uniform where a
    coordinate has two bounds, exponential where it has one, normal where it has none."""
    if isinstance(space, spaces.Discrete):
        return (uniform * np.float32(space.n)).astype(np.int64) + space.start
    assert isinstance(space, spaces.Box), f"no random actions in a {type(space).__name__}"
    below, above = space.bounded_below, space.bounded_above
    low, high = np.where(below, space.low, 0), np.where(above, space.high, 0)
    inner = np.maximum(uniform, np.float32(2**-25))  # keeps the logarithm and the quantile finite
    waiting = -np.log(inner)
    action = np.where(below & above, low + uniform * (high - low), np.where(below, low + waiting, high - waiting))
    if (free := ~(below | above)).any():
        action[:, free] = np.vectorize(NormalDist().inv_cdf, otypes=[float])(inner[:, free])
    return action.astype(space.dtype)


def _to_json(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"type": "discrete", "n": int(space.n)} | ({"start": int(space.start)} if space.start else {})
    if isinstance(space, spaces.Box):
        shape, dtype = list(space.shape), str(space.dtype)
        bounds = {}
        for name, bound in (("low", space.low), ("high", space.high)):
            first = bound.flat[0].item()
            bounds[name] = _finite(first) if (bound == first).all() else _finite(bound.tolist())
        return {"type": "box", "shape": shape, "dtype": dtype, **bounds}
    raise TypeError(f"a space of type {type(space).__name__} has no JSON form; use Box or Discrete")


def _finite(bound: Any) -> Any:
    """JSON has no infinity. It is stored as a string, which NumPy reads back as the number."""
    if isinstance(bound, list):
        return [_finite(part) for part in bound]
    return bound if math.isfinite(bound) else str(bound)


def _from_json(record: dict[str, Any]) -> spaces.Space:
    if record["type"] == "discrete":
        return spaces.Discrete(record["n"], start=record.get("start", 0))
    dtype = np.dtype(record["dtype"])
    low, high = (np.broadcast_to(np.asarray(record[name], dtype), record["shape"]) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)
