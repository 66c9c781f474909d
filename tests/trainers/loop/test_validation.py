"""Which checkpoint a run keeps as its best."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.base import Score
from envs.data import record
from envs.data.windows import Windows
from policies.base import Policy
from trainers.loop import validation
from trainers.loop.validation import Validation


@pytest.fixture
def made(request_for: Callable, data_dir: Path) -> Callable[..., tuple[Validation, Policy]]:
    def make(*judged_by: str, batch_size: int = 64) -> tuple[Validation, Policy]:
        request = request_for("policy=bc_mlp", "env.id=MiniGrid-DoorKey-5x5-v0")
        family = request.targets["env"](request.env)
        torch.manual_seed(0)
        policy = request.targets["policy"](request.policy, family.spaces).eval()
        windows = Windows(record.dataset(family, request.env.data, "train", data_dir), policy.window)
        played = Score(np.array([True, False]), np.array([0.5, 0.0]), np.array([3, 9]))
        return Validation(windows, lambda policy: played, judged_by, batch_size, seed=1, device=torch.device("cpu")), policy

    return make


def test_scores_stand_beside_the_mean_loss_whatever_the_batches(made):
    (whole, policy), (parts, _) = made(batch_size=4096), made(batch_size=100)
    values = whole.measure(policy)
    assert values["val/loss"] == pytest.approx(math.log(7), rel=1e-5)  # an untrained head is zero
    assert (values["val/success"], values["val/return"]) == (0.5, 0.25)
    assert parts.measure(policy) == pytest.approx(values, rel=1e-5)


def test_the_first_score_that_differs_decides_and_then_the_loss(made):
    score = made("success", "return")[0].score
    better = {"val/loss": 0.9, "val/success": 0.5, "val/return": 0.4}
    assert score(better) > score(better | {"val/success": 0.4, "val/return": 0.9, "val/loss": 0.1})
    assert score(better) > score(better | {"val/return": 0.3, "val/loss": 0.1})
    assert score(better | {"val/loss": 0.8}) > score(better) > score(better | {"val/loss": math.nan})


def test_what_episodes_cannot_tell_apart_counts_as_equal_so_that_the_latest_step_is_the_best(made):
    judged, policy = made("success", "return")
    judged.measure(policy)  # .5 of two episodes: the standard error is .35
    best = [0.9, 0.9, -0.1]
    assert judged.as_good([0.9, 0.9, -0.1], best) and judged.as_good([0.55, 0.1, -0.9], best)
    assert not judged.as_good([0.54, 0.9, -0.1], best)
    by_return, policy = made("return", "success")  # whose spread is mostly that of the tasks, the same in every validation
    by_return.measure(policy)
    assert not by_return.as_good([0.89, 0.9, -0.1], best)


def test_no_more_samples_are_asked_than_a_validation_has_time_for(made, monkeypatch):
    one, policy = made()
    asked, forward = [], policy.forward
    monkeypatch.setattr(validation, "SAMPLES", 150)
    monkeypatch.setattr(policy, "forward", lambda batch, noise: asked.append(len(batch["action"])) or forward(batch, noise))
    one.measure(policy)
    assert asked == [64, 64, 22]
