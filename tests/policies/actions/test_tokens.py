from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from envs.data.statistics import Moments, Statistics
from policies.actions import Tokens

BOX = spaces.Box(-1, 1, (2,), np.float32)


def statistics(low: list[float], high: list[float]) -> Statistics:
    low, high = np.array(low), np.array(high)
    return Statistics({}, Moments((low + high) / 2, (high - low) / 4, low, high))


def test_discrete_actions_are_tokens_counted_from_zero():
    tokens = Tokens(spaces.Discrete(3, start=-1), bins=8)
    action = torch.tensor([[-1, 0, 1]])
    assert tokens.values == 3 and tokens.per_action == 1
    assert tokens.encode(action).tolist() == [[[0], [1], [2]]]
    assert torch.equal(tokens.decode(tokens.encode(action)), action)


def test_continuous_actions_are_binned_over_what_the_data_hold():
    tokens = Tokens(BOX, bins=10)
    tokens.fit(statistics([-0.5, 0.0], [0.5, 0.1]))
    action = torch.rand(64, 3, 2) * torch.tensor([1.0, 0.1]) + torch.tensor([-0.5, 0.0])
    token = tokens.encode(action)
    assert token.shape == (64, 3, 2) and token.min() == 0 and token.max() == 9
    assert ((tokens.decode(token) - action).abs() <= torch.tensor([0.05, 0.005]) + 1e-6).all()
    assert tokens.encode(torch.tensor([[[-9.0, 9.0]]])).tolist() == [[[0, 9]]]  # outside: the outermost bins


def test_a_plan_of_binned_actions_ends_between_two_actions():
    tokens = Tokens(BOX, bins=4)
    mask = torch.tensor([[True, True, False, False]])
    plan, counted = tokens.targets({"action": torch.zeros(1, 4, 2), "action_mask": mask, "ended": ~mask})
    assert plan.tolist() == [[2, 2, 2, 2, tokens.END, tokens.PAD, tokens.PAD, tokens.PAD]]
    assert counted.tolist() == [[True] * 5 + [False] * 3]
    _, valid = tokens.actions(plan)
    assert valid.tolist() == [[True, True, False, False]]


def test_a_label_is_spread_over_the_bins_beside_it():
    tokens, asked = Tokens(BOX, bins=8), torch.tensor([[True, True, True, False]])
    token = torch.tensor([[3, 0, tokens.END, tokens.PAD]])

    def loss(guess: list[int], spread: float) -> torch.Tensor:
        logits = torch.nn.functional.one_hot(torch.tensor([guess]), 9) * 5.0
        return tokens.cross_entropy(logits, token, asked, spread)[0]

    right, near, far = (loss([bin, bin, bin, 0], 1.0) for bin in (3, 4, 7))
    assert right[0] < near[0] < far[0]
    assert loss([3, 0, 8, 0], 1.0)[2] == loss([3, 0, 8, 0], 0.0)[2] < loss([3, 0, 7, 0], 1.0)[2]  # the end has no neighbours
    assert loss([4, 0, 8, 0], 0.0)[0] == loss([7, 0, 8, 0], 0.0)[0]
    assert right[3] == 0
    zero = tokens.cross_entropy(torch.zeros(1, 4, 9), token, asked, 1.0)[0, :3]
    assert torch.allclose(zero, torch.full((3,), 9.0).log())  # chance is what it was


def test_limits_travel_in_the_checkpoint():
    one, other = Tokens(BOX, bins=4), Tokens(BOX, bins=4)
    one.fit(statistics([-0.2, -0.2], [0.2, 0.4]))
    other.load_state_dict(one.state_dict())
    action = torch.rand(8, 1, 2) - 0.5
    assert torch.equal(one.encode(action), other.encode(action))
