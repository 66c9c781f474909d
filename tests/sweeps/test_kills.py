"""Kill what runs at random moments and give the same command again: every run is done once, as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Forked, Process

from conf import status

KILLS, STEPS = 30, 60
GRID = (
    *("-m", "seed=0,1", "policy.hidden_dim=8,12", "eval.references=false"),
    *(f"trainer.max_steps={STEPS}", "trainer.save_every=3", "trainer.log_every=7"),
)


def killed(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def victims(launcher: int, home: Path) -> list[int]:
    """The launcher, the process that forks for it, and the runs that go on."""
    with contextlib.suppress(OSError):
        servers = [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
        said = [status.read(path.parent) for path in home.glob("*/status.json")]
        running = [values["pid"] for values in said if values.get("status") == "running"]
        return [launcher, *servers, *(pid for pid in running if os.path.exists(f"/proc/{pid}/exe"))]
    return [launcher]


def results(home: Path) -> dict[str, tuple[bytes, ...]]:
    """What each run computed: its metrics, its weights, and the scores of every episode."""
    return {
        path.name: (
            (path / "metrics.jsonl").read_bytes(),
            (path / f"checkpoints/step-{STEPS}/policy.safetensors").read_bytes(),
            json.dumps(json.loads((path / "evaluation.json").read_text())["per_episode"]).encode(),
        )
        for path in home.iterdir()
        if path.is_dir()
    }


@pytest.mark.slow
def test_killed_at_random_moments_every_run_is_done_once(
    forked: Forked, command: Callable, environment: dict[str, str], here: Path
):
    def start(home: str) -> Process:
        return forked.start(command(*GRID, f"hydra.sweep.dir={home}", "cluster.jobs=2", "trainer.threads=1"), here, environment)

    chance, began = random.Random(KILLS), time.monotonic()
    whole = start("whole")
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    took, done, struck = time.monotonic() - began, {}, 0
    while struck < KILLS:
        process = start("cut")
        while struck < KILLS and process.poll(chance.uniform(0.05, 0.45) * took) is None:  # a sweep goes on without a run
            killed(chance.choice(victims(process.pid, here / "cut")))
            struck += 1
        output = process.communicate()[0]
        wait_for_the_rest(here / "cut")
        summaries = {path.parent.name: path.stat().st_mtime_ns for path in (here / "cut").glob("*/summary.json")}
        assert done.items() <= summaries.items(), "a run that was done was run again"
        done = {name: time for name, time in summaries.items() if status.read(here / "cut" / name).get("status") == "done"}
        if len(done) == 4:  # all done with kills to spare: begin anew
            assert results(here / "cut") == results(here / "whole")
            shutil.rmtree(here / "cut")
            done = {}
    process = start("cut")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert {status.read(path.parent)["status"] for path in here.glob("cut/*/status.json")} == {"done"}
    assert results(here / "cut") == results(here / "whole")


def wait_for_the_rest(home: Path) -> None:
    """Runs whose launcher was killed save and leave by themselves."""
    pids = [status.read(path.parent).get("pid", 0) for path in home.glob("*/status.json")]
    until = time.monotonic() + 300
    while any(pid and os.path.exists(f"/proc/{pid}/exe") for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
