"""Tab completion of values that Hydra does not know, and the lines of --help."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from conf.check import TopLevel
from conf.completion import suggestions


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("python launch.py mode=ev", ["mode=eval"]),
        ("python launch.py device=c", ["device=cpu", "device=cuda"]),
        ("python launch.py env=darkroom env.data.source=ex", ["env.data.source=expert", "env.data.source=explorer"]),
        ("python launch.py env.id=MiniGrid-DoorKey-8", ["env.id=MiniGrid-DoorKey-8x8-v0"]),
        ("python launch.py policy=", []),
        ("python launch.py ", []),
    ],
)
def test_values(line: str, found: list[str]) -> None:
    assert suggestions(line) == found


def test_run_folders(here: Path) -> None:
    (here / "runs/mine/one").mkdir(parents=True)
    (here / "runs/mine/one/config.yaml").touch()
    (here / "runs/other").mkdir()
    assert suggestions("python launch.py ckpt_path=runs/") == ["ckpt_path=runs/mine/", "ckpt_path=runs/other/"]
    assert suggestions("python launch.py init_from=runs/mine/") == ["init_from=runs/mine/one"]
    assert suggestions("python launch.py ckpt_path=nowhere/") == []


def test_every_mode_is_offered() -> None:
    modes = get_args(get_type_hints(TopLevel)["mode"])
    assert "train" in modes and suggestions("python launch.py mode=") == [f"mode={mode}" for mode in modes]
