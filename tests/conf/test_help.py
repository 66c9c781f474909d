"""`--help` is quick, and lists the options of the user's own config folder too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import ROOT, options

from conf.help import text


def test_it_imports_neither_hydra_nor_what_trains() -> None:
    script = "import sys, launch; sys.argv = ['launch.py', '--help']; launch.launch(); print({*sys.modules} & {'hydra', 'torch'})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("\nset()\n"), done.stderr


def test_every_experiment_and_study_is_described_on_one_line() -> None:
    assert [line for line in text(["--help"]).splitlines() if line.endswith("...")] == []


def test_a_folder_of_configs_adds_options(tmp_path: Path) -> None:
    for group, name, first in (
        ("policy", "mine", ""),
        ("robot", "arm", ""),
        ("experiment", "mine", "# @package _global_\n# Why. More."),
    ):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(first)
    shown = text(["--help", f"--config-dir={tmp_path}"]).splitlines()
    assert f"policy: {', '.join(sorted([*options('policy'), 'mine']))}" in shown and "robot: arm" in shown
    assert [line.split() for line in shown if line.startswith("  mine ")] == [["mine", "Why"]]
    assert "robot: arm" not in text(["--help"])
    assert text(["-h", "--config-dir", str(tmp_path)]).splitlines() == shown
