"""The contract of all policies, tested in every environment that they accept. A new YAML in conf/policy or conf/env is tested
too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import CONTINUOUS_TOY, IN_CONTEXT, NO_EXPERT, PACKAGES, options, pair

from conf.checkpoint import write_manifest
from conf.errors import BadRequest
from envs.base import Family
from envs.data import record, statistics
from envs.data.store import Dataset
from envs.data.windows import Windows
from policies import store
from policies.base import Batch, Policy
from policies.noise import Noise


class Setting(NamedTuple):
    policy: Policy
    family: Family
    windows: Windows
    statistics: statistics.Statistics
    request: Any

    def batch(self, size: int = 24) -> Batch:
        return self.windows.batch(np.linspace(0, len(self.windows) - 1, size).astype(np.int64))


# (policy, environment) -> words of the expected refusal. Any other refusal is a failure.
REFUSED: dict[tuple[str, str], str] = {}
# The toy stands for images, a state vector and continuous actions, and the same tests run on it. babyai is minigrid's class.
ENVIRONMENTS = ["toy", *(env for env in options("env") if env not in (*PACKAGES, *NO_EXPERT, "babyai"))]
PAIRS = [(policy, env) for policy in options("policy") for env in ENVIRONMENTS]


class Place(NamedTuple):
    family: Family
    data: Dataset
    statistics: statistics.Statistics


@pytest.fixture(scope="module")
def places() -> dict[str, Place]:
    """The environments and their data, which no test changes."""
    return {}


def everyday(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    """All pairs, of which only these are everyday tests."""
    marked = [pytest.param(pair, marks=() if pair in pairs else pytest.mark.slow, id="-".join(pair)) for pair in PAIRS]
    return pytest.mark.parametrize("setting", marked, indirect=True)


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def setting(request: pytest.FixtureRequest, request_for: Callable, places: dict[str, Place], data_dir: Path) -> Setting:
    policy, env = request.param
    words = (*pair(policy, env), *(CONTINUOUS_TOY if env == "toy" else ()))
    if (policy, env) in REFUSED:
        with pytest.raises(BadRequest, match=REFUSED[policy, env]):
            request_for(*words)
        pytest.skip(REFUSED[policy, env])
    asked = request_for(*words)
    if (name := json.dumps(asked.config["env"])) not in places:
        family = asked.targets["env"](asked.env)
        data = record.dataset(family, asked.env.data, "train", data_dir)
        places[name] = Place(family, data, statistics.summarise(data))
    family, data, known = places[name]
    made = asked.targets["policy"](asked.policy, family.spaces)
    made.fit(known)
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # it draws from PyTorch's own generator, and no two passes would be equal
    return Setting(made, family, Windows(data, made.window), known, asked)


def noise(size: int, step: int = 0) -> Noise:
    return Noise(0, step, torch.arange(size))


def jolt(policy: Policy) -> None:
    """Move weights away from their initial values: a zero-initialised head would make most equalities trivial."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


FEEDBACK = ("first", "previous_action", "previous_reward")  # additional inputs of policies whose memory spans episodes


def observation(batch: Batch, step: int = -1) -> dict[str, torch.Tensor]:
    seen = batch["observation"] | {name: batch[name] for name in FEEDBACK if name in batch}
    return {name: value[:, step] for name, value in seen.items()}


def test_the_first_loss_is_chance(setting: Setting):
    batch = setting.batch()
    loss = setting.policy(batch, noise(24))
    assert loss.count > 0
    assert torch.isclose(loss.total / loss.count, torch.tensor(setting.policy.chance_loss(batch)), rtol=0.1)


def test_loss_is_a_sum_over_rows(setting: Setting):
    jolt(setting.policy)
    batch, draws = setting.batch(), noise(24)
    whole = setting.policy(batch, Noise(0, 0, torch.arange(24)))
    parts = [
        setting.policy(_rows(batch, rows), draws_of)
        for rows, draws_of in ((slice(0, 10), draws[torch.arange(10)]), (slice(10, 24), draws[torch.arange(10, 24)]))
    ]
    assert torch.isclose(whole.total, parts[0].total + parts[1].total, rtol=1e-4)
    assert whole.count == parts[0].count + parts[1].count


def test_padding_never_counts(setting: Setting):
    jolt(setting.policy)
    batch = setting.batch(64)
    slots = torch.arange(batch["action_mask"].numel()).view_as(batch["action_mask"])
    batch["action_mask"] &= slots % 3 > 0  # not every window is long enough to have padding of its own
    padding = ~batch["action_mask"]
    assert padding.any() and not padding.all()
    before = setting.policy(batch, noise(64))
    assert before.count > 0
    other = torch.from_numpy(np.stack([setting.family.spaces.action.sample() for _ in range(slots.numel())]))
    padding = padding.view(*padding.shape, *[1] * (batch["action"].dim() - 2))
    batch["action"] = torch.where(padding, other.view_as(batch["action"]), batch["action"])
    after = setting.policy(batch, noise(64))
    assert torch.equal(before.total, after.total) and before.count == after.count


def test_an_empty_batch_of_labels_gives_a_finite_loss(setting: Setting):
    batch = setting.batch()
    batch["action_mask"] = torch.zeros_like(batch["action_mask"])
    batch["ended"] = torch.zeros_like(batch["ended"])
    loss = setting.policy(batch, noise(24))
    assert loss.total == 0 and loss.count == 0


@everyday(
    *((policy, "toy") for policy in options("policy") if policy not in IN_CONTEXT), ("bc_mlp", "minigrid"), ("ad", "darkroom")
)
def test_acting_is_the_training_forward_pass(setting: Setting):
    """Of all labels for the next action, the one that greedy acting chooses has the smallest loss.

    For a diffusion policy, in one round: only the next action is known and the noise is at its latest, so everything is hidden.
    """
    if hasattr(setting.request.policy, "denoise_steps"):  # read as the policy is made
        once = replace(setting.request.policy, denoise_steps=1)
        setting = setting._replace(policy=type(setting.policy)(once, setting.family.spaces))
        setting.policy.fit(setting.statistics)
    jolt(setting.policy)
    setting.policy.eval()
    batch, latest = setting.batch(12), _Latest(0, 0, torch.arange(1))
    each = setting.windows.window.align == "each"
    memory, chosen = setting.policy.start(12, torch.device("cpu")), []
    for step in range(batch["action"].shape[1]) if each else [-1]:
        if each and step:  # steps from before the episode leave no memory
            fresh, begun = setting.policy.start(12, torch.device("cpu")), batch["observation_mask"][:, step - 1]
            memory = {name: x.where(begun.view(-1, *[1] * (x.dim() - 1)), fresh[name]) for name, x in memory.items()}
        action, memory = setting.policy.act(observation(batch, step), memory, noise(12, step), greedy=True)
        chosen.append(action)
    batch["ended"] = torch.zeros_like(batch["ended"])
    for step in {0, len(chosen) // 2, len(chosen) - 1}:
        asked = batch["action_mask"] & (torch.arange(batch["action"].shape[1]) == step)
        for row in asked.any(1).nonzero()[:, 0].tolist():
            one = _rows({**batch, "action_mask": asked}, slice(row, row + 1))
            losses = []
            for label in (labels := alternatives(setting.family.spaces.action, chosen[step][row])):
                one["action"] = label.expand_as(one["action"])
                losses.append(setting.policy(one, latest).total.item())
            assert torch.equal(labels[int(np.argmin(losses))], chosen[step][row])


def test_lanes_do_not_see_each_other(setting: Setting):
    jolt(setting.policy)
    setting.policy.eval()
    seen, device = observation(setting.batch()), torch.device("cpu")
    memory, alone = setting.policy.start(24, device), setting.policy.start(1, device)
    for step in range(6):
        actions, memory = setting.policy.act(seen, memory, noise(24, step))
        lane = {name: value[5:6] for name, value in seen.items()}
        single, alone = setting.policy.act(lane, alone, Noise(0, step, torch.tensor([5])))
        assert torch.allclose(single[0], actions[5], atol=1e-5)


def test_weights_lie_in_memory_as_they_are_saved(setting: Setting):
    """A checkpoint's tensors are contiguous. The fused optimisers pair numbers by their place in memory, so that after a resume
    moments of another layout (channels_last) would belong to other weights."""
    assert all(parameter.is_contiguous() for parameter in setting.policy.parameters())


def test_save_and_load_give_the_same_policy(setting: Setting, tmp_path: Path):
    jolt(setting.policy)
    store.save(
        tmp_path,
        setting.request.config["policy"]["_target_"],
        setting.request.policy,
        setting.family.spaces,
        setting.policy.state_dict(),
    )
    write_manifest(tmp_path)
    loaded = store.load(tmp_path)
    seen, device = observation(setting.batch()), torch.device("cpu")
    for greedy in (False, True):
        ours = setting.policy.eval().act(seen, setting.policy.start(24, device), noise(24), greedy)[0]
        assert torch.equal(ours, loaded.act(seen, loaded.start(24, device), noise(24), greedy)[0])


@everyday(("bc_mlp", "minigrid"), ("masked_dit", "minigrid"))
def test_one_batch_can_be_learned(setting: Setting):
    batch, losses = setting.batch(16), []
    # Well below chance: the rest cannot be predicted because of tie-breaks and hidden neighbours.
    enough = 0.4 * setting.policy.chance_loss(batch)
    optimizer = torch.optim.AdamW(setting.policy.parameters(), lr=3e-3)
    for step in range(150):
        loss = setting.policy(batch, noise(16, step))
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        losses.append((loss.total / loss.count).item())
        if step >= 10 and np.mean(losses[-10:]) < enough:  # ten losses, since one can be a lucky draw
            return
    pytest.fail(f"{np.mean(losses[-10:]):.3f} after 150 steps, not under {enough:.3f}")


def alternatives(space: spaces.Space, chosen: torch.Tensor) -> torch.Tensor:
    """Labels [L, *A] that could be the next action. The chosen one comes first, so that it wins ties."""
    if isinstance(space, spaces.Discrete):
        return torch.cat([chosen[None], torch.arange(space.start, space.start + space.n)])
    assert isinstance(space, spaces.Box)
    moved = chosen + torch.cat([step * torch.eye(len(chosen)) for step in (-0.3, 0.3)])
    return torch.cat([chosen[None], moved]).clamp(torch.from_numpy(space.low), torch.from_numpy(space.high))


class _Latest(Noise):
    """The largest time, at which diffusion hides everything, and zero Gaussian noise, from which greedy acting starts."""

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.full((len(self.rows), *shape), 1 - 2**-24)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.zeros(len(self.rows), *shape)


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: _rows(value, rows) if isinstance(value, dict) else value[rows] for name, value in batch.items()}
