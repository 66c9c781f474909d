from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from conf.errors import BadRequest
from envs.data.cache import address, obtain


def make_slowly(root: Path, log: Path) -> None:
    def make(folder: Path) -> None:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        (folder / "half").touch()
        time.sleep(0.5)
        (folder / "whole").touch()

    folder = obtain(root, "x", make)
    assert (folder / "whole").exists()


def test_many_ask_and_one_makes(tmp_path):
    root, log = tmp_path / "data", tmp_path / "log"
    context = multiprocessing.get_context("fork")
    askers = [context.Process(target=make_slowly, args=(root, log)) for _ in range(6)]
    for asker in askers:
        asker.start()
    while any(asker.is_alive() for asker in askers):
        assert not (root / "x").exists() or (root / "x" / "whole").exists(), "half a dataset was seen"
        time.sleep(0.01)
    assert [asker.exitcode for asker in askers] == [0] * 6
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_maker_frees_its_lock_and_its_remains_go(tmp_path):
    root, log = tmp_path / "data", tmp_path / "log"
    maker = multiprocessing.get_context("fork").Process(target=make_slowly, args=(root, log))
    maker.start()
    while not log.exists():
        time.sleep(0.01)
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    assert [path for path in root.iterdir() if path.is_dir()]  # the remains
    make_slowly(root, log)
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["x"]


def test_a_failed_maker_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        obtain(tmp_path, "x", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/1/x"])
def test_a_place_that_holds_no_data_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match="choose another place with data_dir="):
        obtain(tmp_path / place, "x", lambda folder: None)


def test_the_address_follows_the_recipe():
    recipe = {"id": "a", "noise": 0.1, "seeds": [0, 10]}
    assert address(recipe, "a") == address(dict(reversed(recipe.items())), "a")
    assert address(recipe, "a") != address({**recipe, "noise": 0.2}, "a")
    assert address(recipe, "ALE/Pong-v5 x").startswith("ALE-Pong-v5-x-")
