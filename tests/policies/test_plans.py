"""Shared parts of planning policies: the memory of frames, and chunks of actions."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import GRID_SPACES, grids, plans

from policies import bc_mlp, masked_dit
from policies.base import Policy
from policies.noise import Noise
from policies.plans import PlanningPolicy

DEVICE = torch.device("cpu")


class Listening(PlanningPolicy):
    """Stores its inputs."""

    def __init__(self, frames: list[int]):
        super().__init__(GRID_SPACES, frames, horizon=2, execute=1)
        self.shown: list[tuple[torch.Tensor, torch.Tensor]] = []

    def plan(self, seen, known, noise, greedy=False):
        self.shown.append((seen["grid"], known))
        return torch.zeros(len(known), 2, dtype=torch.long), torch.ones(len(known), 2, dtype=torch.bool)


def test_frames_arrive_oldest_first_and_only_those_of_the_episode():
    policy, grid = Listening([2, 1, 0]), grids(5)
    memory = policy.start(1, DEVICE)
    for step in range(5):
        _, memory = policy.act({"grid": grid[step : step + 1]}, memory, Noise(0, step, torch.arange(1)))
    assert [known.tolist() for _, known in policy.shown[:3]] == [[[False, False, True]], [[False, True, True]], [[True] * 3]]
    assert torch.equal(policy.shown[-1][0][0], grid[2:])
    assert set(policy.start(1, DEVICE)) == {"plan", "valid", "next", "step", "seen.grid"}
    assert set(Listening([0]).start(1, DEVICE)) == {"plan", "valid", "next"}  # nothing to remember


def test_frames_may_lie_far_apart():
    policy, grid = Listening([4, 1, 0]), grids(6)
    memory = policy.start(1, DEVICE)
    for step in range(6):
        _, memory = policy.act({"grid": grid[step : step + 1]}, memory, Noise(0, step, torch.arange(1)))
    assert torch.equal(policy.shown[-1][0][0], grid[[1, 4, 5]])
    assert policy.shown[3][1].tolist() == [[False, True, True]]


def jolted(kind: str, **values) -> Policy:
    module = {"bc_mlp": bc_mlp, "masked_dit": masked_dit}[kind]
    policy = getattr(module, {"bc_mlp": "BCMLP", "masked_dit": "MaskedDiT"}[kind])(module.Config(**values), GRID_SPACES).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return policy


@pytest.mark.parametrize("kind", ["bc_mlp", "masked_dit"])
def test_acting_with_frames_is_planning_on_a_training_window(kind):
    """The frames that `act` collects step by step equal a window of the data, also in the first steps of an episode."""
    policy, grid = jolted(kind, frames=[4, 2, 0], horizon=4, execute=1), grids(6)
    memory = policy.start(1, DEVICE)
    for step in range(6):
        noise = Noise(0, step, torch.arange(1))
        action, memory = policy.act({"grid": grid[step : step + 1]}, memory, noise, greedy=True)
        rows = torch.tensor([step - 4, step - 2, step])
        window = {"grid": grid[rows.clamp(min=0)][None]}  # as envs/data cuts it: padding repeats a real frame and is masked
        planned, _ = policy.plan(window, (rows >= 0)[None], Noise(0, step, torch.arange(1)), greedy=True)
        assert action[0] == planned[0, 0]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("kind", ["bc_mlp", "masked_dit"])
def test_frames_before_the_episode_do_not_matter(kind, encoded, monkeypatch):
    """Neither on a CPU, which skips them, nor on a GPU or with torch.compile, where they are encoded with the others."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: encoded)
    policy, sample = jolted(kind, frames=[2, 1, 0], horizon=4, execute=1), plans(16, horizon=4)
    sample["observation"] = {"grid": torch.stack([grids(16) for _ in range(3)], dim=1)}
    sample["observation_mask"] = torch.tensor([False, True, True]).expand(16, -1)
    loss = policy(sample, Noise(0, 0, torch.arange(16))).total
    sample["observation"]["grid"][:, 0] = 0
    assert torch.equal(loss, policy(sample, Noise(0, 0, torch.arange(16))).total)
    sample["observation"]["grid"][:, 1] = 0
    assert not torch.equal(loss, policy(sample, Noise(0, 0, torch.arange(16))).total)


def test_a_chunk_is_predicted_slot_by_slot():
    policy, sample = jolted("bc_mlp", horizon=4, execute=4), plans(64, horizon=4, length=2)
    assert policy.chance_loss(sample) == math.log(8)  # seven actions, and END
    loss = policy(sample, Noise(0, 0, torch.arange(64)))
    assert loss.count == 64 * 3  # two actions and END
    _, valid = policy.plan({"grid": grids(64)[:, None]}, torch.ones(64, 1, dtype=torch.bool), Noise(0, 0, torch.arange(64)))
    assert valid[:, 0].all() and not valid[:, 1:].all()
    one = jolted("bc_mlp")
    assert one.chance_loss(sample) == math.log(7)  # a single action cannot be behind the end


@pytest.mark.parametrize(
    "values, words",
    [({"execute": 9}, "horizon=8"), ({"frames": [1]}, "counts steps back"), ({"frames": [0, 1, 0]}, "counts steps back")],
)
def test_plans_that_cannot_be(values, words):
    with pytest.raises(ValueError, match=words):
        masked_dit.Config(**values)
