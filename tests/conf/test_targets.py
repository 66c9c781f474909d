"""No value of a config runs code, whatever its source and place: real files, the real command."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Forked
from helpers import ROOT
from omegaconf import OmegaConf

from conf.errors import BadRequest
from conf.log import LogFile
from conf.targets import refuse_in_hydra

FOREIGN = {
    "evil.py": """
        import pathlib
        from hydra.experimental.callback import Callback
        pathlib.Path("ran").touch()
        class Evil(Callback):
            pass
    """,
    "experiment/callback.yaml": """
        hydra: {callbacks: {e: {_target_: evil.Evil}}}
    """,
    "experiment/vouching.yaml": """
        trusted_packages: [evil]
        hydra: {callbacks: {e: {_target_: evil.Evil}}}
    """,
    "experiment/callable.yaml": """
        hydra: {callbacks: {e: {_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [ran]}}}}
    """,
    "experiment/argument.yaml": """
        hydra: {callbacks: {e: {_target_: hydra.experimental.callbacks.LogJobReturnCallback, x: {_target_: evil.Evil}}}}
    """,
    "experiment/resolver.yaml": """
        hydra: {callbacks: {e: "${oc.create:{_target_:evil.Evil}}"}}
    """,
    "experiment/elsewhere.yaml": """
        tags: {_target_: evil.Evil}
        hydra: {callbacks: {e: "${tags}"}}
    """,
    "experiment/logging.yaml": """
        hydra: {hydra_logging: {handlers: {x: {class: evil.Evil}}}}
    """,
    "experiment/factory.yaml": """
        hydra: {job_logging: {handlers: {x: {"()": evil.Evil}}}}
    """,
    "experiment/external.yaml": """
        hydra: {job_logging: {handlers: {x: {class: logging.StreamHandler, stream: "ext://evil.Evil"}}}}
    """,
}


@pytest.fixture
def command(forked: Forked, here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    for name, text in FOREIGN.items():
        place = here / "theirs" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(("# @package _global_\n" if name.endswith("yaml") else "") + textwrap.dedent(text))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(ROOT / "launch.py"), "--config-dir", "theirs", *words]
        env = {**os.environ, "PYTHONPATH": str(here / "theirs")}
        return forked.run(line, here, env)

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["+hydra.callbacks.x={_target_:evil.Evil}"],
        ["-m", "hydra.launcher._target_=evil.Evil"],
        ["-m", "hydra.sweeper._target_=evil.Evil"],
    ],
)
def test_the_command_line_runs_no_code_that_it_does_not_trust(command: Callable, here: Path, words: list[str]) -> None:
    done = command(*words, "dry=true")
    assert done.returncode == 2 and "evil.Evil" in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.name for path in here.iterdir()] == ["theirs"]


@pytest.mark.parametrize("experiment", sorted(name[11:-5] for name in FOREIGN if name.startswith("experiment")))
def test_a_foreign_experiment_runs_no_code(command: Callable, here: Path, experiment: str) -> None:
    done = command(f"experiment={experiment}", "dry=true", *(["-m"] if experiment == "callback" else []))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert [path.name for path in here.iterdir()] == ["theirs"]


def test_a_callback_of_a_package_that_the_command_line_trusts_runs(command: Callable, here: Path) -> None:
    done = command("experiment=callback", "trusted_packages=[evil]", "policy=bc_mlp", "seed=x")
    assert "seed must be a whole number" in done.stderr
    assert (here / "ran").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sweeper": {"_target_": "hydra_plugins.x.Sweeper", "sampler": {"_target_": "optuna.samplers.TPESampler"}}}, None),
        ({"sweeper": {"sampler": {"_target_": "optuna.samplers.os.system"}}}, "hydra.sweeper.sampler._target_ is optuna"),
        ({"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}}, None),
        ({"callbacks": {"x": {"_target_": "hydra.experimental.callbacks.LogJobReturnCallback"}}}, None),
        ({"callbacks": {"x": {"_target_": "hydra.utils.call"}}}, "which is not a hydra.experimental.callback.Callback"),
        ({"job_logging": {"formatters": {"x": {"()": "colorlog.ColoredFormatter"}}}}, None),
        ({"job_logging": {"handlers": {"x": {"queue": "evil.Evil"}}}}, "hydra.job_logging.handlers.x.queue is evil.Evil"),
        ({"job_logging": {"handlers": {"x": {"listener": "evil.Evil"}}}}, "hydra.job_logging.handlers.x.listener is evil.Evil"),
        ({"help": [{"_target_": "a.b"}]}, "hydra.help.0._target_ is a.b"),
        ({"callbacks": {"x": {"_target_": "${nowhere}"}}}, "must name a class"),
    ],
)
def test_what_hydra_makes_objects_of(values: dict, sentence: str | None) -> None:
    try:
        refuse_in_hydra(OmegaConf.create({"hydra": values}), [])
    except BadRequest as error:
        assert sentence and sentence in str(error)
    else:
        assert sentence is None


@pytest.mark.parametrize("words", [("hydra.searchpath=[pkg://evil]",), ("--config-path", "pkg://evil", "--config-name", "x")])
def test_a_place_of_configs_is_not_imported_unless_its_package_is_trusted(command: Callable, here: Path, words: tuple[str, ...]):
    done = command(*words, "dry=true")
    assert done.returncode == 2 and "configs would be read from pkg://evil" in done.stderr and not (here / "ran").exists()


def test_the_log_is_not_written_through_a_link(tmp_path: Path):
    (tmp_path / "log.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        LogFile(tmp_path / "log.txt")
    assert not (tmp_path / "elsewhere").exists()
