from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from helpers import SPACES, write_episodes

from conf.errors import BadRequest
from envs.base import Spaces
from envs.data.store import Dataset, Writer


def test_what_is_written_block_by_block_is_read_as_one(tmp_path):
    data = write_episodes(tmp_path, [3, 1, 12], [True, False, True])
    assert len(data) == 16
    assert data.spaces == SPACES
    assert data.ends.tolist() == [3, 4, 16] and data.starts.tolist() == [0, 3, 4]
    assert data.observations["state"][:, 0].tolist() == [0] * 3 + [1] + [2] * 12
    assert np.array_equal(np.load(tmp_path / "action.npy"), data.columns["action"])  # plain numpy reads it


def test_hashes_are_of_the_files(tmp_path):
    import hashlib

    data = write_episodes(tmp_path, [3], [True])
    for name, digest in data.meta["columns"].items():
        assert hashlib.sha256((tmp_path / f"{name}.npy").read_bytes()).hexdigest() == digest


def test_the_fingerprint_follows_the_contents(tmp_path):
    for name, lengths in {"a": [3, 4], "b": [3, 4], "c": [4, 3]}.items():
        (tmp_path / name).mkdir()
        write_episodes(tmp_path / name, lengths, [True, True])
    a, b, c = (Dataset(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c


def test_rows_that_do_not_fit_are_refused(tmp_path):
    with Writer(tmp_path) as writer:
        writer.append("action", np.zeros(3, np.int64))
        with pytest.raises(ValueError, match="action"):
            writer.append("action", np.zeros(3, np.float32))


@pytest.mark.parametrize("harm", ["cut", "gone", "meta", "longer", "trailing", "ends"])
def test_a_damaged_dataset_is_named(tmp_path, harm):
    write_episodes(tmp_path, [3, 4], [True, True])
    column = tmp_path / "reward.npy"
    if harm == "cut":
        column.write_bytes(column.read_bytes()[:-4])
    elif harm == "gone":
        column.unlink()
    elif harm == "meta":
        (tmp_path / "meta.json").write_text("{")
    elif harm == "trailing":
        column.write_bytes(column.read_bytes() + b"1234")
    elif harm == "ends":
        column = tmp_path / "episode_ends.npy"
        column.write_bytes(column.read_bytes() + b"12345678")
    else:
        meta = json.loads((tmp_path / "meta.json").read_text())
        (tmp_path / "meta.json").write_text(json.dumps({**meta, "steps": 8}))
    with pytest.raises(BadRequest, match="delete that folder"):
        Dataset(tmp_path)


def test_pickles_are_not_read(tmp_path):
    write_episodes(tmp_path, [3], [True])
    np.save(tmp_path / "reward.npy", np.array([print] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(BadRequest, match="damaged"):
        Dataset(tmp_path)


def test_spaces_survive_json():
    high = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3))
    box = spaces.Box(np.zeros((7, 7, 3), np.uint8), high, dtype=np.uint8)
    given = Spaces(spaces.Dict({"grid": box, "direction": spaces.Discrete(4)}), spaces.Box(-1, 1, (2,), np.float32))
    assert Spaces.from_json(json.loads(json.dumps(given.to_json()))) == given
