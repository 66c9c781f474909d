"""Each check is provoked by the failure it was made for, and keeps quiet on a healthy policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from envs.data import record, statistics
from envs.data.statistics import Floor
from envs.data.windows import Windows
from policies.base import Policy
from trainers import health
from trainers.optim import ScheduleConfig
from trainers.probes import not_finite

WRITE_UP = (  # 001's system, of which each mistake has its check
    "encoder=conv",
    "policy.layers=4",
    "policy.horizon=49",
    "policy.execute=49",
    "policy.corruption=noise",
    "policy.conditioning=pooled",
)


def unspoiled(policy: Policy, data: Windows) -> None:
    pass


@pytest.fixture
def check(request_for: Callable, data_dir: Path) -> Callable[..., health.Report]:
    """The report on a configuration, after `spoil(policy, data)` has brought back an old mistake."""

    def run(*overrides: str, spoil: Callable[[Policy, Windows], None] = unspoiled) -> health.Report:
        request = request_for("env.id=MiniGrid-DoorKey-5x5-v0", *overrides)
        family = request.targets["env"](request.env)
        policy = request.targets["policy"](request.policy, family.spaces)
        data, validation = (
            Windows(record.dataset(family, request.env.data, split, data_dir), policy.window) for split in ("train", "val")
        )
        spoil(policy, data)
        batch = data.batch(np.arange(64))
        before = [parameter.clone() for parameter in policy.parameters()]
        report = health.before_training(policy, batch, data, validation, statistics.floor(data), seed=0)
        for old, new in zip(before, policy.parameters(), strict=True):
            assert torch.equal(old, new) and new.grad is None, "a check must not change the policy"
        return report

    return run


def warning(report: health.Report, check: str) -> str:
    """What one check warns of, or nothing."""
    (finding,) = [finding for finding in report.findings if finding.check == check]
    return finding.warning or ""


@pytest.mark.parametrize("policy, encoder", [("masked_dit", "mlp"), ("masked_dit", "conv"), ("bc_mlp", "mlp")])
def test_healthy_policies_get_no_warning(check, policy, encoder):
    report = check(f"policy={policy}", f"encoder={encoder}")
    assert report.warnings == []
    assert report.facts["first_loss"] == pytest.approx(report.facts["chance_loss"], rel=1e-4)


def test_a_layer_that_holds_the_model_is_named(check):
    """Write-up 000: 41 M parameters, nearly all of them in one linear layer of the state tokenizer."""
    report = check("policy=masked_dit", *WRITE_UP, "encoder=flat", "policy.hidden_dim=128")
    assert 40_500_000 < report.facts["parameters"] < 42_000_000
    assert "encoder.parts.grid.project.weight (6272x6272)" in warning(report, "largest layer")
    assert "encoder=mlp" in warning(report, "largest layer")


def test_a_conditioning_that_is_not_normalised_is_named(check):
    """Write-up 002: features in the hundreds steer the network as they are; its untrained outputs had a deviation of 37 to 40."""

    def spoil(policy: Policy, data: Windows) -> None:
        policy.encoder.norm = nn.Identity()
        policy.encoder.register_forward_hook(lambda module, inputs, output: output.abs() * 600)
        for layer in (policy.head, policy.modulation, *(block.modulation for block in policy.blocks)):
            layer.reset_parameters()  # instead of starting at zero

    report = check("policy=masked_dit", spoil=spoil)
    assert report.facts["output_layer"] == "head" and 25 < report.facts["output_spread"] < 60
    sentence = warning(report, "spread of outputs")
    assert "the output layer head" in sentence and "it begins in" in sentence and "not normalised" in sentence
    assert "first loss" in warning(report, "first loss")


def test_a_spread_that_a_zero_output_layer_hides_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.pool.weight.data *= 1000

    report = check("policy=masked_dit", spoil=spoil)
    assert report.facts["output_spread"] == 0 and "the inner layer pool" in warning(report, "spread of outputs")


def test_a_part_that_gets_no_gradient_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.unused = nn.Linear(3, 3)
        policy.time.register_forward_hook(lambda module, inputs, output: output.detach())

    sentence = warning(check("policy=masked_dit", spoil=spoil), "gradients")
    assert "unused.weight" in sentence and "time.0.weight" in sentence and "head" not in sentence


def test_a_loss_that_is_not_finite_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.head.register_forward_hook(lambda module, inputs, output: output / 0)

    assert "not finite" in warning(check("policy=masked_dit", spoil=spoil), "first loss")


def test_a_batch_with_holes_is_named():
    batch = {"observation": {"state": torch.tensor([[1.0, float("nan")]]), "grid": torch.zeros(1, 3, dtype=torch.uint8)}}
    assert not_finite(batch) == ["observation.state (50.0% of its values)"]
    assert not_finite({"action": torch.zeros(3)}) == []


def test_repeating_the_last_action_is_named(check):
    """Write-up 001: 49 slots padded with the last action; its loss was low and its success 0."""
    report = check("policy=masked_dit", *WRITE_UP, "policy.padding=repeat_last")
    assert report.facts["behind_the_end"] > 0.8
    assert "policy.padding=end" in warning(report, "padding")


def test_plans_beyond_the_episodes_are_named(check):
    report = check("policy=masked_dit", *WRITE_UP)  # padded with END: nothing false is learned, but most slots are empty
    assert "policy.horizon" in warning(report, "padding") and "policy.padding" not in warning(report, "padding")


def test_train_equal_to_test_is_named(check):
    """Write-up 001: Empty-8x8 has one layout and one start."""
    report = check("policy=bc_mlp", "env.id=MiniGrid-Empty-8x8-v0")
    assert report.facts["val_in_training"] == 1 and "100%" in warning(report, "held-out data")


def test_a_floor_at_chance_is_named(check):
    """Write-up 003: what was drawn for training did not depend on anything seen; the loss stayed at ln 5 for 150,000 steps."""

    def spoil(policy: Policy, data: Windows) -> None:
        random = np.random.default_rng(0)
        data.dataset.columns["action"] = random.integers(7, size=len(data))
        for name, column in data.dataset.observations.items():
            data.dataset.observations[name] = column[random.integers(8, size=len(data))]  # eight views, all often seen

    report = check("policy=bc_mlp", "env.data.episodes=200", spoil=spoil)
    assert "no hyper-parameter" in warning(report, "entropy floor")


def test_a_label_that_is_nearly_always_right_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        data.dataset.columns["action"] = np.where(np.arange(len(data)) % 50 == 0, 1, 2)

    assert "98" in warning(check("policy=bc_mlp", spoil=spoil), "label balance")


def test_a_floor_that_cannot_be_counted_is_not_claimed(check):
    def spoil(policy: Policy, data: Windows) -> None:
        unique = np.stack([np.arange(len(data)) % 200, np.arange(len(data)) // 200], axis=1).astype(np.uint8)
        data.dataset.observations["mission"] = np.pad(unique, ((0, 0), (0, 16)))  # no view occurs twice

    report = check("policy=bc_mlp", spoil=spoil)
    assert report.facts["action_floor"]["repeated"] == 0 and not warning(report, "entropy floor")
    assert any("not countable" in finding.measured for finding in report.findings)


def test_a_schedule_that_cannot_act_is_named():
    """Write-up 001: a plateau schedule with a patience of 5 in a run of 3 epochs."""

    def sentence(config: ScheduleConfig, max_steps: int, eval_every: int) -> str:
        report = health.Report()
        health.schedule(report, config, max_steps, eval_every)
        return warning(report, "schedule")

    plateau = ScheduleConfig(name="plateau", patience=5)
    assert "patience" in sentence(plateau, max_steps=2000, eval_every=500)
    assert "patience" in sentence(plateau, max_steps=2000, eval_every=0)
    assert not sentence(plateau, max_steps=2000, eval_every=200)
    assert "warm-up" in sentence(ScheduleConfig(warmup=100), max_steps=100, eval_every=50)
    assert not sentence(ScheduleConfig(), max_steps=2000, eval_every=500)


def watch(chance: float = 1.95, floor: Floor | None = None) -> health.Watch:
    return health.Watch(chance, floor, max_steps=1000, grad_clip=1.0)


def row(loss: float = 1.0, norm: float = 0.5) -> dict[str, float]:
    return {"train/loss": loss, "train/grad_norm": norm}


def test_a_dead_loss_is_named_once():
    seen = watch(floor=Floor(0.1, repeated=1))
    assert not list(seen.look(100, row(loss=1.94)))  # too early to tell
    (sentence,) = seen.look(500, row(loss=1.94))
    assert "trainer.optimizer.lr" in sentence and "0.100" in sentence
    assert not list(seen.look(550, row(loss=1.94)))
    assert not list(watch().look(500, row(loss=1.5)))
    assert not list(watch(floor=Floor(1.93, repeated=1)).look(500, row(loss=1.94)))  # nothing is there to be learned


def test_gradients_that_vanish_or_explode_are_named():
    assert "saturated" in next(watch().look(10, row(norm=1e-9)))
    assert "grad_clip" in next(watch().look(10, row(norm=1e4)))
    assert not list(watch().look(10, row(norm=30.0)))


def test_a_run_that_learns_nothing_says_so(launch: Callable, here: Path):
    words = ("policy=bc_mlp", "env.id=MiniGrid-DoorKey-5x5-v0", "env.data.episodes=40", "env.data.val_episodes=10")
    run = ("trainer.max_steps=250", "trainer.eval_every=0", "trainer.eval_episodes=0", "eval.episodes=5", "logger=none")
    done = launch(*words, *run, "trainer.optimizer.lr=1e-12", "hydra.run.dir=run")
    assert "still at chance" in done.stdout
    assert json.loads((here / "run/health.json").read_text())["during_training"] == ["chance"]


def test_debug_health_reports_and_trains_nothing(launch: Callable, here: Path):
    done = launch("debug=health", "experiment=seed_001", "hydra.run.dir=run")
    for words in ("padding=end", "patience", "too few layouts", "look", "ok"):
        assert words in done.stdout, words
    report = json.loads((here / "run/health.json").read_text())
    assert len(report["warnings"]) == 3 and len(report["checks"]) == 10
    assert not (here / "run/checkpoints").exists()


def test_the_table_counts_every_parameter():
    policy = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 1))
    table = health.parameter_table(policy)
    assert "121" in str(table.title)
    assert list(table.columns[1].cells) == ["110", "11"]
