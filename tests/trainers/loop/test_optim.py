import itertools
import math

import pytest
import torch
from torch import nn

from trainers.loop.optim import Average, OptimizerConfig, Schedule, ScheduleConfig, make_optimizer


def test_cosine_warms_up_and_ends_at_its_final_share():
    schedule = Schedule(ScheduleConfig(name="cosine", warmup=10, final=0.1), max_steps=100)
    factors = [schedule.factor(step) for step in range(101)]
    assert 0 < factors[0] < 0.1
    assert max(factors) == factors[10] == 1
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert math.isclose(factors[100], 0.1)
    assert math.isclose(factors[55], 0.55)


def test_constant_stays():
    schedule = Schedule(ScheduleConfig(name="constant", warmup=0), max_steps=100)
    assert {schedule.factor(step) for step in range(100)} == {1.0}


def test_plateau_cuts_after_its_patience_and_not_before():
    schedule = Schedule(ScheduleConfig(name="plateau", warmup=0, patience=2, factor=0.5), max_steps=100)
    seen = []
    for loss in (1.0, 0.5, 0.6, 0.6, 0.6, 0.4, 0.5, 0.5, 0.5):
        schedule.observe(loss)
        seen.append(schedule.factor(50))
    # better, better, three bad ones (the third exceeds the patience), better, three bad ones
    assert seen == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_average_follows_and_forgets_its_start():
    policy = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        policy.weight.fill_(0.0)
        average = Average(policy, decay=0.99)
        policy.weight.fill_(1.0)
        expected = 0.0
        for count in range(1, 200):
            average.update(torch.ones(()))
            decay = min(0.99, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay)
    assert math.isclose(average.policy.weight.item(), expected, rel_tol=1e-4)
    assert average.policy.weight.item() > 0.95 and policy.weight.item() == 1
    assert not average.policy.weight.requires_grad
    policy.weight.data.fill_(5.0)
    average.update(torch.zeros(()))  # of a step that was left out
    assert math.isclose(average.policy.weight.item(), expected, rel_tol=1e-4) and average.count == 199


@pytest.mark.parametrize("name, kind", [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_optimizers_by_name(name, kind):
    made = make_optimizer(OptimizerConfig(name=name, lr=0.1, weight_decay=0.2, betas=[0.5, 0.6]), [*nn.Linear(2, 2).parameters()])
    assert type(made) is kind
    group = made.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.2, (0.5, 0.6))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OptimizerConfig(name="sgd"),
        lambda: OptimizerConfig(lr=0),
        lambda: OptimizerConfig(betas=[0.9]),
        lambda: ScheduleConfig(name="step"),
        lambda: ScheduleConfig(final=2),
        lambda: ScheduleConfig(patience=0),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_the_schedule_starts_again_where_the_backbone_is_frozen():
    schedule = Schedule(ScheduleConfig(name="cosine", warmup=10, final=0.0), max_steps=300, restart=100)
    first, second = (Schedule(ScheduleConfig(name="cosine", warmup=10, final=0.0), max_steps=steps) for steps in (100, 200))
    assert [schedule.factor(step) for step in range(100)] == [first.factor(step) for step in range(100)]
    assert [schedule.factor(step) for step in range(100, 300)] == [second.factor(step) for step in range(200)]
    never = Schedule(ScheduleConfig(name="cosine", warmup=10, final=0.0), max_steps=100, restart=100)
    assert never.factor(99) == first.factor(99)
