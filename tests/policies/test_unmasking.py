"""The sampler, tested on joint distributions of plans that are known in closed form: exact posteriors replace the network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import GRID_SPACES
from torch import Tensor

from policies.masked_dit import Config, Context, MaskedDiT
from policies.noise import Noise
from policies.unmasking import Unmasking, mask_ratio

SLOTS, ACTIONS = 4, 7
END, PAD = ACTIONS, ACTIONS + 1
SAMPLES = 10_000


class Known(MaskedDiT):
    """The exact posterior of every hidden slot given the visible slots, if the plan reaches it: training aims at this."""

    def __init__(self, plans: Tensor, probability: Tensor, **values):
        super().__init__(Config(horizon=plans.shape[1], **values), GRID_SPACES)
        self.plans, self.probability = plans, probability  # [P, H], [P]

    def encode(self, seen, known) -> Context:
        return Context(torch.zeros(len(known), 1), None, None)

    def denoise(self, context, tokens, time, noise) -> Tensor:
        shown = tokens[:, None] == self.plans  # [N, P, H]
        possible = (shown | (tokens == self.MASK)[:, None]).all(-1) * self.probability  # [N, P]
        assert (possible.sum(1) > 0).all(), "the sampler made a plan that the joint distribution does not contain"
        is_token = self.plans[..., None] == torch.arange(ACTIONS + 1)  # [P, H, classes]
        return torch.einsum("np,phc->nhc", possible, is_token.double()).clamp(min=1e-30).log()

    def drawn(self, greedy: bool = False) -> Tensor:
        """How often each plan is made [P]."""
        known = torch.ones(SAMPLES, 1, dtype=torch.bool)
        made = self.unmasked({}, known, Noise(0, 0, torch.arange(SAMPLES)), greedy)
        same = (made[:, None] == self.plans).all(-1)  # [N, P]
        return same.double().mean(0)


def varied(seed: int = 0, shortest: int = 1, plans: int = 60) -> tuple[Tensor, Tensor]:
    """Random plans of a random probability (3.4 nats); those that are shorter than all slots end with END and PADs."""
    random = np.random.default_rng(seed)
    made = set()
    while len(made) < plans:
        length = int(random.integers(shortest, SLOTS + 1))
        made.add((*random.integers(0, 3, length).tolist(), END, *[PAD] * SLOTS)[:SLOTS])
    return torch.tensor(sorted(made)), torch.from_numpy(random.dirichlet(np.full(plans, 0.7)))


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float((one - other).abs().sum() + abs(one.sum() - other.sum())) / 2


def sampling_noise(probability: Tensor) -> float:
    """The total variation that exact samples have on average."""
    return float((2 * probability * (1 - probability) / (math.pi * SAMPLES)).sqrt().sum()) / 2


@pytest.mark.parametrize("shortest", [1, SLOTS])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_order_with_one_slot_a_round_is_exact(seed, shortest):
    plans, probability = varied(seed, shortest)
    assert (plans == END).any() == (shortest < SLOTS)
    policy = Known(plans, probability, denoise_steps=SLOTS, order="random")
    assert distance(policy.drawn(), probability) < 1.3 * sampling_noise(probability) < 0.04


def test_the_other_orders_prefer_likely_plans():
    plans, probability = varied()
    far = {
        order: distance(Known(plans, probability, denoise_steps=SLOTS, order=order).drawn(), probability)
        for order in ("random", "annealed", "confident")
    }
    assert far["random"] < 0.04 < far["annealed"] < far["confident"] - 0.05
    assert far["confident"] > 0.4


def test_one_of_two_plans_is_hardly_made_by_confidence():
    plans, probability = torch.tensor([[0] * SLOTS, [1] * SLOTS]), torch.tensor([0.7, 0.3], dtype=torch.double)
    share = {
        order: Known(plans, probability, denoise_steps=SLOTS, order=order).drawn()[0].item()
        for order in ("random", "annealed", "confident")
    }
    assert abs(share["random"] - 0.7) < 0.015
    assert 0.72 < share["annealed"] < share["confident"]
    assert 0.985 < share["confident"] < 0.998  # 1 - .3**4: B first only if all four slots have drawn it


@pytest.mark.parametrize("order", ["random", "annealed", "confident"])
def test_the_slots_of_one_round_are_independent(order):
    """All slots in one round: a product of marginals, whatever the order."""
    plans, probability = varied(shortest=SLOTS)
    joint = Known(plans, probability)
    marginals = joint.denoise(None, torch.full((1, SLOTS), joint.MASK), None, None)[0].softmax(-1)[:, :3]  # [H, 3]
    every = torch.cartesian_prod(*[torch.arange(3)] * SLOTS)  # [81, H]
    product = marginals.gather(1, every.T).prod(0)
    assert distance(Known(every, product, denoise_steps=1, order=order).drawn(), product) < 1.3 * sampling_noise(product)


def test_more_rounds_come_nearer_to_the_joint():
    plans, probability = varied(shortest=SLOTS)
    every = torch.cartesian_prod(*[torch.arange(3)] * SLOTS)
    joint = 0.98 * ((every[:, None] == plans).all(-1).double() @ probability) + 0.02 / len(every)  # so that none is impossible
    far = [distance(Known(every, joint, denoise_steps=k, order="random").drawn(), joint) for k in (1, 2, SLOTS)]
    assert far[0] > far[1] + 0.02 > far[2] + 0.04


def test_greedy_plans_know_one_order():
    plans, probability = varied()
    made = [Known(plans, probability, denoise_steps=SLOTS, order=order).drawn(greedy=True) for order in ("random", "annealed")]
    made.append(Known(plans, probability, denoise_steps=SLOTS).drawn(greedy=True))
    assert made[0].max() == 1 and torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


@pytest.mark.parametrize("order", ["random", "annealed", "confident"])
@pytest.mark.parametrize("rounds", [2, SLOTS])
def test_what_is_committed_stays(order, rounds):
    """Also if the network would end the plan before a committed action: this one ignores its input."""
    sampler = Unmasking(order, SLOTS, rounds, 1.0, end=END, mask=PAD + 1)
    logits = torch.zeros(2000, SLOTS, ACTIONS + 1)
    logits[..., END] = 1.5
    tokens, noise = torch.full((2000, SLOTS), sampler.mask), Noise(0, 0, torch.arange(2000))
    for index in range(rounds):
        after = sampler.commit(tokens, logits, index, noise, greedy=False)
        kept = tokens != sampler.mask
        assert torch.equal(after[kept], tokens[kept])
        tokens = after
    assert (tokens != sampler.mask).all() and (tokens[:, 0] < END).all() and (tokens == END).any()
    ended = tokens == END
    assert torch.equal(tokens == PAD, ended.cumsum(1) - ended.long() > 0)


def test_more_rounds_than_slots_are_as_many_as_slots():
    for rounds in (8, 100):
        assert Unmasking("random", 8, rounds, 1.0, end=7, mask=9).left == [7, 6, 5, 4, 3, 2, 1, 0]


def test_times_are_those_of_the_shares_that_are_hidden():
    sampler = Unmasking("random", 8, 4, 1.0, end=7, mask=9)
    hidden = torch.tensor([8, *sampler.left[:-1]]) / 8
    assert torch.allclose(mask_ratio(torch.tensor(sampler.times)), hidden, atol=1e-6)
    assert torch.allclose(mask_ratio(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("order", ["random", "confident", "annealed"])
def test_no_plan_ends_in_the_middle_of_an_action(order: str):
    """Where an action is several tokens, as binned continuous ones are."""
    sampler = Unmasking(order, 8, 4, 1.0, end=3, mask=5, per_action=2)
    tokens, noise = torch.full((400, 8), sampler.mask), Noise(0, 0, torch.arange(400))
    for index in range(4):
        tokens = sampler.commit(tokens, torch.zeros(400, 8, 4), index, noise, greedy=False)
    ends = tokens == sampler.end
    assert ends[:, 2::2].any() and not ends[:, 1::2].any() and not ends[:, 0].any()
