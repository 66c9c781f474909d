"""Map any observation and action spaces to ours: named modalities that the encoders know, and one Discrete or flat Box action.

A Dict's entries keep their names; anything else is named after its kind: `image`, `mission` (text) or `state` (other numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from conf.errors import BadRequest
from envs.spaces import Spaces
from envs.text import VOCABULARY, tokens

MOST_ACTIONS = 4096  # most combinations of a MultiDiscrete action, which become one Discrete action
MOST_WORDS = 64  # of a text


@dataclass(frozen=True)
class Modality:
    name: str
    space: spaces.Space
    path: tuple[str | int, ...]  # the keys that lead to it in a nested observation
    read: Callable[[Any], np.ndarray]  # converts a batch of values, [T, ...] or a list of texts

    def of(self, observation: Any) -> Any:
        for key in self.path:
            observation = observation[key]
        return observation


class Adapter:
    """Converts observations, in batches or one by one, and converts actions both ways."""

    def __init__(self, observation: spaces.Space, action: spaces.Space):
        self.modalities = [*_modalities(observation, "", ())]
        self.action = action
        seen: dict[str, spaces.Space] = {modality.name: modality.space for modality in self.modalities}
        self.spaces = Spaces(spaces.Dict(seen), _action_space(action))

    def observations(self, batch: Any) -> dict[str, np.ndarray]:
        """Convert nested observations with T values in each leaf to {modality: [T, ...]}."""
        return {modality.name: modality.read(modality.of(batch)) for modality in self.modalities}

    def observation(self, one: Any) -> dict[str, np.ndarray]:
        return {modality.name: modality.read([modality.of(one)])[0] for modality in self.modalities}

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """Convert the environment's actions [T, ...] to ours."""
        actions = np.asarray(actions)
        if isinstance(self.action, spaces.Discrete):
            return actions.astype(np.int64)
        if isinstance(self.action, spaces.Box):
            return actions.reshape(len(actions), -1).astype(np.float32)
        sizes, first = _sizes(self.action)
        return np.ravel_multi_index(tuple((actions.reshape(len(actions), -1) - first).T), sizes)

    def decode(self, action: Any) -> Any:
        """Convert one of our actions to the environment's."""
        if isinstance(self.action, spaces.Discrete):
            return int(action)
        if isinstance(self.action, spaces.Box):
            return np.asarray(action, self.action.dtype).reshape(self.action.shape)
        sizes, first = _sizes(self.action)
        parts = np.array(np.unravel_index(int(action), sizes)) + first
        return parts.astype(self.action.dtype).reshape(self.action.shape or ())

    def shapes(self) -> dict[str, str]:
        """The kind and shape of every modality and of the action. Imported data must have the same."""
        named = {**self.spaces.observation.spaces, "action": self.spaces.action}
        return {name: f"{type(space).__name__} {getattr(space, 'n', space.shape)}" for name, space in named.items()}


class Native(Adapter):
    """For data that already have our modalities. A text may stand for its word tokens."""

    def __init__(self, own: Spaces):
        self.spaces, self.action = own, own.action
        self.modalities = [Modality(name, space, (name,), partial(_as_stored, space)) for name, space in own.observation.items()]

    def encode(self, actions: np.ndarray) -> np.ndarray:
        return np.asarray(actions, self.action.dtype)

    def decode(self, action: Any) -> Any:
        return action


def _as_stored(space: spaces.Space, batch: Any) -> np.ndarray:
    if len(batch) and isinstance(batch[0], str):
        return np.stack([tokens(text, int(np.prod(space.shape or ()))) for text in batch])
    return np.asarray(batch, space.dtype)


def _modalities(space: spaces.Space, name: str, path: tuple[str | int, ...]) -> Iterator[Modality]:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        items: Any = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from _modalities(part, f"{name}_{key}".strip("_").replace(".", "_"), (*path, key))
    elif isinstance(space, spaces.Discrete):
        first = int(space.start)
        yield Modality(name or "state", spaces.Discrete(space.n), path, lambda batch: np.asarray(batch, np.int64) - first)
    elif isinstance(space, spaces.Text):
        words = min(space.max_length, MOST_WORDS)
        box = spaces.Box(0, VOCABULARY - 1, (words,), np.uint8)
        yield Modality(name or "mission", box, path, lambda batch: np.stack([tokens(text, words) for text in batch]))
    elif isinstance(space, spaces.Box) and _is_picture(space):
        height, width = space.shape[:2]
        box = spaces.Box(0, 255, (height, width, 3), np.uint8)

        def picture(batch: Any) -> np.ndarray:
            pixels = np.asarray(batch, np.uint8).reshape(len(batch), height, width, -1)
            return np.broadcast_to(pixels, (len(batch), height, width, 3)) if pixels.shape[-1] == 1 else pixels

        yield Modality(name or "image", box, path, picture)
    elif isinstance(space, (spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)):
        size = int(np.prod(space.shape or (1,)))
        numbers = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        yield Modality(name or "state", numbers, path, lambda batch: np.asarray(batch).reshape(len(batch), -1).astype(np.float32))
    else:
        raise BadRequest(f"an observation of {type(space).__name__} has no place here; wrap the environment so that it has a Box")


def _is_picture(space: spaces.Box) -> bool:
    shape = space.shape
    return (
        space.dtype == np.uint8
        and bool((space.high == 255).all())
        and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
    )


def _action_space(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(space.n, start=space.start)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (bound.flatten().astype(np.float32) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=np.float32)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        count = int(np.prod(_sizes(space)[0], dtype=float))
        if count <= MOST_ACTIONS:
            return spaces.Discrete(count)
        raise BadRequest(f"the action space {space} has {count:,} combinations, more than {MOST_ACTIONS}")
    raise BadRequest(f"actions in {space} are not supported: use Discrete, MultiDiscrete, MultiBinary or a Box of floats")


def _sizes(space: spaces.Space) -> tuple[tuple[int, ...], np.ndarray]:
    """The number of values of each dimension of an action, and its smallest value."""
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return (2,) * size, np.zeros(size, np.int64)
    assert isinstance(space, spaces.MultiDiscrete)
    return tuple(int(n) for n in space.nvec.flatten()), np.asarray(space.start, np.int64).flatten()
