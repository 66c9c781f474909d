"""Two processes that train one run (torchrun, gloo) make the run that one process makes, but for rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked import Forked
from helpers import ROOT
from safetensors.torch import load_file
from slurm_cluster import free_ports

STEPS = 20
WORDS = (
    *("policy=bc_mlp", "policy.hidden_dim=16", "logger=none", "env.id=MiniGrid-Empty-5x5-v0", "env.data.episodes=60"),
    *("env.data.val_episodes=10", "trainer.batch_size=16", f"trainer.max_steps={STEPS}", "trainer.log_every=5"),
    *("trainer.eval_every=10", "trainer.eval_episodes=3", "trainer.save_every=0", "trainer.schedule.warmup=5"),
    *("eval.episodes=5", "eval.media=1", "eval.decode=[sampled]"),
)


Finish = Callable[..., str]


def command(data_dir: Path, folder: str, *words: str) -> list[str]:
    return [str(ROOT / "launch.py"), *WORDS, f"data_dir={data_dir}", *words, f"hydra.run.dir={folder}"]


def torchrun(here: Path, data_dir: Path, folder: str, *words: str) -> subprocess.Popen[str]:
    """Two processes."""
    twice = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [*twice, *command(data_dir, folder, *words)]
    return subprocess.Popen(line, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def finish(forked: Forked, here: Path, data_dir: Path) -> Finish:
    """Run so many processes to their end, with the environment that torchrun gives them. Returns what all of them printed."""

    def run(folder: str, count: int, *words: str, code: int = 0) -> str:
        [port] = free_ports(1)
        meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        processes = []
        for rank in map(str, range(count)):
            environment = {**os.environ, **meeting, "RANK": rank, "LOCAL_RANK": rank}
            processes.append(forked.start([sys.executable, *command(data_dir, folder, *words)], here, environment))
        output = "".join(process.communicate()[0] for process in processes)
        assert {process.returncode for process in processes} == {code}, output
        return output

    return run


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path, rel: float = 1e-5) -> None:
    assert len(rows(one)) == len(rows(other)) > 4
    for made, wanted in zip(rows(one), rows(other), strict=True):
        assert made == pytest.approx(wanted, rel=rel, abs=rel / 10)
    scores = [json.loads((folder / "evaluation.json").read_text())["scores"] for folder in (one, other)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["us", "torchrun"])
def test_two_processes_are_one_and_their_run_goes_on_with_one(finish: Finish, here: Path, data_dir: Path, by: str):
    finish("one", 1)
    if by == "torchrun":
        process = torchrun(here, data_dir, "two")
        output = process.communicate()[0]
        assert process.returncode == 0, output
    else:
        output = finish("two", 2)
    assert output.count("run folder") == 1  # one of them speaks
    assert_alike(here / "two", here / "one")
    assert {path.name for path in (here / "two").iterdir()} == {path.name for path in (here / "one").iterdir()}
    (here / "two" / "checkpoints" / f"step-{STEPS}").rename(here / "gone")
    finish("two", 1, "resume=true")
    assert_alike(here / "two", here / "one")


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one(finish: Finish, here: Path, data_dir: Path):
    """Before rounding adds up: the first moments after one step are a tenth of its gradient."""
    one_step = ("trainer.max_steps=1", "trainer.log_every=1", "trainer.eval_every=0", "trainer.eval_episodes=0")
    for folder, count in (("one", 1), ("two", 2)):
        finish(folder, count, *one_step)
    states = [load_file(here / folder / "checkpoints/step-1/training.safetensors") for folder in ("one", "two")]
    [wanted, made] = [torch.cat([x.flatten() for name, x in state.items() if name.endswith("/exp_avg")]) for state in states]
    assert wanted.norm() > 0 and (made - wanted).norm() < 1e-6 * wanted.norm()
    assert rows(here / "two")[0] == pytest.approx(rows(here / "one")[0], rel=1e-6)


@pytest.mark.slow
def test_rounds_of_dagger_are_played_once_for_all_processes(finish: Finish, here: Path):
    rounds = ("trainer=dagger", "trainer.rounds=2", "trainer.episodes=6")
    finish("one", 1, *rounds)
    output = finish("two", 2, *rounds)
    assert output.count("round 2 of 2: 6 episodes") == 1
    assert_alike(here / "two", here / "one")


@pytest.mark.slow
def test_a_lost_process_is_said_and_nothing_else_is_lost(finish: Finish, here: Path, data_dir: Path):
    words = ("trainer.max_steps=150", "trainer.save_every=10")
    finish("undisturbed", 2, *words)
    process = torchrun(here, data_dir, "two", *words)
    while not [*here.glob("two/checkpoints/step-*")]:
        assert process.poll() is None
        time.sleep(0.05)
    main = json.loads((here / "two/status.json").read_text())["pid"]
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(next(int(child) for child in children if int(child) != main), signal.SIGKILL)
    process.communicate()
    said = json.loads((here / "two/status.json").read_text())
    assert said["status"] in ("failed", "preempted") and ("was lost" in said.get("reason", "") or said["status"] == "preempted")
    finish("two", 2, *words, "resume=true")
    assert rows(here / "two") == rows(here / "undisturbed")


@pytest.mark.parametrize("by", ["us", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_a_batch_that_cannot_be_divided(finish: Finish, here: Path, data_dir: Path, by: str):
    if by == "torchrun":
        process = torchrun(here, data_dir, "two", "trainer.batch_size=15")
        output = process.communicate()[0]
        assert process.returncode
    else:
        output = finish("two", 2, "trainer.batch_size=15", code=2)
    assert output.count("trainer.batch_size=15 cannot be divided by 2 processes; choose a multiple of 2") == 1
    assert 'launch.py", line' not in output and not (here / "two").exists()
