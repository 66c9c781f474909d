"""Episodes read from the HDF5 file are those that Minari reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from envs.data import minari_reader

minari = pytest.importorskip("minari", reason="pip install 'iolaus[minari]'")
pytest.importorskip("h5py", reason="pip install 'iolaus[minari]'")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

STATE = spaces.Box(-np.inf, np.inf, (3,), np.float64)
NESTED = spaces.Dict(
    {
        "where": spaces.Tuple([STATE, spaces.Discrete(5)]),
        "lights": spaces.MultiBinary(2),
    }
)
PICTURE = spaces.Box(0, 255, (4, 4, 3), np.uint8)


def values(space: spaces.Space, count: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: values(part, count) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(values(part, count) for part in space)
    return np.stack([np.asarray(space.sample()) for _ in range(count)])


def stored(seen: spaces.Space, chosen: spaces.Space, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The storage of a dataset of seven episodes of other lengths."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    for number, space in enumerate((seen, chosen)):
        space.seed(number)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            observations=values(seen, length + 1),
            actions=values(chosen, length),
            rewards=[0.5 * length] * length,
            terminations=[False] * (length - 1) + [True],
            truncations=[False] * length,
            infos={"unused": np.zeros(length + 1)},
        )
        for length in (2, 5, 3, 1, 4, 2, 6)
    ]
    minari.create_dataset_from_buffers("test/some-v0", episodes, observation_space=seen, action_space=chosen)
    return minari.load_dataset("test/some-v0").storage


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, (dict, tuple)):
        items = list(theirs.items() if isinstance(theirs, dict) else enumerate(theirs))
        return len(ours) == len(items) and all(same(ours[key], value) for key, value in items)
    return bool(np.asarray(ours).dtype == np.asarray(theirs).dtype and np.array_equal(ours, theirs))


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [(STATE, spaces.Discrete(3)), (NESTED, spaces.Box(-1, 1, (2,), np.float32)), (PICTURE, spaces.MultiDiscrete([2, 3]))],
)
def test_it_reads_what_minari_reads(seen: spaces.Space, chosen: spaces.Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage = stored(seen, chosen, tmp_path, monkeypatch)
    monkeypatch.setattr(minari_reader, "AT_ONCE", 3)
    ours, theirs = list(minari_reader.read_episodes(storage, range(1, 7))), list(storage.get_episodes(range(1, 7)))
    assert [episode["id"] for episode in ours] == [episode["id"] for episode in theirs] == list(range(1, 7))
    for one, other in zip(ours, theirs, strict=True):
        assert all(same(one[name], other[name]) for name in ("observations", "actions", *minari_reader.FLAGS))


def test_an_array_of_another_type_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import h5py

    storage = stored(STATE, spaces.Discrete(3), tmp_path, monkeypatch)
    with h5py.File(Path(storage.data_path) / "main_data.hdf5", "r+") as file:
        del file["episode_2/rewards"]
        file["episode_2/rewards"] = np.array([1, 2, 3], np.int16)
    rewards = [episode["rewards"].tolist() for episode in minari_reader.read_episodes(storage, [1, 2, 3])]
    assert rewards == [[2.5] * 5, [1, 2, 3], [0.5]]
