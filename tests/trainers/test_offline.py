"""The loop itself, in one process: how a step changes the weights, and what happens to steps that are not finite."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conf.errors import BadRequest
from envs.base import Score
from envs.data import record
from envs.data.statistics import Floor
from envs.data.windows import Windows
from policies.base import Batch, Loss, Policy
from policies.noise import Noise
from policies.store import write_tensors
from trainers.base import Run
from trainers.loop import saving
from trainers.offline import Offline
from trainers.record.boards import Config as Logger
from trainers.record.records import Records

SMALL = ("policy=bc_mlp", "env.id=MiniGrid-DoorKey-5x5-v0", "trainer.batch_size=32", "trainer.schedule.warmup=0", "trainer.ema=0")


def save_acting_weights(into: Path, acting: Policy) -> None:
    write_tensors(into / "policy.safetensors", acting.state_dict())
    (into / "policy.json").write_text("{}")  # every checkpoint has one


@pytest.fixture
def trainer(request_for: Callable, data_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Offline]]:
    trainers = []

    def make(*overrides: str, folder: str = "run", floor: Floor | None = None) -> Offline:
        request = request_for(*SMALL, *overrides)
        family = request.targets["env"](request.env)
        torch.manual_seed(0)
        policy = request.targets["policy"](request.policy, family.spaces)
        windows = Windows(record.dataset(family, request.env.data, "train", data_dir), policy.window)
        place = tmp_path / folder
        place.mkdir()
        made = Offline(
            request.trainer,
            policy,
            windows,
            windows,
            Run(
                place,
                seed=0,
                device=torch.device("cpu"),
                save_policy=save_acting_weights,
                make_records=lambda offset, step, digest: Records(place, Logger("none"), offset, step, digest),
                floor=floor,
            ),
        )
        trainers.append(made)
        return made

    yield make
    for made in trainers:
        if hasattr(made, "journal"):
            made.journal.records.close()


def rows(trainer: Offline) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trainer.run.folder / "metrics.jsonl").read_text().splitlines()]


def break_steps(trainer: Offline, steps: set[int]) -> None:
    """A loss that overflows in some steps, as after a too large step."""
    take, forward = trainer.step.take, trainer.policy.forward
    factor = torch.ones(())

    def broken(inputs: Batch, number: int) -> None:
        factor.fill_(math.inf if number in steps else 1.0)
        take(inputs, number)

    def overflows(batch: Batch, noise: Noise) -> Loss:
        loss = forward(batch, noise)
        return loss._replace(total=loss.total * factor)

    trainer.step.take, trainer.policy.forward = broken, overflows  # type: ignore[method-assign]


def test_a_step_is_the_optimiser_step_on_the_mean_loss(trainer):
    ours = trainer("trainer.grad_clip=0", "trainer.schedule.name=constant")
    by_hand = trainer("trainer.grad_clip=0", folder="other")
    ours.begin()
    for step in range(3):
        ours.advance()
        by_hand.step.number.fill_(step)
        loss = by_hand.step.loss(by_hand.batch(step), torch.arange(32), step)
        by_hand.step.optimizer.zero_grad()
        (loss.total / loss.count).backward()
        by_hand.step.optimizer.step()
    for a, b in zip(ours.policy.parameters(), by_hand.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_accumulation_gives_the_same_step(trainer):
    whole, parts = trainer(), trainer("trainer.accumulate=4", folder="parts")
    for made in (whole, parts):
        made.begin()
        made.advance()
    for a, b in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


def test_data_on_the_device_give_the_same_weights(trainer):
    host, device = trainer(), trainer("trainer.data_on=device", folder="device")
    assert device.source.placed and not host.source.placed
    for made in (host, device):
        made.begin()
        for _ in range(3):
            made.advance()
    for a, b in zip(host.policy.parameters(), device.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_divergence_that_is_learned_of_late_is_kept_as_it_was(trainer):
    """Steps after the divergence run until the host fetches from the device, and must change nothing."""
    early = trainer("trainer.max_steps=40", "trainer.bad_steps=2", "trainer.log_every=1", "trainer.ema=0.9")
    late = trainer("trainer.max_steps=40", "trainer.bad_steps=2", "trainer.log_every=30", "trainer.ema=0.9", folder="late")
    for made in (early, late):
        break_steps(made, {3, 4})  # the ones behind it are fine again
        outcome = made.fit()
        assert (outcome.status, outcome.step, made.state.skipped) == ("diverged", 5, 2)
    assert early.step.average and late.step.average and int(late.step.average.count) == 3
    for name in ("batch", "weights"):
        one, other = (load_file(made.run.folder / f"diverged/{name}.safetensors") for made in (early, late))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_gradients_are_clipped_and_the_norm_is_logged_before(trainer):
    free = trainer("trainer.grad_clip=0", "trainer.log_every=1")
    clipped = trainer("trainer.grad_clip=0.01", "trainer.log_every=1", folder="clipped")
    norms = []
    for made in (free, clipped):
        made.begin()
        made.advance()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in made.step.parameters]).item())
    assert norms[0] > 0.05 and norms[1] == pytest.approx(0.01, rel=1e-3)
    for made in (free, clipped):
        made.journal.records.close()
        assert rows(made)[0]["train/grad_norm"] == pytest.approx(norms[0], rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(trainer, capsys):
    made = trainer("trainer.max_steps=6", "trainer.log_every=6", "trainer.ema=0.9")
    break_steps(made, {2, 4})
    made.begin()
    for step in range(6):
        before = [parameter.clone() for parameter in made.policy.parameters()]
        count = int(made.step.average.count)
        made.advance()
        same = all(torch.equal(a, b) for a, b in zip(before, made.policy.parameters(), strict=True))
        assert same == (step in {2, 4})
        assert made.step.average.count == count + (step not in {2, 4})
    made.journal.records.close()
    (row,) = rows(made)
    assert row["train/skipped"] == 2 and math.isfinite(row["train/loss"])
    said = capsys.readouterr().out
    assert "step 3" in said and "step 5" in said and said.count("trainer.optimizer.lr") == 1
    found = json.loads((made.run.folder / "health.json").read_text())["during_training"]
    assert "at step 3 the " in found["skipped"]


def test_several_in_a_row_end_the_run_and_keep_the_evidence(trainer):
    made = trainer("trainer.max_steps=20", "trainer.bad_steps=3")
    break_steps(made, {5, 7, 8, 9})
    outcome = made.fit()
    assert (outcome.status, outcome.step) == ("diverged", 10)
    batch = load_file(made.run.folder / "diverged/batch.safetensors")
    assert torch.equal(batch["observation.grid"], made.batch(9)["observation"]["grid"])
    weights = load_file(made.run.folder / "diverged/weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in made.policy.state_dict().items())


def test_a_run_whose_every_step_is_broken_ends_as_diverged(trainer):
    """No row of its metrics has a loss."""
    made = trainer("trainer.max_steps=20", "trainer.bad_steps=3", "trainer.log_every=1")
    break_steps(made, set(range(20)))
    assert made.fit().status == "diverged"
    assert [row["train/skipped"] for row in rows(made)] == [1, 2, 3] and "train/loss" not in rows(made)[0]


def test_one_batch_is_learned_or_the_run_fails(trainer):
    learns = trainer("trainer.overfit=true", "trainer.max_steps=60", "trainer.schedule.name=constant")
    assert learns.fit().status == "done"
    slow = trainer("trainer.overfit=true", "trainer.max_steps=60", "trainer.optimizer.lr=1e-7", folder="slow")
    assert slow.fit().status == "failed"


def test_a_stop_right_after_a_checkpoint_is_a_stop(trainer, monkeypatch):
    """A signal often arrives while the loop saves or validates; then the step is already saved."""
    made = trainer("trainer.max_steps=20", "trainer.save_every=1")
    save = made.save

    def signalled() -> None:
        first = made.saved < made.state.step
        save()
        if made.state.step == 4 and first:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(made, "save", signalled)
    assert (made.fit().status, made.state.step) == ("preempted", 4)


def test_rows_after_a_resume_follow_the_rows_before(trainer, tmp_path):
    """Truncated at the checkpoint, and saved again before a new row: the offset must be the truncated length."""
    records = Records(tmp_path, Logger("none"))
    records.scalars(1, {"x": 1.0})
    offset = records.flush()
    records.scalars(2, {"x": 1.0})
    records.close()
    resumed = Records(tmp_path, Logger("none"), offset, 1)
    assert resumed.flush() == offset
    resumed.scalars(2, {"x": math.nan})
    resumed.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "x": 1.0},
        {"step": 2, "x": None},
    ]


def test_a_finished_overfit_run_can_be_asked_again(trainer):
    words = ("trainer.overfit=true", "trainer.max_steps=60", "trainer.schedule.name=constant")
    first = trainer(*words)
    assert first.fit().status == "done"
    again = trainer(*words, folder="again")
    again.run = first.run
    again.begin()
    again.journal.records.close()
    assert again.state.step == first.state.step < 60 and again.fit().status == "done"  # it stops where it has learned


def test_the_best_step_is_the_latest_that_its_episodes_cannot_tell_from_the_highest(trainer):
    solved = iter([70, 90, 88, 60])  # of 100: the standard error is 3 to 5
    made = trainer("trainer.max_steps=4", "trainer.eval_every=1")
    made.validation.play = lambda policy: Score(np.arange(100) < next(solved), np.zeros(100), np.ones(100))
    made.fit()
    assert made.state.best is not None and (made.state.best_step, made.state.best[0]) == (3, 0.9)
    assert os.readlink(made.checkpoints / "best") == "step-3"


def test_other_data_is_not_gone_on_with(trainer):
    made = trainer("trainer.max_steps=3")
    made.fit()
    other = trainer("trainer.max_steps=3", "env.data.seed=1", folder="other")
    with pytest.raises(BadRequest, match="data"):
        saving.resume(made.checkpoints, other.state.data, other.step)


def test_epochs_are_a_budget(trainer):
    made = trainer("trainer.max_epochs=2")
    assert made.max_steps == math.ceil(2 * len(made.data) / 32)


@pytest.mark.slow
def test_a_loss_at_chance_is_said(trainer, capsys):
    trainer("trainer.max_steps=210", "trainer.optimizer.lr=1e-9").fit()
    assert "still at chance" in capsys.readouterr().out
    trainer("trainer.max_steps=210", folder="learns").fit()
    assert "still at chance" not in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_said_is_kept_and_not_said_again(trainer, capsys):
    words = ("trainer.max_steps=260", "trainer.optimizer.lr=1e-9")
    first = trainer(*words)
    first.begin()
    shown: list[tuple[str, dict[str, float]]] = []
    first.journal.records.health = lambda markdown, values: shown.append((markdown, values))  # type: ignore[method-assign]
    for _ in range(220):
        first.advance()
    first.save()
    first.journal.records.close()
    assert "still at chance" in capsys.readouterr().out
    (board,) = shown
    assert "still at chance" in board[0]
    written = first.run.folder / "health.json"
    before = json.loads(written.read_text())["during_training"]
    assert list(before) == ["chance"]

    written.write_text("{}")  # as the checks before the first step leave it, without later findings
    again = trainer(*words, folder="again")
    again.run = first.run
    assert again.fit().status == "done" and again.state.step == 260
    assert "still at chance" not in capsys.readouterr().out
    assert json.loads(written.read_text())["during_training"] == before


KNOWN, UNKNOWN = Floor(0.123, repeated=0.9, chance=math.log(7)), Floor(0.123, repeated=0.1, chance=math.log(7))


@pytest.mark.parametrize(
    "overrides, floor, train, action, words",
    [
        ((), KNOWN, 0.123, None, ["val/loss #.### (chance 1.946, floor 0.123)"]),
        ((), UNKNOWN, None, None, ["val/loss #.### (chance 1.946)"]),
        (("policy.horizon=4",), KNOWN, None, 0.123, ["(chance 2.079)", "first_action_loss #.### (chance 1.946, floor 0.123)"]),
        (("policy.horizon=4",), UNKNOWN, None, None, ["(chance 2.079)", "first_action_loss #.### (chance 1.946)"]),
    ],
)
def test_a_floor_stands_beside_the_loss_that_it_is_of(trainer, capsys, overrides, floor, train, action, words):
    made = trainer(*overrides, "trainer.max_steps=2", "trainer.log_every=1", floor=floor)
    made.fit()
    training, *_, validation = rows(made)
    assert training.get("train/floor") == train and validation.get("val/action_floor") == action
    line = re.sub(r"(loss) \d\.\d{3}", r"\1 #.###", capsys.readouterr().out)
    assert all(word in line for word in words), line
    assert ("floor 0.123" in made.journal.words) == (train is not None) and "chance" in made.journal.words


def test_bf16_steps_stay_near_the_plain_ones(trainer):
    plain, half = trainer("trainer.log_every=1"), trainer("trainer.precision=bf16", "trainer.log_every=1", folder="half")
    for made in (plain, half):
        made.begin()
        for _ in range(5):
            made.advance()
        made.journal.records.close()
    for a, b in zip(rows(plain), rows(half), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=0.05)
    assert rows(plain) != rows(half)


def test_half_precision_that_does_not_compile_on_a_cpu_is_refused(trainer):
    with pytest.raises(BadRequest, match=r"trainer\.compile=true with trainer\.precision=bf16 needs a GPU"):
        trainer("trainer.compile=true", "trainer.precision=bf16")


def test_a_captured_step_needs_a_gpu(trainer):
    with pytest.raises(BadRequest, match=r"trainer\.capture=on is not possible: CUDA graphs need device=cuda"):
        trainer("trainer.capture=on")
