"""The benchmarks run. Their measurements are printed, not tested."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

NEEDS = {
    **dict.fromkeys(("beside_lerobot.py", "push.py", "push_policies.py"), ("pybullet", "push")),
    "minari_import.py": ("h5py", "minari"),
}
SMALL = {
    "babyai.py": ["--episodes", "40"],
    "beside_lerobot.py": ["--steps", "1", "--batch", "2", "--policies", "act"],
    "commits.py": ["--policies", "bc_mlp", "--steps", "4"],
    "darkroom.py": ["--histories", "70", "--episodes", "5", "--repeats", "1"],
    "engine.py": ["--repeats", "1", "--lanes", "1", "64", "--layouts", "200"],
    "in_context.py": ["--repeats", "1", "--lanes", "16"],
    "minari_import.py": ["--steps", "2000", "--length", "100"],
    "push.py": ["--lanes", "2", "--steps", "3", "--episodes", "2"],
    "push_policies.py": ["--calls", "1", "--policies", "bc_mlp", "act"],
    "sampler.py": ["--steps", "1", "--widths", "64", "--states", "4"],
    "sweeps.py": ["--runs", "2", "--steps", "2", "trainings", "check"],
    "together.py": ["--policies", "bc_mlp", "--runs", "2", "--measured", "0.2"],
    "training_step.py": ["--steps", "2", "--policies", "bc_mlp"],
    "windows.py": ["--batches", "5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "tests/benchmarks").glob("*.py")))
def test_a_benchmark_runs_and_prints_a_ratio(here: Path, data_dir: Path, name: str):
    (here / "data").symlink_to(data_dir)  # several of them measure on the same episodes
    package, extra = NEEDS.get(name, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs pip install 'iolaus[{extra}]'")
    command = [sys.executable, str(ROOT / "tests/benchmarks" / name), *SMALL.get(name, [])]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout or "efficiency" in done.stdout or "x)" in done.stdout
