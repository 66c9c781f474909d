"""Warnings are errors (pyproject.toml), and every test starts with the same seed, one thread and its own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from helpers import ROOT, Ask
from hydra.core.global_hydra import GlobalHydra

from conf.check import Request

SMALL_DATA = ("env.data.episodes=40", "env.data.val_episodes=10")


@pytest.fixture(autouse=True)
def one_seed_one_thread() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Datasets that all tests share, also those in the other processes of pytest-xdist; they are never changed."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def composer() -> Ask:
    return Ask()


@pytest.fixture
def ask(composer: Ask, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask("policy=bc_mlp", ...)`: the checked request of a command line."""
    monkeypatch.setattr(GlobalHydra.instance(), "hydra", composer.hydra)
    return composer


@pytest.fixture
def request_for(ask: Ask, data_dir: Path) -> Callable[..., Request]:
    """As `ask`, on a small dataset."""
    return lambda *overrides: ask(*SMALL_DATA, f"data_dir={data_dir}", *overrides)


@pytest.fixture(scope="session")
def imported() -> Iterator[Forked]:
    """The process that commands are forked from; it is started when the first test asks for it."""
    server = Forked()
    yield server
    server.close()


@pytest.fixture
def forked(imported: Forked) -> Iterator[Forked]:
    """`forked.run(command, cwd, env)` and `forked.start(...)`: commands of Python, without the seconds of its imports."""
    yield imported
    imported.end_all()


@pytest.fixture
def launch(forked: Forked, here: Path, data_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real `launch.py` in an empty working directory."""

    def run(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "launch.py"), f"data_dir={data_dir}", *arguments]
        done = forked.run(command, here, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", **environment})
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run
