from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.data.statistics import Moments, Statistics
from policies.actions import HeadConfig, make_head
from policies.actions.heads import CONTINUOUS
from policies.noise import Noise

BOX = spaces.Box(-1, 1, (3,), np.float32)
LIMITS = Statistics({}, Moments(np.zeros(3), np.full(3, 0.5), np.full(3, -1.0), np.ones(3)))
NOISE = Noise(0, 0, torch.arange(1))


def head(kind: str, **values):
    made = make_head(HeadConfig(kind=kind, **values), BOX, 1)
    made.fit(LIMITS)
    return made


def fitted(made, action: torch.Tensor) -> torch.Tensor:
    """The actions [n, 3] that a head gives after its outputs are fitted directly."""
    output = torch.zeros(1, len(action), made.size, requires_grad=True)
    batch = {"action": action[None], "action_mask": torch.ones(1, len(action), dtype=torch.bool)}
    optimizer = torch.optim.Adam([output], lr=0.03)
    for _ in range(1500):
        optimizer.zero_grad()
        made.loss(output, batch, True).total.backward()
        optimizer.step()
    return made.decode(output.detach(), NOISE, True)[0][0]


@pytest.mark.parametrize("kind", [pytest.param("cartesian", marks=pytest.mark.slow), "spherical"])
def test_a_head_reaches_every_action(kind: str):
    action = torch.rand(64, 3) * 1.9 - 0.95
    action[0] = 0.0
    assert (fitted(head(kind), action) - action).norm(dim=-1).max() < 0.06


@pytest.mark.slow
def test_write_up_004s_spherical_head_does_not():
    """Its magnitude lies between sigmoid(-1) and sigmoid(1)."""
    length = fitted(head("tanh_spherical", loss="huber"), torch.tensor([[0.0, 0.0, 0.02], [0.9, 0.0, 0.2]])).norm(dim=-1)
    assert length[0] > 0.26 and length[1] < 0.74


@pytest.mark.parametrize("kind", [*CONTINUOUS, "binned"])
def test_zero_outputs_cost_chance(kind: str):
    made, action = head(kind), torch.rand(8, 1, 3) * 2 - 1
    batch = {"action": action, "action_mask": torch.ones(8, 1, dtype=torch.bool), "ended": torch.zeros(8, 1, dtype=torch.bool)}
    loss = made.loss(torch.zeros(8, 1, made.size), batch, True)
    assert math.isclose(float(loss.total / loss.count), made.chance(batch), rel_tol=1e-5)


def test_large_actions_can_weigh_more():
    action, mask = torch.tensor([[[0.1, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]), torch.ones(2, 1, dtype=torch.bool)
    output, batch = torch.zeros(2, 1, 3), {"action": action, "action_mask": mask}
    plain, weighted = (head("tanh", magnitude_weight=weight).loss(output, batch, True).total for weight in (0.0, 2.0))
    assert torch.isclose(plain, torch.tensor(1.1 / 3)) and torch.isclose(weighted, torch.tensor((0.1 * 1.2 + 1.0 * 3.0) / 3))


def test_what_fills_an_empty_slot_cannot_reach_the_loss():
    action = torch.tensor([[[0.1, 0.2, 0.3]], [[math.nan] * 3]])
    batch = {"action": action, "action_mask": torch.tensor([[True], [False]])}
    output = torch.zeros(2, 1, 3, requires_grad=True)
    loss = head("cartesian").loss(output, batch, True)
    loss.total.backward()
    assert loss.count == 1 and loss.total.isfinite() and output.grad.isfinite().all()


@pytest.mark.parametrize(
    "values, words",
    [({"kind": "polar"}, "kind must"), ({"bins": 1}, "bins must"), ({"magnitude_weight": -1}, "magnitude_weight")],
)
def test_heads_that_cannot_be(values, words):
    with pytest.raises(ValueError, match=words):
        HeadConfig(**values)
