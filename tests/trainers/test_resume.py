"""A run that was killed and resumed is, bit for bit, the run that was not: weights, optimiser, average, metrics."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked, Process
from helpers import ROOT, options, pair

STEPS = 60
ARGUMENTS = (
    "env.data.episodes=200",
    "env.data.val_episodes=20",
    f"trainer.max_steps={STEPS}",
    "trainer.batch_size=16",
    "trainer.log_every=7",  # not a multiple of anything else, so that sums are interrupted in the middle
    "trainer.eval_every=20",
    "trainer.eval_episodes=5",
    "trainer.save_every=3",
    "trainer.schedule.warmup=10",
    "eval.episodes=10",
    "eval.episodes_per_task=5",
    "eval.media=0",
    "logger=none",
)


TOY = ("--config-dir", str(ROOT / "tests/toy_conf"), "trusted_packages=[toy]")
# whose convolutions and continuous actions have a state of their own, in the toy
WITH_IMAGES = ("act", "bc_gru", "bc_mlp", "diffusion_unet", "masked_dit")
DAGGER = ("trainer=dagger", "trainer.episodes=20")

# The state that a resume could lose is not the same under every option.
OPTIONS = {
    "bc_mlp": ("trainer.accumulate=2", "trainer.ema=0"),
    "diffusion_unet": ("policy.draws=1",),  # each draw costs as much as the step
    "masked_dit": ("logger=tensorboard",),
}


def start(forked: Forked, here: Path, folder: str, *arguments: str) -> Process:
    where = TOY if "env=toy" in arguments else ("env.id=MiniGrid-DoorKey-5x5-v0", "env.max_steps=40")
    usual = [word for word in ARGUMENTS if word != "logger=none" or not any(own.startswith("logger=") for own in arguments)]
    command = [sys.executable, str(ROOT / "launch.py"), *where, *usual, *arguments, f"hydra.run.dir={folder}", "resume=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    return forked.start(command, here, environment)


def finish(forked: Forked, here: Path, folder: str, *arguments: str) -> str:
    process = start(forked, here, folder, *arguments)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def step_of(folder: Path) -> int:
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("checkpoints/step-*")]
    return max(steps, default=-1)


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    last = [folder / f"checkpoints/step-{STEPS}" for folder in (one, other)]
    for name in ("training.safetensors", "policy.safetensors"):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()
    states = [json.loads((folder / "state.json").read_text()) for folder in last]
    for state in states:
        for name in ("seconds", "step_seconds"):
            state.pop(name)
    assert states[0] == states[1]
    assert os.readlink(one / "checkpoints/best") == os.readlink(other / "checkpoints/best")
    scores = [json.loads((folder / "evaluation.json").read_text())["scores"] for folder in (one, other)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "env", "trainer"),
    [
        *((name, "minigrid", ()) for name in options("policy")),
        *((name, "toy", ()) for name in WITH_IMAGES),
        *((name, env, DAGGER) for name, env in (("bc_gru", "minigrid"), ("act", "toy"))),
    ],
)
def test_killed_and_resumed_is_the_run_that_was_not(forked: Forked, here: Path, policy: str, env: str, trainer: tuple[str, ...]):
    plateau = ("trainer.schedule.name=plateau", "trainer.schedule.patience=1")
    assert_kills_change_nothing(forked, here, *trainer, *pair(policy, env), *plateau, *OPTIONS.get(policy, ()))


@pytest.mark.slow
def test_kills_change_nothing_of_a_run_that_freezes_its_backbone(forked: Forked, here: Path):
    assert_kills_change_nothing(forked, here, *pair("bc_mlp", "toy"), "trainer.freeze_after=15")


@pytest.mark.slow
def test_kills_change_nothing_of_a_run_on_cached_features(forked: Forked, here: Path):
    finish(forked, here, "start", *pair("bc_mlp", "toy"))
    assert_kills_change_nothing(forked, here, *pair("act", "toy"), "init_from=start", "trainer.cache_features=true")


def assert_kills_change_nothing(forked: Forked, here: Path, *extra: str) -> None:
    finish(forked, here, "whole", *extra)
    # Killed several times: after the first checkpoint, then at random times, also while saving and validating.
    kills, chance = 0, random.Random(extra[0])
    while kills < 3 or step_of(here / "cut") < STEPS // 2:
        before = step_of(here / "cut")
        process = start(forked, here, "cut", *extra)
        while process.poll() is None and step_of(here / "cut") <= before + 6:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.2)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills >= 3
    assert 0 < step_of(here / "cut") < STEPS, "the kills came too late to prove anything"
    output = finish(forked, here, "cut", *extra)
    assert "resumed from step-" in output
    assert_same_run(here / "whole", here / "cut")


@pytest.fixture(scope="module")
def whole(imported: Forked, tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The run that nobody stops."""
    place = tmp_path_factory.mktemp("whole")
    (place / "data").symlink_to(data_dir)
    finish(imported, place, "run", "policy=bc_mlp")
    return place / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2], ids=lambda number: number.name
)
def test_a_polite_stop_saves_and_says_how_to_go_on(forked: Forked, here: Path, whole: Path, number: signal.Signals):
    process = start(forked, here, "stopped", "policy=bc_mlp")
    while step_of(here / "stopped") < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 4, output
    assert json.loads((here / "stopped/status.json").read_text())["status"] == "preempted"
    command = next(line for line in output.splitlines() if "resume=true" in line).strip()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if number == signal.SIGTERM:  # once as a user would; it imports PyTorch anew
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, timeout=300)
    else:
        _, place, _, _, *words = shlex.split(command)  # cd PLACE && python launch.py ...
        done = forked.run([sys.executable, *words], Path(place), environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(whole, here / "stopped")


def test_a_damaged_checkpoint_is_not_the_end(forked: Forked, here: Path):
    words = ("policy=bc_mlp", "trainer.save_every=6", "trainer.eval_every=30", "eval.episodes=3")
    finish(forked, here, "whole", *words)
    process = start(forked, here, "cut", *words)
    while step_of(here / "cut") < 12:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    newest = here / f"cut/checkpoints/step-{step_of(here / 'cut')}"
    file = newest / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    output = finish(forked, here, "cut", *words)
    assert f"{newest.name} is damaged" in output and "resumed from" in output
    assert_same_run(here / "whole", here / "cut")


@pytest.fixture(autouse=True)
def shared_data(here: Path, data_dir: Path) -> None:
    (here / "data").symlink_to(data_dir)
