"""Check that the columns of a dataset fit each other and its spaces. Otherwise a run could fail after hours."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.data.verify import Damage
from envs.spaces import Spaces

OBSERVATION = "observation."
BY_EPISODE = ("episode_ends", "history_ends", "episode_hashes")  # columns with one row per episode or history
BLOCK = 1 << 24  # bytes checked at a time


def refuse_unfit(columns: dict[str, np.ndarray], known: Spaces, steps: int) -> None:
    """Check names, lengths, shapes and types. This is cheap, so it is done whenever a dataset is opened."""
    required = {
        "action",
        "terminated",
        "truncated",
        "episode_ends",
        "episode_hashes",
        *(OBSERVATION + name for name in known.observation),
    }
    if missing := sorted(required - columns.keys()):
        raise Damage(f"there is no column {missing[0]}")
    rows = {name: len(column) for name, column in columns.items() if name not in BY_EPISODE}
    if set(rows.values()) != {steps}:
        raise Damage(f"columns of unequal length: {rows}, and {steps} steps are promised")
    expected: dict[str, tuple[tuple[int, ...], np.dtype | None]] = {
        OBSERVATION + name: (space.shape or (), space.dtype) for name, space in known.observation.items()
    }
    action = known.action.shape or (), known.action.dtype
    expected |= {"action": action, "executed_action": action}
    expected |= dict.fromkeys(("terminated", "truncated", "expert_drives"), ((), np.dtype(bool)))
    expected |= dict.fromkeys(("reward", "logp"), ((), np.dtype(np.float32)))
    expected |= dict.fromkeys(("episode_ends", "history_ends"), ((), np.dtype(np.int64)))
    expected["episode_hashes"] = (), np.dtype(np.uint64)
    for name, (shape, dtype) in expected.items():
        if name in columns and (columns[name].shape[1:], columns[name].dtype) != (shape, dtype):
            found = f"{columns[name].dtype}{list(columns[name].shape[1:])}"
            raise Damage(f"rows of {name} are {found}, and should be {dtype}{list(shape)}")


def refuse_wrong(columns: dict[str, np.ndarray], known: Spaces) -> None:
    """Check the values. This reads everything, so it is done once."""
    steps = len(columns["action"])
    ends = columns["episode_ends"]
    for name in ("episode_ends", "history_ends"):
        found = columns.get(name, ends)
        if not len(found) or found[0] < 1 or (np.diff(found) < 1).any() or found[-1] != steps:
            raise Damage(f"{name} does not divide {steps} steps")
    if len(columns["episode_hashes"]) != len(ends):
        raise Damage("episode_hashes and episode_ends have different lengths")
    if not np.isin(columns.get("history_ends", ends), ends).all():
        raise Damage("a history ends within an episode")
    for name, space in {**{OBSERVATION + n: s for n, s in known.observation.items()}, "action": known.action}.items():
        for column in [name, "executed_action"] if name == "action" else [name]:
            if column in columns and not _inside(columns[column], space):
                raise Damage(f"{column} holds values outside of its space")
    if "reward" in columns and not np.isfinite(columns["reward"]).all():
        raise Damage("a reward is not finite")


def _inside(column: np.ndarray, space: spaces.Space) -> bool:
    """Whether all values are allowed: integers within the bounds, floats finite (rounding may cross a bound)."""
    if isinstance(space, spaces.Discrete):
        return bool(column.min() >= space.start and column.max() < space.start + space.n)
    assert isinstance(space, spaces.Box)
    counts = np.issubdtype(column.dtype, np.integer)
    limits = np.iinfo(column.dtype) if counts else None
    if limits and (space.low == limits.min).all() and (space.high == limits.max).all():
        return True  # every value is allowed, as in images
    rows = max(1, BLOCK // max(1, column[:1].nbytes))
    for start in range(0, len(column), rows):
        block = column[start : start + rows]
        if not (((block >= space.low) & (block <= space.high)).all() if counts else np.isfinite(block).all()):
            return False
    return True
