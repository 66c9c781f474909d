from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.base import Spaces
from policies.masked_dit import Config, MaskedDiT, mask_ratio
from policies.noise import Noise

HIGH = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3))
SPACES = Spaces(spaces.Dict({"grid": spaces.Box(np.zeros_like(HIGH), HIGH, dtype=np.uint8)}), spaces.Discrete(7))


def make(**values) -> MaskedDiT:
    policy = MaskedDiT(Config(**values), SPACES).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the zero-initialised head
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def grids(rows: int) -> torch.Tensor:
    return torch.stack([torch.randint(0, n, (rows, 7, 7)) for n in (11, 6, 4)], -1).to(torch.uint8)


def batch(rows: int, horizon: int = 8, length: int | None = None, terminated: bool = True) -> dict:
    """Plans whose episodes end after `length` actions."""
    known = (torch.arange(horizon) < (horizon if length is None else length)).expand(rows, -1)
    return {
        "observation": {"grid": grids(rows)[:, None]},
        "action": torch.randint(0, 7, (rows, horizon)),
        "action_mask": known,
        "ended": ~known & terminated,
    }


def seen_by(policy: MaskedDiT, monkeypatch: pytest.MonkeyPatch, sample: dict, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that the network gets in a training pass, and its loss's count."""
    seen = []
    denoise = policy.denoise
    monkeypatch.setattr(policy, "denoise", lambda context, tokens, time: seen.append(tokens) or denoise(context, tokens, time))
    loss = policy(sample, Noise(0, 0, torch.arange(rows)))
    return seen[0], loss.count


def test_hidden_share_follows_the_cosine_schedule():
    policy, rows = make(), 4000
    loss = policy(batch(rows), Noise(0, 0, torch.arange(rows)))
    share, slots = loss.metrics["mask_ratio"]
    # E[cos(pi/2 (1-t))] = 2/pi; the guard against empty masks adds a little.
    assert abs(share / slots - 2 / math.pi) < 0.02


def test_every_plan_is_asked_something():
    policy, rows = make(), 2000
    sample = batch(rows, length=1)  # one action, END, and six PADs: masks that miss both are common
    for row in range(0, rows, 100):
        one = {**sample, "observation": {"grid": sample["observation"]["grid"][row : row + 1]}}
        one |= {name: sample[name][row : row + 1] for name in ("action", "action_mask", "ended")}
        assert policy(one, Noise(0, row, torch.arange(1))).count >= 1


def test_end_is_asked_once_and_padding_never(monkeypatch):
    policy, rows = make(), 500
    tokens, count = seen_by(policy, monkeypatch, batch(rows, length=3), rows)
    hidden = tokens == policy.MASK
    assert count == hidden[:, :4].sum()  # three actions and END
    assert count > 0
    shown = ~hidden[:, 3]
    assert (tokens[shown, 3] == policy.END).all() and shown.any() and not shown.all()
    # PAD shows exactly where END does: it would give the plan's length away
    assert (tokens[shown][:, 4:] == policy.PAD).all()
    assert (tokens[~shown][:, 4:] == policy.MASK).all()


def test_a_truncated_episode_has_no_end(monkeypatch):
    policy, rows = make(), 500
    tokens, count = seen_by(policy, monkeypatch, batch(rows, length=3, terminated=False), rows)
    assert not (tokens == policy.END).any() and not (tokens == policy.PAD).any()
    assert (tokens[:, 3:] == policy.MASK).all()
    assert count == (tokens[:, :3] == policy.MASK).sum()


def test_hidden_labels_are_not_seen():
    """With everything hidden, the loss is the cross-entropy of what the network says to a plan of [MASK] alone."""
    policy = make()
    sample = batch(8)
    first = policy(sample, _All())
    hidden = torch.full((8, 8), policy.MASK)
    logits = policy.denoise(policy.encode(sample["observation"]), hidden, torch.full((8,), 1 - 2**-24))
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), sample["action"].flatten(), reduction="sum")
    assert torch.isclose(first.total, by_hand, rtol=1e-5) and first.count == 64


@pytest.mark.parametrize("rounds", [1, 3, 8])
@pytest.mark.parametrize("greedy", [True, False])
def test_plans_are_whole_and_well_formed(rounds, greedy):
    policy = make(denoise_steps=rounds)
    plan = policy.plan({"grid": grids(300)[:, None]}, Noise(0, 0, torch.arange(300)), greedy)
    assert not (plan == policy.MASK).any()
    assert (plan[:, 0] < policy.END).all()
    after = (plan == policy.END).cumsum(1) - (plan == policy.END).long() > 0
    assert ((plan == policy.PAD) == after).all()
    if not greedy:
        assert (plan == policy.END).any()  # or the lines above say little


def test_the_state_is_encoded_once_for_all_rounds(monkeypatch):
    policy, calls = make(), []
    encoder = policy.encoder.forward
    monkeypatch.setattr(policy.encoder, "forward", lambda x: calls.append(1) or encoder(x))
    policy.plan({"grid": grids(4)[:, None]}, Noise(0, 0, torch.arange(4)))
    assert len(calls) == 1


def test_a_plan_is_executed_and_then_made_again(monkeypatch):
    policy = make(execute=3)
    plans = [torch.tensor([[1, 2, 3, 4, 5, 6, 0, 1], [1, policy.END] + [policy.PAD] * 6]), torch.tensor([[5] * 8])]
    asked = []

    def plan(observation, noise, greedy):
        asked.append(len(noise.rows))
        made = plans[0] if len(asked) == 1 else plans[1].expand(len(noise.rows), -1)
        return made

    monkeypatch.setattr(policy, "plan", plan)
    memory, acted = policy.start(2, torch.device("cpu")), []
    for step in range(5):
        action, memory = policy.act({"grid": grids(2)}, memory, Noise(0, step, torch.arange(2)))
        acted.append(action.tolist())
    # Lane 0 replans after three actions; lane 1 as soon as its plan says END.
    assert acted == [[1, 1], [2, 5], [3, 5], [5, 5], [5, 5]]
    assert asked == [2, 1, 1, 1]


def test_mask_ratio_ends():
    assert torch.allclose(mask_ratio(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]), atol=1e-6)


class _All(Noise):
    """Everything is hidden."""

    def __init__(self):
        super().__init__(0, 0, torch.arange(8))

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.full((len(self.rows), *shape), 1 - 2**-24)
