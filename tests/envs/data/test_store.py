from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import copied, damage
from helpers import SPACES, write_episodes

from conf.errors import BadRequest
from envs.data import store, verify
from envs.data.store import Dataset, Writer


def test_what_is_written_block_by_block_is_read_as_one(tmp_path):
    data = write_episodes(tmp_path, [3, 1, 12], [True, False, True])
    assert len(data) == 16
    assert data.spaces == SPACES
    assert data.ends.tolist() == [3, 4, 16] and data.starts.tolist() == [0, 3, 4]
    assert data.observations["state"][:, 0].tolist() == [0] * 3 + [1] + [2] * 12
    assert np.array_equal(np.load(tmp_path / "action.npy"), data.columns["action"])  # plain numpy reads it


def test_hashes_are_of_the_files(tmp_path):
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


def sign(folder: Path) -> None:
    """As an attacker would do: every hash is right."""
    meta = json.loads((folder / "meta.json").read_text())
    for name in meta["columns"]:
        if (folder / f"{name}.npy").is_file():
            meta["columns"][name] = hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest()
    sign_meta(folder, meta)


def sign_meta(folder: Path, meta: Any) -> None:
    (folder / "meta.json").write_text(json.dumps(meta))
    digest = hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"meta.json": digest}))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("harm", ["cut", "gone", "longer", "trailing", "ends", "pipe", "folder", "empty", "huge"])
def test_a_damaged_column_is_named(tmp_path, harm, signed):
    write_episodes(tmp_path, [3, 4], [True, True])
    column = tmp_path / "reward.npy"
    whole = column.read_bytes()
    if harm == "cut":
        column.write_bytes(whole[:-4])
    elif harm == "trailing":
        column.write_bytes(whole + b"1234")
    elif harm == "empty":
        column.write_bytes(b"")
    elif harm == "huge":
        column.write_bytes(whole.replace(b"(7,)", b"(7" + b"0" * 12 + b",)").replace(b" " * 12 + b"\n", b"\n"))
    elif harm == "ends":
        np.save(tmp_path / "episode_ends.npy", np.array([3, 7, 8]))
    elif harm == "longer":
        np.save(column, np.zeros(8, np.float32))
    else:
        column.unlink()
        if harm != "gone":
            os.mkfifo(column) if harm == "pipe" else column.mkdir()
    if signed:
        sign(tmp_path)
    with pytest.raises(BadRequest, match=r"damaged .* delete that folder"):
        Dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("action", np.array([0, 1, 2, 0, 1, 2, 1 << 40])),
        ("action", np.array([0, 1, 2, 0, 1, 2, -1])),
        ("action", np.zeros(7, np.int32)),
        ("reward", np.full(7, np.nan, np.float32)),
        ("observation.state", np.full((7, 3), np.inf, np.float32)),
        ("observation.state", np.zeros((7, 4), np.float32)),
        ("episode_ends", np.array([4, 3])),
        ("episode_ends", np.array([0, 7])),
        ("episode_ends", np.array([3, 6])),
    ],
)
def test_values_that_cannot_be_are_found_whoever_signed_them(tmp_path, name, values):
    write_episodes(tmp_path, [3, 4], [True, True])
    np.save(tmp_path / f"{name}.npy", values)
    sign(tmp_path)
    with pytest.raises(BadRequest, match="damaged"):
        Dataset(tmp_path)


def test_pickles_are_not_read(tmp_path):
    write_episodes(tmp_path, [3], [True])
    np.save(tmp_path / "reward.npy", np.array([print] * 3, dtype=object), allow_pickle=True)
    for do in (lambda: None, lambda: sign(tmp_path)):
        do()
        with pytest.raises(BadRequest, match="damaged"):
            Dataset(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "5", "{}", "{", "", '{"meta.json": 5}', "[" * 100_000, "\x00", "NaN"])
@pytest.mark.parametrize("name", ["meta.json", "manifest.json"])
def test_json_of_another_shape_is_damage(tmp_path, name, text):
    write_episodes(tmp_path, [3], [True])
    (tmp_path / name).write_text(text)
    with pytest.raises(BadRequest, match="damaged"):
        Dataset(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": None},
        {"columns": {"action": 5}},
        {"columns": {"../action": "0"}},
        {"columns": {}},
        {"recipe": {}},
        {"recipe": {"spaces": None}},
        {"recipe": {"spaces": {"observation": {}, "action": {"type": "discrete", "n": 0}}}},
        {"recipe": {"spaces": {"observation": {"state": {"type": "box", "shape": [1e9], "dtype": "O", "low": 0, "high": 1}}}}},
        {"steps": "3"},
        {"steps": -3},
        {"steps": 4},
    ],
)
def test_a_meta_of_another_shape_is_damage_whoever_signed_it(tmp_path, change):
    data = write_episodes(tmp_path, [3], [True])
    sign_meta(tmp_path, {**data.meta, **change})
    with pytest.raises(BadRequest, match="damaged"):
        Dataset(tmp_path)


def test_what_is_wrong_with_the_machine_is_not_called_damage(tmp_path, monkeypatch):
    write_episodes(tmp_path, [3], [True])

    def full(*arguments, **values):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(BadRequest, match="cannot be read: Cannot allocate memory") as caught:
        Dataset(tmp_path)
    assert "delete" not in str(caught.value)


def test_files_are_hashed_once_and_again_when_they_change(tmp_path, monkeypatch):
    write_episodes(tmp_path, [3, 4], [True, True])  # which opens it
    hashed: list[str] = []

    def counted(file):
        hashed.append(Path(file.name).name if isinstance(file.name, str) else str(file.name))
        return hash_of(file)

    hash_of = verify.hash_of
    monkeypatch.setattr(store, "hash_of", counted)
    Dataset(tmp_path)
    assert not hashed
    column = tmp_path / "action.npy"
    column.write_bytes(column.read_bytes())
    Dataset(tmp_path)
    assert len(hashed) == 1
    (tmp_path / "verified.json").write_text("[")
    Dataset(tmp_path)
    assert len(hashed) == 1 + 7
    flipped = bytearray(column.read_bytes())
    flipped[-8] ^= 1
    column.write_bytes(flipped)
    with pytest.raises(BadRequest, match=r"action.npy is not what was written"):
        Dataset(tmp_path)


def contents(folder: Path) -> list[bytes]:
    data = Dataset(folder)
    columns = [*data.columns.values(), data.ends, data.history_ends, data.episode_hashes]
    return [json.dumps(data.meta, sort_keys=True).encode(), *(np.ascontiguousarray(column).tobytes() for column in columns)]


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 340), marks=pytest.mark.slow)], ids=["some", "many"])
def test_any_damage_is_a_sentence_or_changes_nothing(tmp_path, seeds):
    """Random bits, bytes, cuts and zeros in all files of a dataset, each in a fresh copy."""
    (tmp_path / "whole").mkdir()
    write_episodes(tmp_path / "whole", [3, 4, 9], [True, False, True], slips=[4])
    expected, found = contents(tmp_path / "whole"), 0
    for seed in seeds:
        with copied(tmp_path / "whole", tmp_path / "copy") as copy:
            what = damage(copy, seed)
            try:
                assert contents(copy) == expected, what
            except BadRequest as error:
                assert "is damaged (" in str(error), what
                found += 1
    assert found > len(seeds) / 2
