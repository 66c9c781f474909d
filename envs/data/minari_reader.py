"""Read the episodes of a Minari dataset, some hundred at a time.

Arrays of numbers are read straight from its HDF5 file. Minari itself takes three times as long for short episodes, because it
opens every array by way of several objects and decodes the infos, which are not imported. What is not only numbers (texts,
images, Arrow files) is read by Minari.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

AT_ONCE = 500  # episodes; HDF5 gives back the memory of what it has read only when the file is closed
FLAGS = ("rewards", "terminations", "truncations")


def read_episodes(storage: Any, chosen: Sequence[int]) -> Iterator[dict[str, Any]]:
    """`observations` (nested as in the space; [T+1, ...] in each leaf), `actions`, `rewards`, `terminations`, `truncations` and
    `id` of these episodes."""
    file = Path(storage.data_path) / "main_data.hdf5"
    numbers = file.is_file() and _is_numbers(storage.observation_space) and _is_numbers(storage.action_space)
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        yield from _read_numbers(file, storage, some) if numbers else storage.get_episodes(some)


def _is_numbers(space: spaces.Space) -> bool:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return all(_is_numbers(part) for _, part in _parts(space))
    if isinstance(space, spaces.Box):
        return space.dtype != np.uint8  # may be an image, which Minari may have compressed
    return isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[str | int, spaces.Space]]:
    return list(space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces))


def _read_numbers(path: Path, storage: Any, chosen: Sequence[int]) -> Iterator[dict[str, Any]]:
    import h5py

    paths: dict[str, Any] = {name: name.encode() for name in FLAGS}
    paths |= {
        "observations": _paths(storage.observation_space, "observations"),
        "actions": _paths(storage.action_space, "actions"),
    }
    types: dict[
        bytes, tuple[Any, np.dtype]
    ] = {}  # of the arrays seen last: in the file, and in NumPy, which takes long to ask for

    def read(group: Any, path: Any) -> Any:
        if isinstance(path, dict):
            return {key: read(group, below) for key, below in path.items()}
        array = h5py.h5d.open(group, path)
        stored = array.get_type()
        if path not in types or not types[path][0].equal(stored):
            types[path] = stored, array.dtype
        values = np.empty(array.shape, types[path][1])
        array.read(h5py.h5s.ALL, h5py.h5s.ALL, values, stored)
        return values

    with h5py.File(path, "r") as file:
        for episode in chosen:
            group = h5py.h5g.open(file.id, f"episode_{episode}".encode())
            yield {"id": episode, **{name: read(group, path) for name, path in paths.items()}}


def _paths(space: spaces.Space, path: str) -> Any:
    """The path of each array within an episode, nested as the space is."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return path.encode()
    names = {key: key if isinstance(space, spaces.Dict) else f"_index_{key}" for key, _ in _parts(space)}
    return {key: _paths(part, f"{path}/{names[key]}") for key, part in _parts(space)}
