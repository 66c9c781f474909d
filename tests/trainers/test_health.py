"""Each check is provoked by the failure it was made for, and keeps quiet on a healthy policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.data import record
from envs.data.windows import Windows
from trainers import health
from trainers.optim import ScheduleConfig


@pytest.fixture
def check(request_for: Callable, data_dir: Path) -> Callable:
    def run(*overrides: str, spoil: Callable = lambda policy: None) -> health.Report:
        request = request_for("env.id=MiniGrid-DoorKey-5x5-v0", *overrides)
        family = request.targets["env"](request.env)
        policy = request.targets["policy"](request.policy, family.spaces)
        data = record.dataset(family, request.env.data, "train", data_dir)
        spoil(policy)
        batch = Windows(data, policy.window).batch(np.arange(64))
        before = [parameter.clone() for parameter in policy.parameters()]
        report = health.before_training(policy, batch, data, seed=0)
        for old, new in zip(before, policy.parameters(), strict=True):
            assert torch.equal(old, new) and new.grad is None, "a check must not change the policy"
        return report

    return run


@pytest.mark.parametrize("policy, encoder", [("masked_dit", "mlp"), ("masked_dit", "conv"), ("bc_mlp", "mlp")])
def test_healthy_policies_get_no_warning(check, policy, encoder):
    report = check(f"policy={policy}", f"encoder={encoder}")
    assert report.warnings == []
    assert report.facts["first_loss"] == pytest.approx(report.facts["chance_loss"], rel=1e-4)


def test_a_layer_that_holds_the_model_is_named(check):
    """Write-up 000: 20 M parameters in one linear layer of the state tokenizer."""
    report = check("policy=masked_dit", "encoder=flat")
    assert report.facts["parameters"] > 20_000_000
    assert len(report.warnings) == 1
    assert "encoder.parts.grid.project.weight" in report.warnings[0] and "encoder=mlp" in report.warnings[0]


def test_outputs_that_start_too_large_are_named(check):
    """Write-up 002: untrained outputs with a standard deviation of 40."""

    def spoil(policy):
        with torch.no_grad():
            policy.head.weight.normal_(std=5.0)

    report = check("policy=masked_dit", spoil=spoil)
    assert report.facts["output_layer"] == "head" and report.facts["output_spread"] > 20
    assert any("standard deviation" in warning for warning in report.warnings)
    assert any("first loss" in warning for warning in report.warnings)


def test_a_part_that_gets_no_gradient_is_named(check):
    def spoil(policy):
        policy.unused = torch.nn.Linear(3, 3)
        policy.time.register_forward_hook(lambda module, inputs, output: output.detach())

    report = check("policy=masked_dit", spoil=spoil)
    (warning,) = report.warnings
    assert "unused.weight" in warning and "time.0.weight" in warning and "head" not in warning


def test_a_loss_that_is_not_finite_is_named(check):
    def spoil(policy):
        policy.head.register_forward_hook(lambda module, inputs, output: output / 0)

    assert any("not finite" in warning for warning in check("policy=masked_dit", spoil=spoil).warnings)


def test_still_at_chance():
    assert health.still_at_chance(loss=1.93, chance=1.95, floor=0.1, step=500)
    assert health.still_at_chance(loss=1.5, chance=1.95, floor=0.1, step=500) is None
    assert health.still_at_chance(loss=1.93, chance=1.95, floor=1.93, step=500) is None  # nothing is there to be learned


def test_a_schedule_that_cannot_act_is_named():
    """Write-up 001: a plateau schedule with a patience of 5 in a run of 3 epochs."""
    plateau = ScheduleConfig(name="plateau", patience=5)
    assert "patience" in str(health.idle_schedule(plateau, max_steps=2000, eval_every=500))
    assert "patience" in str(health.idle_schedule(plateau, max_steps=2000, eval_every=0))
    assert health.idle_schedule(plateau, max_steps=2000, eval_every=200) is None
    assert "warm-up" in str(health.idle_schedule(ScheduleConfig(warmup=100), max_steps=100, eval_every=50))
    assert health.idle_schedule(ScheduleConfig(), max_steps=2000, eval_every=500) is None


def test_the_table_counts_every_parameter(check):
    policy = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.Linear(10, 1))
    table = health.parameter_table(policy)
    assert "121" in str(table.title)
    assert list(table.columns[1].cells) == ["110", "11"]
