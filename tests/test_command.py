"""The command in a shell: its flags and its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

LAUNCH = f"{sys.executable} {ROOT}/launch.py"


def shell(line: str, here: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=here, env=environment or None, capture_output=True, text=True, timeout=120)


def test_version_is_one_line_that_imports_nothing_heavy(here: Path) -> None:
    done = shell(f"{LAUNCH} --version", here)
    assert done.returncode == 0 and done.stdout.startswith("iolaus 0.1.0") and "hydra-core 1.3" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--foo", "there is no flag --foo"),
        ("policy=bc_mlp --foo=3 seed=1", "there is no flag --foo=3"),
        ("--cfg nonsense", "argument --cfg/-c: invalid choice"),
        ("--experimental-rerun x", "would unpickle a file"),
    ],
)
def test_a_wrong_flag_is_a_sentence(here: Path, words: str, sentence: str) -> None:
    done = shell(f"{LAUNCH} {words}", here)
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", ["--help", pytest.param("dry=true", marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", ["| head -1", ">&-"])
def test_output_that_nobody_reads_is_no_failure(here: Path, words: str, reader: str) -> None:
    done = shell(f"set -o pipefail; {LAUNCH} {words} {reader}", here)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_command_iolaus_works_among_packages_of_the_same_names(here: Path) -> None:
    for name in ("envs", "conf", "policies", "launch"):
        (here / f"{name}.py").write_text("raise RuntimeError('not ours')")
    script = f"import sys; sys.path.append({str(ROOT)!r}); import iolaus; sys.exit(iolaus.main())"
    command = [sys.executable, "-c", script, "dry=true", "policy=bc_mlp"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "policies.bc_mlp.BCMLP" in done.stdout, done.stderr


def test_a_package_in_the_way_is_named(here: Path) -> None:
    (here / "envs.py").write_text("")
    script = f"import sys; sys.path.append({str(ROOT)!r}); import policies; policies.load"
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, timeout=120)
    assert f"envs is {here / 'envs.py'}, which is in the way of the envs beside" in done.stderr
