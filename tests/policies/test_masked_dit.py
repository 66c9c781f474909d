from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import GRID_SPACES, grids, plans

from conf.checkpoint import write_manifest
from envs.base import Spaces
from policies import store
from policies.encoders import Config as EncoderConfig
from policies.masked_dit import Config, MaskedDiT
from policies.noise import Noise
from policies.unmasking import mask_ratio

NOW = torch.ones(1, 1, dtype=torch.bool)  # the one frame there is


def make(**values) -> MaskedDiT:
    policy = MaskedDiT(Config(**values), GRID_SPACES).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the zero-initialised head
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return policy


def seen_by(policy: MaskedDiT, monkeypatch: pytest.MonkeyPatch, sample: dict, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that the network gets in a training pass, and the count of its loss."""
    seen = []
    denoise = policy.denoise
    monkeypatch.setattr(policy, "denoise", lambda context, tokens, *rest: seen.append(tokens) or denoise(context, tokens, *rest))
    loss = policy(sample, Noise(0, 0, torch.arange(rows)))
    return seen[0], loss.count


def test_hidden_share_follows_the_cosine_schedule():
    policy, rows = make(), 4000
    loss = policy(plans(rows), Noise(0, 0, torch.arange(rows)))
    share, slots = loss.metrics["mask_ratio"]
    # E[cos(pi/2 (1-t))] = 2/pi; the guard against empty masks adds a little.
    assert abs(share / slots - 2 / math.pi) < 0.02
    correct, asked = loss.metrics["accuracy"]
    assert 0 < correct < asked == loss.count


def test_every_plan_is_asked_something():
    policy, rows = make(), 2000
    sample = plans(rows, length=1)  # one action, END, and six PADs: masks often miss both
    for row in range(0, rows, 100):
        one = {**sample, "observation": {"grid": sample["observation"]["grid"][row : row + 1]}}
        one |= {name: sample[name][row : row + 1] for name in ("action", "action_mask", "ended", "observation_mask")}
        assert policy(one, Noise(0, row, torch.arange(1))).count >= 1


def test_end_is_asked_once_and_padding_never(monkeypatch):
    policy, rows = make(), 500
    tokens, count = seen_by(policy, monkeypatch, plans(rows, length=3), rows)
    hidden = tokens == policy.MASK
    assert count == hidden[:, :4].sum()  # three actions and END
    assert count > 0
    shown = ~hidden[:, 3]
    assert (tokens[shown, 3] == policy.END).all() and shown.any() and not shown.all()
    # PAD shows where END is, so it would reveal the plan's length
    assert (tokens[shown][:, 4:] == policy.PAD).all()
    assert (tokens[~shown][:, 4:] == policy.MASK).all()


def test_a_truncated_episode_has_no_end(monkeypatch):
    policy, rows = make(), 500
    tokens, count = seen_by(policy, monkeypatch, plans(rows, length=3, terminated=False), rows)
    assert not (tokens == policy.END).any() and not (tokens == policy.PAD).any()
    assert (tokens[:, 3:] == policy.MASK).all()
    assert count == (tokens[:, :3] == policy.MASK).sum()


def test_hidden_labels_are_not_seen():
    """With everything hidden, the loss is the cross-entropy of the network's output for a plan of only [MASK]."""
    policy = make()
    sample = plans(8)
    first = policy(sample, _All())
    hidden = torch.full((8, 8), policy.MASK)
    context = policy.encode(sample["observation"], sample["observation_mask"])
    logits = policy.denoise(context, hidden, torch.full((8,), 1 - 2**-24), _All())
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), sample["action"].flatten(), reduction="sum")
    assert torch.isclose(first.total, by_hand, rtol=1e-5) and first.count == 64


@pytest.mark.parametrize("rounds", [1, 3, 8])
@pytest.mark.parametrize("greedy", [True, False])
def test_plans_are_whole_and_well_formed(rounds, greedy):
    policy = make(denoise_steps=rounds)
    plan = policy.unmasked({"grid": grids(300)[:, None]}, NOW.expand(300, 1), Noise(0, 0, torch.arange(300)), greedy)
    assert not (plan == policy.MASK).any()
    assert (plan[:, 0] < policy.END).all()
    after = (plan == policy.END).cumsum(1) - (plan == policy.END).long() > 0
    assert ((plan == policy.PAD) == after).all()
    if not greedy:
        assert (plan == policy.END).any()  # or the lines above say little


def test_the_state_is_encoded_once_for_all_rounds(monkeypatch):
    policy, calls = make(), []
    encoder = policy.encoder.forward
    monkeypatch.setattr(policy.encoder, "forward", lambda *seen: calls.append(1) or encoder(*seen))
    policy.unmasked({"grid": grids(4)[:, None]}, NOW.expand(4, 1), Noise(0, 0, torch.arange(4)))
    assert len(calls) == 1


def test_a_plan_is_executed_and_then_made_again(monkeypatch):
    policy = make(execute=3)
    plans = [torch.tensor([[1, 2, 3, 4, 5, 6, 0, 1], [1, policy.END] + [policy.PAD] * 6]), torch.tensor([[5] * 8])]
    asked = []

    def plan(seen, known, noise, greedy):
        asked.append(len(noise.rows))
        return policy.tokens.actions(plans[0] if len(asked) == 1 else plans[1].expand(len(noise.rows), -1))

    monkeypatch.setattr(policy, "plan", plan)
    memory, acted = policy.start(2, torch.device("cpu")), []
    for step in range(5):
        action, memory = policy.act({"grid": grids(2)}, memory, Noise(0, step, torch.arange(2)))
        acted.append(action.tolist())
    # Lane 0 replans after three actions; lane 1 as soon as its plan says END.
    assert acted == [[1, 1], [2, 5], [3, 5], [5, 5], [5, 5]]
    assert asked == [2, 1, 1, 1]


# --- the choices of write-up 001 ------------------------------------------------------------------------------------------


def test_noise_hides_a_slot_completely(monkeypatch):
    """Two plans that differ only in hidden slots look the same to the network, and each pass draws new noise."""
    policy = make(corruption="noise")
    tokens = torch.tensor([[1, 2, policy.MASK, 3, policy.MASK, 0, 0, 0]])
    first, again = (policy.corrupted(tokens, Noise(0, step, torch.arange(1))) for step in (0, 1))
    hidden = tokens[0] == policy.MASK
    assert torch.equal(first[0, ~hidden], again[0, ~hidden]) and not torch.isclose(first[0, hidden], again[0, hidden]).any()
    many = policy.corrupted(torch.full((500, 8), policy.MASK), Noise(0, 0, torch.arange(500)))
    assert abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01


def test_greedy_plans_are_the_same_for_any_noise():
    policy, seen = make(corruption="noise"), {"grid": grids(50)[:, None]}
    one, other = (policy.unmasked(seen, NOW.expand(50, 1), Noise(seed, 3, torch.arange(50)), greedy=True) for seed in (0, 1))
    assert torch.equal(one, other) and len(one.unique(dim=0)) > 1
    drawn = policy.unmasked(seen, NOW.expand(50, 1), Noise(1, 3, torch.arange(50)))
    assert not torch.equal(one, drawn)


def test_repeat_last_counts_what_stands_behind_the_end():
    policy, rows = make(padding="repeat_last"), 200
    sample = plans(rows, length=3)
    plan, counted = policy.targets(sample)
    assert counted.all() and torch.equal(plan, sample["action"]) and policy.classes == 7
    _, counted = policy.targets(plans(rows, length=3, terminated=False))
    assert counted.sum() == 3 * rows  # nobody knows what comes behind a truncation
    plan = policy.unmasked({"grid": grids(50)[:, None]}, NOW.expand(50, 1), Noise(0, 0, torch.arange(50)))
    assert (plan < policy.END).all()


def test_a_pooled_state_has_no_cross_attention():
    policy = make(conditioning="pooled")
    assert not any("cross" in name for name, _ in policy.named_parameters())
    assert policy.encode({"grid": grids(2)[:, None]}, NOW.expand(2, 1)).keys_values is None


def test_elbo_weights_are_those_of_the_schedule():
    policy = make(weighting="elbo")
    time = torch.linspace(0.1, 0.95, 20, requires_grad=True)
    (slope,) = torch.autograd.grad(mask_ratio(time).sum(), time)
    assert torch.allclose(policy.weight(time, torch.zeros(20, dtype=torch.bool)), slope / mask_ratio(time), rtol=1e-3)
    never, once = torch.tensor([False]), torch.tensor([True])
    assert policy.weight(torch.zeros(1), never) == 20  # cut off: it grows without bound
    assert policy.weight(torch.zeros(1), once) == 0  # hidden by our guard, not by the schedule


STATE = Spaces(spaces.Dict({"state": spaces.Box(-1, 1, (3,), np.float32)}), spaces.Box(-1, 1, (2,), np.float32))


def movements(rows: int, frames: int) -> dict:
    """Plans of continuous actions, some of which begin where the episode does."""
    known = torch.ones(rows, frames, dtype=torch.bool)
    known[: rows // 2, :-1] = False
    return {
        "observation": {"state": torch.rand(rows, frames, 3) * known[..., None]},
        "observation_mask": known,
        "action": torch.rand(rows, 4, 2) * 2 - 1,
        "action_mask": torch.ones(rows, 4, dtype=torch.bool),
        "ended": torch.zeros(rows, 4, dtype=torch.bool),
    }


JOINED = {"encoder": EncoderConfig(join="concat"), "frames": [2, 1, 0], "horizon": 4, "reader_dim": 16}


def test_joined_features_of_several_frames_begin_at_chance_and_survive_a_checkpoint(tmp_path: Path):
    config, sample = Config(**JOINED), movements(8, 3)
    policy = MaskedDiT(config, STATE).eval()
    loss = policy(sample, Noise(0, 0, torch.arange(8)))
    assert torch.isclose(loss.total / loss.count, torch.tensor(policy.chance_loss(sample)))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    store.save(tmp_path, "policies.masked_dit.MaskedDiT", config, STATE, policy.state_dict())
    write_manifest(tmp_path)
    again = store.load(tmp_path)
    assert torch.equal(policy(sample, Noise(0, 0, torch.arange(8))).total, again(sample, Noise(0, 0, torch.arange(8))).total)
    earlier = sample | {"observation": {"state": sample["observation"]["state"].flip(1)}}
    assert not torch.equal(
        policy(earlier, Noise(0, 0, torch.arange(8))).total, policy(sample, Noise(0, 0, torch.arange(8))).total
    )


def test_spread_labels_and_elbo_weights_together_begin_at_chance_and_tell_the_plain_loss():
    sample = movements(8, 1)
    spread, plain = (MaskedDiT(Config(weighting="elbo", label_spread=s, horizon=4), STATE) for s in (1.0, 0.0))
    losses = [policy(sample, Noise(0, 0, torch.arange(8))) for policy in (spread, plain)]
    for loss in losses:
        assert torch.isclose(loss.total / loss.count, torch.tensor(spread.chance_loss(sample)))
    torch.nn.init.normal_(spread.head.weight)
    plain.load_state_dict(spread.state_dict())
    losses = [policy(sample, Noise(0, 0, torch.arange(8))) for policy in (spread, plain)]
    assert not torch.isclose(losses[0].total, losses[1].total) and losses[0].count == losses[1].count
    assert torch.isclose(losses[0].metrics["cross_entropy"][0], losses[1].total)  # each slot has the same weight in both


def test_the_first_action_is_measured_apart_from_the_plan():
    policy, sample = make().eval(), plans(64)
    metrics = policy(sample, Noise(0, 0, torch.arange(64))).metrics
    loss, count = metrics["first_action_loss"]
    hidden = torch.full((64, 8), policy.MASK)
    context = policy.encode(sample["observation"], sample["observation_mask"])
    logits = policy.denoise(context, hidden, torch.ones(64), Noise(0, 0, torch.arange(64)))[:, 0, :7]
    assert count == 64
    assert torch.isclose(loss, torch.nn.functional.cross_entropy(logits, sample["action"][:, 0], reduction="sum"))
    assert "first_action_loss" not in policy.train()(sample, Noise(0, 0, torch.arange(64))).metrics  # costs a pass


def test_several_corruptions_share_one_encoded_state():
    """Each of several corruptions of the same plan and state contributes the same as alone."""
    policy, sample = make(corruptions=3), plans(16)
    several = policy(sample, Noise(0, 0, torch.arange(16)))
    seen = []
    denoise = policy.denoise
    policy.denoise = lambda context, tokens, time, noise: (
        seen.append((context, tokens, time)) or denoise(context, tokens, time, noise)
    )
    policy.train()(sample, Noise(0, 0, torch.arange(16)))
    ((context, tokens, time),) = seen
    assert tokens.shape == (48, 8) and len(context.pooled) == 16
    assert (tokens.view(16, 3, 8)[:, 0] != tokens.view(16, 3, 8)[:, 1]).any()
    total = torch.zeros(())
    for way in range(3):
        logits = denoise(context, tokens.view(16, 3, 8)[:, way], time.view(16, 3)[:, way], Noise(0, 0, torch.arange(16)))
        hidden = tokens.view(16, 3, 8)[:, way] == policy.MASK
        label = sample["action"].masked_fill(~hidden, -100)
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="sum")
    assert torch.isclose(several.total, total, rtol=1e-4) and several.count == (tokens == policy.MASK).sum()


def test_rounds_show_the_plan_that_is_made():
    policy, seen = make(), grids(6)
    shown = policy.rounds({"grid": seen}, Noise(0, 0, torch.arange(6)))
    assert shown.shape == (9, 6, 8) and (shown[0] == policy.MASK).all()
    assert torch.equal(shown[-1], policy.unmasked({"grid": seen[:, None]}, NOW.expand(6, 1), Noise(0, 0, torch.arange(6))))
    masked = (shown == policy.MASK).sum(-1)
    assert (masked[1:] <= masked[:-1]).all() and (masked[-1] == 0).all()


class _All(Noise):
    """Everything is hidden."""

    def __init__(self):
        super().__init__(0, 0, torch.arange(8))

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.full((len(self.rows), *shape), 1 - 2**-24)
