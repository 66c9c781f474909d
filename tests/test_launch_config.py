"""The real command, in a shell: its messages, its exit codes, and that a bad request leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Forked
from helpers import options

from conf import folder

ROOT = Path(__file__).parents[1]
THEIRS = {
    "their_pkg/__init__.py": "",
    "their_pkg/mine.py": """
        from dataclasses import dataclass
        from policies.base import Policy

        @dataclass
        class Config:
            width: int = 4

        class Mine(Policy):
            @classmethod
            def accepts(cls, config, spaces):
                return "width 13 is unlucky here" if config.width == 13 else None
    """,
    "their_pkg/grown.py": "raise SystemExit(9)\nclass Config:\n    width: int = 4\n    depth: int = 2\n",
    "their_pkg/faulty.py": """
        import errno
        from dataclasses import dataclass, field
        from gymnasium import spaces
        from conf.errors import BadRequest
        from envs.base import DataConfig, Family, Spaces

        @dataclass
        class Config:
            fault: str = "bug"
            data: DataConfig = field(default_factory=DataConfig)

        class Faulty(Family):
            max_steps = 1

            def __init__(self, config):
                self.config, self.spaces = config, Spaces(spaces.Dict(state=spaces.Box(0, 1, (2,))), spaces.Discrete(3))

            @classmethod
            def accepts(cls, config, needs="play"):
                return None

            def signature(self):  # the first thing that is asked of it while the run is on
                faults = {"exit": SystemExit(7), "bad": BadRequest("no such state"), "bug": RuntimeError("a bug"),
                          "full": OSError(errno.ENOSPC, "No space left on device", "/disc/x")}
                raise faults[self.config.fault]
    """,
    "conf/policy/mine.yaml": "_target_: their_pkg.mine.Mine\nwidth: 4\n",
    "conf/policy/grown.yaml": "_target_: their_pkg.grown.Grown\nwidth: 4\n",  # nobody has added its new field
    "conf/env/faulty.yaml": """
        _target_: their_pkg.faulty.Faulty
        fault: bug
        data: {source: expert, episodes: 2, val_episodes: 1, noise: 0.0, seed: 0}
    """,
    "conf/experiment/typo.yaml": "# @package _global_\ntrainer: {max_step: 3}\n",
    "conf/experiment/missing.yaml": "# @package _global_\ndefaults: [{override /policy: maskeddit}]\n",
    "conf/experiment/plain.yaml": "# @package _global_\nseed: 5\n",
    "conf/experiment/on_cluster.yaml": "# @package _global_\ndefaults: [{override /cluster: theirs}]\n",
    "conf/experiment/torn.yaml": "# @package _global_\ntrainer: {max_steps: [3\n",
    "conf/cluster/theirs.yaml": "# @package _global_\ndefaults: [{override /hydra/launcher: theirs}]\n",
    "conf/hydra/launcher/theirs.yaml": "_target_: hydra_plugins.theirs.Launcher\n",
    "conf/hydra/sweeper/theirs.yaml": "_target_: hydra_plugins.theirs.Theirs\nmax_batch_size: null\nparams: null\n",
    "hydra_plugins/theirs/__init__.py": """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        class Theirs(BasicSweeper):
            pass
    """,
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own package and config directory."""
    root = tmp_path_factory.mktemp("theirs")
    for name, text in THEIRS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    return root


@pytest.fixture
def launch(forked: Forked, tmp_path: Path, theirs: Path) -> Any:
    """Run launch.py in an empty folder, with the user's config directory."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "launch.py"), "--config-dir", str(theirs / "conf"), *words]
        return forked.run(command, tmp_path, {**os.environ, "PYTHONPATH": str(theirs), **environment}, 120)

    return run


POLICIES = options("policy")
THEIR_POLICIES = sorted([*POLICIES, "grown", "mine"])
TRUST = "trusted_packages=[their_pkg]"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["policy.hiden_dim=3"], "policy.hiden_dim does not exist; did you mean policy.hidden_dim?"),
        (["+policy.hiden_dim=3"], "policy.hiden_dim does not exist; did you mean policy.hidden_dim?"),
        (["env.tasks=mt10"], "env.tasks does not exist; env has id, max_steps, "),
        (["experiment=typo"], "trainer.max_step does not exist; did you mean trainer.max_steps? (in experiment=typo)"),
        (["experiment=missing"], "policy=maskeddit does not exist; did you mean policy=masked_dit?"),
        (["experiment=torn"], "cannot read a YAML file"),
        (["experimnt=plain"], "experimnt does not exist; did you mean experiment?"),
        (
            ["policy=bc_mpl"],
            f"policy=bc_mpl does not exist; did you mean policy=bc_mlp? policy is one of {', '.join(THEIR_POLICIES)}",
        ),
        (["policy=mine"], "policy._target_ is their_pkg.mine.Mine, but only policies, envs, trainers are trusted"),
        (["policy=grown", "policy.depth=3"], "policy.depth is a field of their_pkg.grown.Config, but the option's YAML has no"),
        (["policy=grown", "+policy.depth=3"], "add depth: ... to that file, in the folder policy of the configs"),
        (["study=mask"], "study=mask does not exist; did you mean study=mask_or_noise?"),
        (["study=x"], "study=x does not exist; study is one of act_chunk, "),
        (["seed=1,2"], "seed=1,2 is a sweep; add -m"),
        (["data_dir=/dev/null"], "data_dir=/dev/null cannot be a folder: /dev/null is a file"),
        (["data_dir=/proc/1/x"], "cannot write to data_dir=/proc/1/x"),
        (["data_dir=dätä"], "letters such as ä need quotes that reach Hydra"),
        (
            ["hydra/launcher=joblib"],
            "comes with a plugin of Hydra, which is not installed here: pip install hydra-joblib-launcher",
        ),
        (["encoder.foo=1"], "encoder is only chosen, as in encoder=NAME; its values are policy.encoder.*"),
        (["env.id=DoorKey"], "There is no MiniGrid or BabyAI id DoorKey. Did you mean MiniGrid-DoorKey-8x8-v0?"),
        (["-m", "seed=range(0,10000000)"], "this sweep has 10,000,000 runs"),
        (["hydra/sweeper=optuna"], "hydra/sweeper=optuna is for many runs, and this command is a single one; add -m"),
        (["seed"], "cannot read the argument seed; write key=value"),
        (["mode=eval", "ckpt_path=nowhere"], "ckpt_path=nowhere does not exist"),
        (["-m", "cluster=local,theirs"], "cluster=local,theirs cannot be swept: one sweep goes to one cluster"),
        (["-m", "study=a,b"], "study=a,b cannot be swept"),
    ],
)
def test_bad_request_is_one_sentence(launch: Any, tmp_path: Path, words: list[str], sentence: str) -> None:
    done = launch(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--help"], marks=pytest.mark.slow),
        pytest.param(["--cfg", "job"], marks=pytest.mark.slow),
        pytest.param(["+policy.hiden_dim=3"], marks=pytest.mark.slow),
        ["seed=x"],
        ["policy._target_=torch.load"],
    ],
    ids=" ".join,
)
def test_nothing_before_the_types_imports_torch(tmp_path: Path, words: list[str]) -> None:
    check = "print('TORCH' if {'torch', 'gymnasium'} & {*sys.modules} else 'LIGHT', file=sys.stderr)"
    script = (
        f"import atexit, runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['launch.py', *sys.argv[1:]]\n"
        f"atexit.register(lambda: {check}); runpy.run_path({str(ROOT / 'launch.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "LIGHT", done.stderr


def test_help_shows_commands_and_choices(launch: Any) -> None:
    shown = launch("--help").stdout
    assert "python launch.py mode=eval ckpt_path=" in shown
    assert f"policy: {', '.join(THEIR_POLICIES)}" in shown
    for recipe in options("experiment"):
        assert re.search(rf"^ *{recipe} +\w", shown, re.M), recipe
    assert "${" not in shown


def test_completion_in_bash(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')  # a link would lose the virtual environment
    (tmp_path / "python").chmod(0o755)
    script = f"""
        PATH={tmp_path}:$PATH; cd {ROOT}
        eval "$(python launch.py -sc install=bash)"
        COMP_LINE="python launch.py policy=" COMP_POINT=24 COMP_WORDS=(python launch.py policy=) COMP_CWORD=2
        hydra_bash_completion; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [f"policy={name}" for name in POLICIES], done.stderr


def test_traceback_on_request(launch: Any, tmp_path: Path) -> None:
    done = launch("seed=x", HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "seed must be a whole number, got x"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_invalid_grid_launches_nothing(launch: Any, tmp_path: Path) -> None:
    grid = ["policy=mine", "-m", "env=faulty", TRUST, "policy.width=4,13", "experiment=plain,on_cluster"]
    done = launch(*grid)
    assert done.returncode == 2
    assert "3 of 4 runs cannot run, so nothing was launched; add skip_invalid=true to run the other 1" in done.stderr
    assert "width 13 is unlucky here" in done.stderr
    assert "experiment=on_cluster sets hydra.launcher" in done.stderr
    assert "Traceback" not in done.stderr
    dry = launch(*grid, "skip_invalid=true", "dry=true")
    assert dry.returncode == 0
    assert "left out 3 of 4 runs" in dry.stderr
    assert [line.split()[0] for line in dry.stdout.splitlines() if line.startswith("#")] == ["#0"]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_fault_keeps_its_traceback_and_the_command_repeats_it(launch: Any, tmp_path: Path, theirs: Path) -> None:
    done = launch("mode=collect", "policy=mine", "env=faulty", TRUST, "tags=['it is']")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr
    [run] = (tmp_path / "runs" / "collect-faulty").iterdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert run.name.endswith(folder.identity(config))
    assert config["policy"] == {"_target_": "their_pkg.mine.Mine", "width": 4}  # no encoder: this policy has none
    assert "env=faulty" in yaml.safe_load((run / "overrides.yaml").read_text())
    assert json.loads((run / "versions.json").read_text())["python"]
    assert (run / "log.txt").exists()
    assert not (run / ".hydra").exists()
    env = {**os.environ, "PYTHONPATH": str(theirs)}
    again = subprocess.run((run / "command.txt").read_text(), shell=True, cwd="/", env=env, capture_output=True, timeout=60)
    assert again.returncode == 1
    first, second = sorted((tmp_path / "runs" / "collect-faulty").iterdir())
    assert (first / "config.yaml").read_text() == (second / "config.yaml").read_text()


def test_sweep_goes_on_after_a_failure_and_leaves_out_the_invalid(launch: Any, tmp_path: Path) -> None:
    words = ["-m", "mode=collect", "policy=mine", "env=faulty", TRUST, "hydra.sweep.dir=swept"]
    swept = launch(*words, "env.fault=full,bad", "env.data.noise=0,2", "skip_invalid=true")
    assert swept.returncode == 2  # the higher one
    assert "left out 2 of 4 runs" in swept.stderr
    said = swept.stdout + swept.stderr
    assert "cannot write /disc/x: no space left. Nothing saved so far is lost" in said and "no such state" in said
    assert "Traceback" not in said
    runs = [path for path in (tmp_path / "swept").iterdir() if path.is_dir()]
    assert sorted(run.name.rpartition("-")[0] for run in runs) == ["env.fault=bad", "env.fault=full"]
    assert all(yaml.safe_load((run / "config.yaml").read_text())["env"]["data"]["noise"] == 0 for run in runs)


@pytest.mark.slow
def test_a_folder_is_held_to_its_run_under_a_foreign_sweeper(launch: Any, tmp_path: Path) -> None:
    machinery = ["-m", "hydra/sweeper=theirs", "hydra/launcher=basic"]
    words = [*machinery, "mode=collect", "policy=mine", "env=faulty", TRUST, "env.fault=full"]
    assert "cannot write /disc/x" in launch(*words).stderr
    [run] = (tmp_path / "runs/sweep").glob("*/0")  # and not auto/0
    assert not (tmp_path / "auto").exists()
    where = f"hydra.sweep.dir={run.parent}"
    assert f"{run} holds another run; it differs in seed" in launch(*words, where, "seed=1").stderr
    assert f"{run} holds a run already; add resume=true" in launch(*words, where).stderr
    assert "cannot write /disc/x" in launch(*words, where, "resume=true").stderr


@pytest.mark.slow
def test_a_resumed_run_needs_only_its_folder(launch: Any, tmp_path: Path) -> None:
    launch("mode=collect", "policy=mine", "env=faulty", TRUST, "hydra.run.dir=run", "policy.width=5")
    again = ["resume=true", "hydra.run.dir=run"]
    assert "policy._target_ is their_pkg.mine.Mine, but only" in launch(*again).stderr  # a folder cannot vouch for itself
    assert "RuntimeError: a bug" in launch(*again, TRUST).stderr
    other = launch(*again, TRUST, "policy.width=6")
    assert (other.returncode, "it differs in policy.width" in other.stderr) == (2, True)
    (tmp_path / "run/overrides.yaml").write_text("[{a: 1}]")
    assert "type its overrides again" in launch(*again, TRUST).stderr


def test_a_request_that_is_refused_late_leaves_nothing(launch: Any, tmp_path: Path) -> None:
    words = ["mode=collect", "policy=mine", "env=faulty", TRUST, "env.fault=bad"]
    assert "no such state" in launch(*words).stderr
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    assert "is not empty" in launch(*words, "hydra.run.dir=mine").stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_exit_in_a_sweep_passes_through_hydra(launch: Any) -> None:
    assert launch("-m", "mode=collect", "policy=mine", "env=faulty", TRUST, "env.fault=exit,bug").returncode == 7


@pytest.mark.slow
def test_a_run_whose_output_nobody_reads_on_is_still_done(here: Path, data_dir: Path) -> None:
    words = (
        f"{sys.executable} {ROOT}/launch.py debug=fdr policy=bc_mlp logger=none data_dir={data_dir} hydra.run.dir=run | head -1"
    )
    subprocess.run(["bash", "-c", words], cwd=here, check=True, capture_output=True, timeout=120)
    assert json.loads((here / "run/status.json").read_text())["status"] == "done"
