"""Each check warns about the failure that it was made for, and does not warn about a healthy policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import helpful, missing_extra
from hydra import compose
from torch import nn

from envs.data import record, statistics
from envs.data.windows import Window, Windows
from policies.base import Batch, Loss, Policy
from policies.noise import Noise
from trainers.health import checks
from trainers.health.probes import Probe, not_finite
from trainers.health.report import Report
from trainers.loop.optim import Schedule, ScheduleConfig

WRITE_UP = (  # 001's system, of which each mistake has its check
    "encoder=conv",
    "policy.layers=4",
    "policy.heads=4",
    "policy.feedforward=4",
    "policy.horizon=49",
    "policy.execute=49",
    "policy.corruption=noise",
    "policy.conditioning=pooled",
)


def unspoiled(policy: Policy, data: Windows) -> None:
    pass


@pytest.fixture
def check(request_for: Callable, data_dir: Path) -> Callable[..., Report]:
    """The report on a configuration, after `spoil(policy, data)` has brought back an old mistake."""

    def run(
        *overrides: str, spoil: Callable[[Policy, Windows], None] = unspoiled, batch_size: int = 64, trained: bool = False
    ) -> Report:
        where = () if any(word.startswith("experiment=") for word in overrides) else ("env.id=MiniGrid-DoorKey-5x5-v0",)
        request = request_for(*where, *overrides)
        family = request.targets["env"](request.env)
        policy = request.targets["policy"](request.policy, family.spaces)
        data, validation = (
            Windows(record.dataset(family, request.env.data, split, data_dir), policy.window) for split in ("train", "val")
        )
        spoil(policy, data)
        batch = data.batch(np.arange(batch_size))
        before = [parameter.clone() for parameter in policy.parameters()]
        discrete = isinstance(family.spaces.action, spaces.Discrete)
        floor = statistics.floor(data, policy.modalities) if discrete else None
        report = checks.before_training(policy, batch, data, validation, floor, seed=0, trained=trained)
        checks.clipping(report, request.trainer.grad_clip)
        for old, new in zip(before, policy.parameters(), strict=True):
            assert torch.equal(old, new) and new.grad is None, "a check must not change the policy"
        return report

    return run


def warning(report: Report, check: str) -> str:
    """The warning of one check, or nothing."""
    (finding,) = [finding for finding in report.findings if finding.check == check]
    return helpful(finding.warning) if finding.warning else ""


def measured(report: Report, check: str) -> str:
    (finding,) = [finding for finding in report.findings if finding.check == check]
    return finding.measured


@pytest.mark.parametrize(
    "words",
    [
        ("policy=masked_dit", "encoder=mlp"),
        ("policy=masked_dit", "encoder=conv"),
        ("policy=bc_mlp",),
        ("policy=masked_dit", "policy.frames=[4,2,1,0]"),
        ("policy=bc_mlp", "policy.frames=[4,2,1,0]"),  # its first layer sees all of them: 55 % of .7 M parameters
        ("policy=bc_mlp", "policy.horizon=4", "env.data.noise=0.1"),
    ],
    ids=" ".join,
)
def test_healthy_policies_get_no_warning(check, words):
    report = check(*words)
    assert report.warnings == []
    assert report.facts["first_loss"] == pytest.approx(report.facts["chance_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_layer_that_holds_the_model_is_named(check):
    """Write-up 000: 41 M parameters, nearly all of them in one linear layer of the state tokenizer."""
    report = check("policy=masked_dit", *WRITE_UP, "encoder=flat", "policy.hidden_dim=128")
    assert 40_500_000 < report.facts["parameters"] < 42_000_000
    assert "encoder.parts.grid.project.weight (6272x6272)" in warning(report, "largest layer")
    assert "encoder=mlp" in warning(report, "largest layer")


def test_a_layer_behind_the_encoder_is_not_blamed_on_it(check):
    sentence = warning(check("policy=bc_mlp", "policy.hidden_dim=3000"), "largest layer")
    assert "mlp.2.weight" in sentence and "policy.hidden_dim" in sentence and "encoder=" not in sentence


def test_a_conditioning_that_is_not_normalised_is_named(check):
    """Write-up 002: unnormalised features in the hundreds condition the network; its untrained outputs had a deviation of 37 to
    40."""

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


@pytest.mark.skipif(missing_extra("push") is not None, reason=str(missing_extra("push")))
def test_write_up_002s_broken_head_is_named_and_its_fixed_one_is_healthy(check):
    small = ("env.data.episodes=4", "env.data.val_episodes=2", "env.num_workers=0", "env.max_steps=40")
    fixed, broken = (check(f"experiment={name}", *small, batch_size=16) for name in ("seed_002", "seed_002_broken"))
    assert fixed.facts["first_loss"] == pytest.approx(1, abs=0.15) and fixed.warnings == []
    assert broken.facts["first_loss"] > 300
    spread = warning(broken, "spread of outputs")
    assert "the output layer unet.head" in spread and "(it begins in norm)" in spread
    assert spread.endswith("try policy.normalise=true policy.zero_head=true policy.condition_spread=1.0")
    assert "trainer.grad_clip=1" in warning(broken, "clipping")
    assert "chance" not in warning(fixed, "first loss") and "padding" not in warning(broken, "first loss")


def test_a_spread_that_a_zero_output_layer_hides_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.pool.weight.data *= 1000

    report = check("policy=masked_dit", spoil=spoil)
    assert report.facts["output_spread"] == 0 and "the inner layer pool" in warning(report, "spread of outputs")


def test_trained_weights_need_not_be_at_chance(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.mlp[-1].weight.data.normal_(std=10)

    fresh, trained = check("policy=bc_mlp", spoil=spoil), check("policy=bc_mlp", spoil=spoil, trained=True)
    for name in ("spread of outputs", "first loss"):
        assert warning(fresh, name) and not warning(trained, name) and "init_from" in measured(trained, name)


class Recurrent(Policy):
    """Its leaf modules return tuples, or it has none."""

    window = Window()

    def __init__(self, layer: nn.Module | None):
        super().__init__()
        self.layer, self.bias = layer, nn.Parameter(torch.zeros(7))

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        x = torch.ones(len(batch["action"]), 1, 7)
        y = (self.layer(x)[0] if self.layer else x)[:, 0] + self.bias
        return Loss(nn.functional.cross_entropy(y, batch["action"][:, 0], reduction="sum"), torch.tensor(len(x)), {})


def test_layers_of_any_make_are_watched():
    batch = {"action": torch.zeros(4, 1, dtype=torch.long), "action_mask": torch.ones(4, 1, dtype=torch.bool)}
    first = Probe(Recurrent(nn.GRU(7, 7, batch_first=True)), batch, seed=0).first_pass()
    assert [spread.layer for spread in first.spreads] == ["layer"] and 0 < first.spreads[0].deviation < 1
    report = Report()
    checks._spread(report, Probe(Recurrent(None), batch, seed=0).first_pass(), trained=False)
    assert "not measured" in measured(report, "spread of outputs") and not report.warnings


def test_a_pass_that_fails_leaves_no_hooks():
    probe = Probe(Recurrent(nn.GRU(6, 7)), {"action": torch.zeros(4, 1)}, seed=0)
    with pytest.raises(RuntimeError):
        probe.first_pass()
    assert not probe.policy.layer._forward_hooks


def test_a_frozen_part_is_not_called_learning(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.pool.requires_grad_(False)

    report = check("policy=masked_dit", spoil=spoil)
    assert "frozen" in measured(report, "gradients") and "pool.weight" in measured(report, "gradients")
    assert not warning(report, "gradients")


def test_a_part_that_gets_no_gradient_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.unused = nn.Linear(3, 3)
        policy.time.register_forward_hook(lambda module, inputs, output: output.detach())

    sentence = warning(check("policy=masked_dit", spoil=spoil), "gradients")
    assert "unused.weight" in sentence and "time.0.weight" in sentence and "head" not in sentence


def test_a_loss_that_is_not_finite_is_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        policy.head.register_forward_hook(lambda module, inputs, output: output / 0)

    report = check("policy=masked_dit", spoil=spoil)
    assert "not finite" in warning(report, "first loss") and not warning(report, "padding")


def test_data_with_holes_are_named(check):
    def spoil(policy: Policy, data: Windows) -> None:
        data.dataset.observations["state"] = np.where(np.arange(len(data)) == 5, np.nan, 1.0)[:, None]

    assert "observation.state (1.6% of its values)" in warning(check("policy=bc_mlp", spoil=spoil), "finite data")


def test_a_batch_with_holes_is_named():
    batch = {"observation": {"state": torch.tensor([[1.0, float("nan")]]), "grid": torch.zeros(1, 3, dtype=torch.uint8)}}
    assert not_finite(batch) == ["observation.state (50.0% of its values)"]
    assert not_finite({"action": torch.zeros(3)}) == []


def test_repeating_the_last_action_is_named(check):
    """Write-up 001: 49 slots padded with the last action; its loss was low and its success 0."""
    report = check("policy=masked_dit", *WRITE_UP, "policy.padding=repeat_last")
    assert report.facts["behind_the_end"] > 0.8
    assert "policy.padding=end" in warning(report, "padding")


def test_counted_padding_is_found_where_all_labels_are_zero(check):
    def spoil(policy: Policy, data: Windows) -> None:
        data.dataset.columns["action"] = np.zeros(len(data), np.int64)

    assert "policy.padding=end" in warning(
        check("policy=masked_dit", *WRITE_UP, "policy.padding=repeat_last", spoil=spoil), "padding"
    )


def test_slots_behind_a_deviation_are_not_behind_the_end(check):
    """A third of all steps deviates, and most plans of eight end there; the episodes are long enough for them."""
    whole, noisy = check("policy=masked_dit"), check("policy=masked_dit", "env.data.noise=0.4")
    assert whole.facts["behind_a_deviation"] == 0 and "env.data.noise" not in measured(whole, "padding")
    assert noisy.facts["behind_a_deviation"] > 0.5 and "behind a step that was not the label" in measured(noisy, "padding")
    assert noisy.facts["behind_the_end"] < 0.4 and not warning(noisy, "padding")


def test_plans_beyond_the_episodes_are_named(check):
    report = check("policy=masked_dit", *WRITE_UP)  # padded with END: nothing false is learned, but most slots are empty
    assert "policy.horizon" in warning(report, "padding") and "policy.padding" not in warning(report, "padding")


def test_train_equal_to_test_is_named(check):
    """Write-up 001: Empty-8x8 has one layout and one start."""
    report = check("policy=bc_mlp", "env.id=MiniGrid-Empty-8x8-v0")
    assert report.facts["val_in_training"] == 1 and "100%" in warning(report, "held-out data")


def test_a_floor_at_chance_is_named(check):
    """Write-up 003: the training targets did not depend on any observation; the loss stayed at ln 5 for 150,000 steps."""

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
    assert report.facts["repeated_samples"] == 0 and report.facts["action_floor"] is None
    assert "not countable" in measured(report, "entropy floor") and not warning(report, "entropy floor")


def test_the_floor_is_that_of_what_the_policy_sees(check):
    whole, blind = check("policy=bc_mlp"), check("policy=bc_mlp", "policy.encoder.ignore=[grid]")
    assert blind.facts["action_floor"] > 1.0 and blind.facts["repeated_samples"] > 0.99  # direction and mission recur
    assert whole.facts["action_floor"] is None or whole.facts["action_floor"] < 0.5


def test_a_schedule_that_cannot_act_is_named():
    """Write-up 001: a plateau schedule with a patience of 5 in a run of 3 epochs."""

    def sentence(config: ScheduleConfig, max_steps: int, eval_every: int) -> str:
        report = Report()
        checks.schedule(report, config, max_steps, eval_every)
        return warning(report, "schedule")

    plateau = ScheduleConfig(name="plateau", patience=5)
    assert "patience" in sentence(plateau, max_steps=2000, eval_every=500)
    assert "patience" in sentence(plateau, max_steps=2000, eval_every=0)
    assert not sentence(plateau, max_steps=2000, eval_every=200)
    assert "warm-up" in sentence(ScheduleConfig(warmup=100), max_steps=100, eval_every=50)
    assert not sentence(ScheduleConfig(), max_steps=2000, eval_every=500)


@pytest.mark.parametrize("max_steps", range(60, 101, 5))
def test_a_plateau_is_named_exactly_when_it_cannot_cut(max_steps):
    """Simulated with a loss that never improves: some step before the end must have a lower rate."""
    config, report = ScheduleConfig(name="plateau", patience=5, warmup=0), Report()
    checks.schedule(report, config, max_steps, eval_every=10)
    simulated, rates = Schedule(config, max_steps), []
    for step in range(max_steps):
        rates.append(simulated.factor(step))
        if (step + 1) % 10 == 0 or step + 1 == max_steps:
            simulated.observe(1.0)
    assert bool(warning(report, "schedule")) == (min(rates) == 1)


@pytest.mark.slow
def test_debug_health_reports_and_trains_nothing(launch: Callable, here: Path):
    done = launch("debug=health", "experiment=seed_001", "hydra.run.dir=run")
    for words in ("padding=end", "patience", "too few layouts", "look", "ok"):
        assert words in done.stdout, words
    report = json.loads((here / "run/health.json").read_text())
    assert len(report["warnings"]) == 3 and len(report["checks"]) == 10
    assert not (here / "run/checkpoints").exists()


@pytest.mark.slow
def test_a_sweep_of_health_says_what_to_look_at(launch: Callable, here: Path):
    few = ("env.data.episodes=40", "env.data.val_episodes=10", "env.id=MiniGrid-DoorKey-6x6-v0", "logger=none")
    done = launch("-m", "debug=health", "policy.padding=end,repeat_last", *few, "hydra.sweep.dir=sweep")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "end 0 0 -" in lines and "repeat_last 0 1 padding" in lines


@pytest.mark.slow
def test_debug_health_records_a_part_where_nothing_is_recorded(launch: Callable, here: Path):
    words = ("debug=health", "env.id=MiniGrid-FourRooms-v0", "env.data.val_episodes=20", "logger=none")
    done = launch(*words, "env.data.episodes=3000", "data_dir=data")
    assert "recording 1000 of the 3000 episodes" in done.stdout
    assert len(list((here / "data").glob("MiniGrid*train*"))) == 1
    done = launch(*words, "env.data.episodes=1000", "data_dir=data")  # and what is there is taken whole
    assert "recording" not in done.stdout and len(list((here / "data").glob("MiniGrid*train*"))) == 1


def test_debug_health_judges_the_data_of_the_run(request_for):
    assert compose("config", ["debug=health"]).env == compose("config").env


@pytest.mark.slow
def test_weights_of_another_run_are_not_taken_for_a_fault(launch: Callable, here: Path):
    words = ("policy=bc_mlp", "env.data.episodes=40", "env.data.val_episodes=10", "logger=none")
    run = ("trainer.max_steps=40", "trainer.eval_every=0", "trainer.eval_episodes=0", "eval.episodes=2", "eval.media=0")
    launch(*words, *run, "trainer.schedule.warmup=0", "hydra.run.dir=first")
    launch(*words, "debug=health", "init_from=first", "hydra.run.dir=run")
    report = json.loads((here / "run/health.json").read_text())
    assert report["facts"]["first_loss"] < 1.8 and report["warnings"] == []


def test_the_table_counts_every_parameter():
    policy = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 1))
    table = checks.parameter_table(policy)
    assert "121" in str(table.title)
    assert list(table.columns[1].cells) == ["110", "11"]
