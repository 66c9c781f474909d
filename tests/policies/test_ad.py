from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from histories_of import batch, darkroom

from conf.errors import BadRequest
from policies.ad import AD, Config
from policies.noise import Noise

CPU = torch.device("cpu")


def made(**values) -> AD:
    policy = AD(Config(**values), darkroom().spaces)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy.eval()


def noise(rows: int) -> Noise:
    return Noise(0, 0, torch.arange(rows))


def test_what_was_done_and_paid_before_is_seen():
    policy, seen = made(length=30), batch(4, 30)
    before = policy(seen, noise(4)).total
    for name, other in (("previous_action", 4 - seen["previous_action"]), ("previous_reward", 1 - seen["previous_reward"])):
        assert not torch.isclose(policy({**seen, name: other}, noise(4)).total, before)
    assert not torch.isclose(policy({**seen, "first": ~seen["first"]}, noise(4)).total, before)


def test_one_target_a_sample_is_learned_from_if_asked():
    """As in write-up 003 and published code; the noise chooses which one. Validation counts all of them in both cases."""
    every, one, seen = made(length=30), made(length=30, targets="one"), batch(64, 30)
    one.load_state_dict(every.state_dict())
    assert every(seen, noise(64)).count == one(seen, noise(64)).count == 64 * 30
    one.train()
    loss = one(seen, noise(64))
    assert loss.count == 64
    other = one({**seen, "action": seen["action"].roll(1, dims=1)}, noise(64))
    assert not torch.equal(loss.total, other.total)
    mean = (loss.total / loss.count).item()
    whole = every(seen, noise(64))
    assert mean == pytest.approx((whole.total / whole.count).item(), rel=0.2)  # 64 draws out of the steps that make up the mean


def test_rewards_count_by_their_sign():
    policy, seen = made(length=30), batch(4, 30)
    small = {**seen, "previous_reward": seen["previous_reward"] * 0.07}
    assert torch.equal(policy(seen, noise(4)).total, policy(small, noise(4)).total)


def test_the_excess_is_over_the_floor_where_that_is_known():
    policy, seen = made(length=30), batch(4, 30)
    total, count = policy(seen, noise(4)).metrics["excess"]
    assert count == 0 and total == 0
    seen["floor"][:, 10:] = 0.25
    total, count = policy(seen, noise(4)).metrics["excess"]
    asked = {**seen, "action_mask": seen["action_mask"] & (torch.arange(30) >= 10)}
    assert count == 80 and torch.isclose(total, policy(asked, noise(4)).total - 20, rtol=1e-4)


def test_a_smoothed_loss_is_reported_beside_the_plain_one():
    policy, seen = made(length=30), batch(4, 30)
    plain = policy(seen, noise(4))
    policy.config.label_smoothing = 0.1
    smoothed = policy(seen, noise(4))
    assert torch.equal(smoothed.metrics["cross_entropy"][0], plain.total) and not torch.equal(smoothed.total, plain.total)
    assert "cross_entropy" not in plain.metrics


def test_late_episodes_can_count_more():
    policy, seen = made(length=40), batch(2, 40)
    plain = policy(seen, noise(2))
    early = policy({**seen, "action_mask": seen["action_mask"] & (seen["episode"] < 1)}, noise(2)).total
    policy.config.late, policy.config.late_weight = 1, 3.0
    weighted = policy(seen, noise(2))
    assert torch.isclose(weighted.total, 3 * plain.total - 2 * early, rtol=1e-4) and weighted.count == 2 * (20 + 3 * 20)
    assert torch.equal(weighted.metrics["cross_entropy"][0], plain.total)


def test_the_loss_of_first_and_last_episodes():
    policy, seen = made(length=40), batch(2, 40)
    seen["action_mask"][1, 15:] = False  # this history has no second episode
    metrics = policy(seen, noise(2)).metrics
    assert metrics["loss_first_episode"][1] == 20 + 15 and metrics["loss_last_episode"][1] == 20 + 15
    parts = metrics["loss_first_episode"][0] + metrics["loss_last_episode"][0]
    alone = policy({**seen, "action_mask": seen["action_mask"] & (torch.arange(2) == 1)[:, None]}, noise(2)).total
    assert torch.isclose(parts, policy(seen, noise(2)).total + alone, rtol=1e-4)


def test_memory_does_not_grow():
    policy, memory = made(context=25), None
    memory = policy.start(2, CPU)
    sizes = {name: value.shape for name, value in memory.items()}
    seen = {name: value[:, 0] for name, value in {**batch(2, 1), **batch(2, 1)["observation"]}.items() if name != "observation"}
    for step in range(60):
        _, memory = policy.act(seen, memory, Noise(0, step, torch.arange(2)))
    assert {name: value.shape for name, value in memory.items()} == sizes


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("env=minigrid",), "env.data.source=annealed_expert"),
        (("env=darkroom", "env.data.source=expert"), "env.data.source=explorer"),
        (("env=darkroom", "policy.context=10"), "one episode of up to 20 steps"),
        (("env=darkroom", "policy.hidden_dim=60"), "hidden_dim must be a multiple of"),
        (("env=darkroom", "policy.from_start=2"), "from_start"),
    ],
)
def test_what_cannot_work_is_a_sentence(request_for: Callable, words: tuple[str, ...], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for("policy=ad", *words)


def test_it_chooses_its_trainer_unless_another_is_named(request_for: Callable):
    assert request_for("policy=ad", "env=darkroom").trainer.batch_size == 16
    assert request_for("policy=ad", "env=darkroom", "trainer=offline").trainer.batch_size == 256
    assert request_for("policy=bc_mlp", "env=darkroom").trainer.batch_size == 256
