"""Runs that are trained together are the runs that they would be alone, but for rounding; a killed group goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, pair

from conf import together
from conf.errors import BadRequest
from envs.data import record, statistics
from envs.data.windows import Windows
from policies.base import Policy
from policies.store import write_tensors
from trainers.loop import saving
from trainers.loop.source import Source
from trainers.loop.stacked import Stack, refuse_too_many
from trainers.loop.state import State
from trainers.loop.step import Step

CPU = torch.device("cpu")
STEPS = 4
SMALL = ("trainer.batch_size=8", "trainer.schedule.warmup=0")
ALIKE = 1e-3  # largest difference, in the length of the way from the first weights


def steps_of(requests: list[Any], data_dir: Path) -> list[Step]:
    """One for each request, on the same data."""
    family = requests[0].targets["env"](requests[0].env)
    data = record.dataset(family, requests[0].env.data, "train", data_dir)
    made, windows = [], None
    for request in requests:
        torch.manual_seed(request.seed)
        policy = request.targets["policy"](request.policy, family.spaces)
        policy.fit(statistics.summarise(data))
        windows = windows or Windows(data, policy.window)
        source = Source(windows, request.trainer.batch_size, request.seed, CPU)
        made.append(Step(request.trainer, policy.train(), source, STEPS, request.seed, CPU))
    return made


LONG = ("ad", "act", "diffusion_unet")
CASES = {
    "masked_dit": ("policy.dropout=0.1", "trainer.accumulate=2"),
    "bc_mlp": ("policy.frames=[2,0]", "policy.dropout=0.2"),
    "ad": (),
    "act": (),
    "diffusion_unet": (),
}


@pytest.mark.parametrize("policy", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CASES])
def test_stacked_steps_are_the_single_ones(request_for: Callable, data_dir: Path, policy: str):
    words = (*pair(policy, "darkroom" if policy == "ad" else "minigrid"), *CASES[policy], *SMALL)
    swept: list[tuple[str, ...]] = [("trainer.optimizer.lr=1e-3",), ("trainer.optimizer.lr=3e-3", "trainer.grad_clip=0"), ()]
    if "policy.dropout=0.1" in words:
        swept[2] = ("policy.dropout=0", "trainer.optimizer.weight_decay=0.1")
    requests = [request_for(*words, *own, f"seed={seed}") for seed, own in enumerate(swept)]
    alone, members = steps_of(requests, data_dir), steps_of(requests, data_dir)
    begun = [flat(step.policy) for step in members]
    stack = Stack(members)
    for number in range(STEPS):
        stack.take(number, [True] * len(members))
    for one, other, start in zip(alone, members, begun, strict=True):
        for number in range(STEPS):
            one.take(one.source.inputs(number), number)
        for after, expected in zip(other.fetch(), one.fetch(), strict=True):
            assert after.not_finite is None and after.metrics.keys() == expected.metrics.keys()
            for name, value in expected.metrics.items():
                np.testing.assert_allclose(after.metrics[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
        # Adam makes steps of full length out of gradients that are rounding errors, so that single weights may differ.
        way = flat(one.policy) - start
        assert (flat(other.policy) - flat(one.policy)).norm() < ALIKE * way.norm()
        assert (flat(other.acting) - flat(one.acting)).norm() < ALIKE * (flat(one.acting) - start).norm()
        assert other.average and one.average and other.average.count == one.average.count
        for made, wanted in zip(*(step.optimizer.state_dict()["state"].values() for step in (other, one)), strict=True):
            assert made["step"] == wanted["step"] == STEPS and made["exp_avg"].shape == wanted["exp_avg"].shape


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in policy.parameters()])


def test_one_that_stands_still_and_one_that_is_not_finite(request_for: Callable, data_dir: Path):
    requests = [request_for(*pair("bc_mlp"), *SMALL, f"seed={seed}") for seed in range(3)]
    members = steps_of(requests, data_dir)
    stack = Stack(members)
    with torch.no_grad():
        next(members[1].policy.parameters()).fill_(torch.nan)
    before = [{name: weight.clone() for name, weight in step.policy.state_dict().items()} for step in members]
    stack.take(0, [True, True, False])
    stack.take(1, [True, True, False])
    changed = [
        any(
            not torch.equal(weight, old[name]) for name, weight in step.policy.state_dict().items() if not old[name].isnan().any()
        )
        for step, old in zip(members, before, strict=True)
    ]
    assert changed == [True, False, False]
    assert [len(step.fetch()) for step in members] == [2, 2, 0] and stack.bad_in_row.tolist() == [0, 2, 0]


def test_a_checkpoint_goes_on_beside_other_runs(request_for: Callable, data_dir: Path, tmp_path: Path):
    requests = [request_for(*pair("bc_mlp"), *SMALL, f"seed={seed}") for seed in range(3)]
    [alone], members = steps_of(requests[1:2], data_dir), steps_of(requests[:2], data_dir)
    begun, stack = flat(alone.policy), Stack(members)
    for number in range(2):
        stack.take(number, [True, True])
    data = members[1].source.fingerprint
    saving.save(tmp_path, State(data, 1, step=2), members[1], lambda folder, acting: write_policy(folder, acting), 2)
    others = steps_of(requests[1:], data_dir)
    found = saving.resume(tmp_path, data, others[0])
    assert found and found.step == 2
    stack = Stack(others)
    for number in range(2, STEPS):
        stack.take(number, [True, True])
    for number in range(STEPS):
        alone.take(alone.source.inputs(number), number)
    assert (flat(others[0].policy) - flat(alone.policy)).norm() < ALIKE * (flat(alone.policy) - begun).norm()
    assert (flat(others[0].acting) - flat(alone.acting)).norm() < ALIKE * (flat(alone.acting) - begun).norm()


def write_policy(folder: Path, acting: Policy) -> None:
    write_tensors(folder / "policy.safetensors", acting.state_dict())
    (folder / "policy.json").write_text("{}")


def test_more_than_fit_into_memory():
    refuse_too_many(4, 1e9, 5e9, "cuda")
    with pytest.raises(BadRequest, match=r"8 runs together need 9.6 GB of memory, and cuda has 5 GB free.*cluster.together=4"):
        refuse_too_many(8, 1e9, 5e9, "cuda")


# --- the command -----------------------------------------------------------------------------------------------------

SWEEP = (
    *("-m", "policy=bc_mlp", "policy.hidden_dim=16", "logger=none", "env.id=MiniGrid-Empty-5x5-v0", "hydra.sweep.dir=sweep"),
    *("env.data.episodes=60", "env.data.val_episodes=10", "trainer.batch_size=16", "trainer.max_steps=24", "trainer.log_every=7"),
    *("trainer.eval_every=12", "trainer.eval_episodes=2", "trainer.save_every=0", "trainer.schedule.warmup=5"),
    *("eval.episodes=4", "eval.media=0", "policy.dropout=0.1"),
)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_sweep_together_is_the_sweep(launch: Callable, here: Path):
    grid = ("seed=0,1", "trainer.optimizer.lr=1e-3,1e-2")
    done = launch(*SWEEP, *grid, "cluster.together=4")
    assert "4 runs in 1 groups" in done.stdout
    os.rename(here / "sweep", here / "together")
    launch(*SWEEP, *grid)
    folders = sorted(path.parent.name for path in here.glob("sweep/*/config.yaml"))
    assert len(folders) == 4
    for name in folders:
        one, other = here / "together" / name, here / "sweep" / name
        written = {path.name for path in other.iterdir()} - {"output.txt"}
        assert written <= {path.name for path in one.iterdir()}, name
        assert json.loads((one / "status.json").read_text())["status"] == "done"
        assert (one / "config.yaml").read_bytes() == (other / "config.yaml").read_bytes()
        assert "step 24: val/loss" in (one / "log.txt").read_text()
        for made, wanted in zip(rows(one), rows(other), strict=True):
            assert made.keys() == wanted.keys()
            for key in ("step", "train/loss", "val/loss", "train/grad_norm", "train/lr"):
                if key in wanted:
                    assert made[key] == pytest.approx(wanted[key], rel=1e-3, abs=1e-5), (name, key)


@pytest.mark.slow
def test_a_killed_group_goes_on(here: Path, data_dir: Path, launch: Callable):
    words = (*SWEEP, "seed=0,1,2", "cluster.together=3", "trainer.save_every=4")
    command = [sys.executable, str(ROOT / "launch.py"), *words, f"data_dir={data_dir}"]
    launch(*words)
    os.rename(here / "sweep", here / "undisturbed")
    process = subprocess.Popen(command, cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while not [*here.glob("sweep/seed=2*/checkpoints/step-*")]:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    [place] = here.glob("sweep/seed=2*")
    os.kill(json.loads((place / "status.json").read_text())["pid"], signal.SIGKILL)
    process.wait()
    assert process.returncode == 1
    assert {json.loads(path.read_text())["status"] for path in here.glob("sweep/*/status.json")} == {"failed"}
    # One is ahead of the others, as after a kill between two checkpoints.
    for path in sorted(here.glob("sweep/seed=0*/checkpoints/step-*"), key=lambda path: int(path.name[5:]))[-1:]:
        path.rename(path.with_name(".away"))
    launch(*words)
    for one in here.glob("sweep/*/metrics.jsonl"):
        other = here / "undisturbed" / one.parent.name
        assert one.read_bytes() == (other / "metrics.jsonl").read_bytes()
        weights = "checkpoints/step-24/training.safetensors"
        assert (one.parent / weights).read_bytes() == (other / weights).read_bytes()


def test_a_swept_shape_is_refused_before_anything_starts(launch: Callable, here: Path):
    done = launch(*SWEEP, "seed=0,1", "policy.token_dim=8,16", "cluster.together=2", check=False)
    assert done.returncode == 2 and "these differ in policy.token_dim (8 and 16): launch one sweep for each" in done.stderr
    assert "Traceback" not in done.stderr and not (here / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("policy=bc_gru",), "BCGRU cannot be stacked"),
        (("mode=collect",), "mode=collect trains nothing"),
        (("trainer=dagger",), "DAgger makes data of its own for each run"),
        (("trainer.compile=true",), "trainer.compile is for a single run"),
    ],
)
def test_what_cannot_be_trained_together(request_for: Callable, words: tuple[str, ...], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        together.refuse([request_for(*words, f"seed={seed}") for seed in range(2)], 2)


def test_what_may_differ(request_for: Callable):
    swept = ("seed=1", "trainer.optimizer.lr=1e-2", "trainer.schedule.warmup=9", "policy.dropout=0.5", "policy.temperature=2")
    together.refuse([request_for(), *(request_for(word) for word in swept)], 6)
