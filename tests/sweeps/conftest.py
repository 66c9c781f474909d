"""Runs that go wrong in every way: an environment of somebody else's package does it, in real runs of `launch.py`."""

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

FAULTY = {
    "their_pkg/__init__.py": "",
    "their_pkg/faulty.py": """
        import ctypes, os, signal, sys, time
        import torch
        from dataclasses import dataclass
        from envs.minigrid import family
        from envs.minigrid.family import MiniGrid

        if "PATIENCE" in os.environ:  # the launcher imports this too; usually it waits a minute before it kills a run
            from sweeps import pool
            pool.PATIENCE = float(os.environ["PATIENCE"])

        @dataclass
        class Config(family.Config):
            fault: str = "none"

        def deaf():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)

        def once():  # fails where it has not failed yet
            if not os.path.exists("failed"):
                open("failed", "w").close()
                raise RuntimeError("only once")

        def segfault():
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pygame-ce, which minigrid imports, turns it into SIGABRT
            ctypes.string_at(0)

        FAULTS = {
            "none": lambda: None,
            "raise": lambda: 1 / 0,
            "once": once,
            "exit": lambda: (print("about to go"), sys.stdout.flush(), os._exit(9)),
            "silent": lambda: os._exit(0),
            "segfault": segfault,
            "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "hang": lambda: time.sleep(600),
            "deaf": deaf,
            "show": lambda: print("GPU", os.environ.get("CUDA_VISIBLE_DEVICES"), "threads", torch.get_num_threads()),
        }

        class Faulty(MiniGrid):
            def signature(self):  # the first thing that is asked of it while the run is on
                FAULTS[self.config.fault]()
                return super().signature()
    """,
    "conf/env/faulty.yaml": """
        defaults: [minigrid, _self_]
        _target_: their_pkg.faulty.Faulty
        fault: none
    """,
}
SHORT = (
    *("policy=bc_mlp", "policy.hidden_dim=8", "logger=none", "env.id=MiniGrid-Empty-5x5-v0", "env.max_steps=20"),
    *("env.data.episodes=20", "env.data.val_episodes=4", "trainer.batch_size=16", "trainer.eval_every=0"),
    *("trainer.schedule.warmup=0", "trainer.max_steps=2", "eval.episodes=4", "eval.media=0"),
)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("theirs")
    for name, text in FAULTY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    return root


@pytest.fixture
def command(theirs: Path, data_dir: Path) -> Callable[..., list[str]]:
    """The words of a launch whose environment is the faulty one; without a fault, recording tiny data is all it does."""

    def words(*more: str) -> list[str]:
        ours = ["--config-dir", str(theirs / "conf"), "env=faulty", "trusted_packages=[their_pkg]", f"data_dir={data_dir}"]
        return [sys.executable, str(ROOT / "launch.py"), *ours, *SHORT, *more]

    return words


@pytest.fixture
def environment(theirs: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(theirs), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def launch(
    forked: Forked, here: Path, command: Callable, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return forked.run(command(*words), here, environment)

    return run


@pytest.fixture
def sweeps(forked: Forked, here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m sweeps ...` in the test's folder."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return forked.run([sys.executable, "-m", "sweeps", *words], here, {**os.environ, "PYTHONPATH": str(ROOT)})

    return run
