from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from helpers import GRID_SPACES, PUSH_SPACES, plans

from envs.spaces import Spaces
from policies.act import ACT, Config
from policies.noise import Noise

STATE = Spaces(spaces.Dict({"state": PUSH_SPACES.observation["state"]}), PUSH_SPACES.action)
DEVICE = torch.device("cpu")


def jolted(spaces: Spaces, **values) -> ACT:
    policy = ACT(Config(**values), spaces)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return policy


def batch(rows: int, slots: int = 8) -> dict:
    return {
        "observation": {"state": torch.randn(rows, 1, 3)},
        "observation_mask": torch.ones(rows, 1, dtype=torch.bool),
        "action": torch.rand(rows, slots, 3) * 2 - 1,
        "action_mask": torch.arange(slots) < torch.arange(1, rows + 1)[:, None],
        "ended": torch.zeros(rows, slots, dtype=torch.bool),
    }


@pytest.mark.parametrize("coefficient", [0.1, -0.7, 0.0])
def test_ensembling_averages_what_was_predicted_for_this_step(coefficient: float):
    """Compared with the definition: weights exp(-c * i) over all chunks that include this step, i = 0 for the oldest."""
    policy = jolted(STATE, chunk_size=4, execute=1, ensemble=True, ensemble_coefficient=coefficient).eval()
    memory, chunks = policy.start(2, DEVICE), []
    for step in range(7):
        state = {"state": torch.randn(2, 3)}
        now = {"state": state["state"][:, None]}
        chunk, _ = policy.plan(now, torch.ones(2, 1, dtype=torch.bool), Noise(0, 0, torch.arange(2)))
        chunks.append(chunk)
        action, memory = policy.act(state, memory, Noise(0, step, torch.arange(2)))
        said = [chunks[made][:, step - made] for made in range(max(0, step - 3), step + 1)]
        weight = torch.tensor([math.exp(-coefficient * i) for i in range(len(said))])
        expected = (torch.stack(said) * weight[:, None, None]).sum(0) / weight.sum()
        assert torch.allclose(action, expected, atol=1e-5)


def test_an_episode_that_begins_anew_is_not_averaged_with_the_one_before():
    policy = jolted(STATE, execute=1, ensemble=True).eval()
    memory, fresh = policy.start(1, DEVICE), policy.start(1, DEVICE)
    for step in range(3):
        _, memory = policy.act({"state": torch.randn(1, 3)}, memory, Noise(0, step, torch.arange(1)))
    memory = {name: fresh[name].clone() for name in memory}  # the rollout's masked write
    state = {"state": torch.randn(1, 3)}
    again, _ = policy.act(state, memory, Noise(0, 0, torch.arange(1)))
    first, _ = policy.act(state, policy.start(1, DEVICE), Noise(0, 0, torch.arange(1)))
    assert torch.equal(again, first)


def test_ensembling_needs_actions_that_can_be_averaged():
    config = Config(execute=1, ensemble=True)
    assert "policy.ensemble=true" in str(ACT.accepts(config, GRID_SPACES))
    assert ACT.accepts(config, STATE) is None
    with pytest.raises(ValueError, match="execute must be 1"):
        Config(ensemble=True, execute=2)


def test_the_vae_reads_the_chunk_in_training_and_nothing_in_acting():
    policy, sample, noise = jolted(STATE, latent_dim=4), batch(6), torch.arange(6)
    one, other = (policy.train()(sample, Noise(0, step, noise)) for step in (0, 1))
    assert one.metrics["divergence"][0] > 0 and one.total != other.total  # a latent is drawn
    assert set(one.metrics) >= {"cross_entropy", "divergence"}  # what can be compared with chance is kept apart
    hidden = ~sample["action_mask"]
    sample["action"][hidden] = 0.5  # slots without a label are not read either
    assert torch.equal(one.total, policy(sample, Noise(0, 0, noise)).total)
    plain = [policy.eval()(sample, Noise(0, step, noise)).total for step in (0, 1)]
    assert torch.equal(*plain)


def test_a_discrete_chunk_can_end():
    policy, sample = jolted(GRID_SPACES), plans(16, length=3)
    assert policy.chance_loss(sample) == math.log(8)
    assert policy(sample, Noise(0, 0, torch.arange(16))).count == 16 * 4  # three actions and END


def test_frames_from_before_the_episode_are_not_attended_to():
    policy, sample = jolted(STATE, frames=[2, 0]), batch(8)
    sample["observation"]["state"] = torch.randn(8, 2, 3)
    sample["observation_mask"] = torch.tensor([False, True]).expand(8, -1)
    before = policy(sample, Noise(0, 0, torch.arange(8))).total
    sample["observation"]["state"][:, 0] = 9.0
    assert torch.equal(before, policy(sample, Noise(0, 0, torch.arange(8))).total)
    sample["observation"]["state"][:, 1] = 9.0
    assert not torch.equal(before, policy(sample, Noise(0, 0, torch.arange(8))).total)
