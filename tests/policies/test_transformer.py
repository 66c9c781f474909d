"""Acting with the cache equals the training forward pass, for any length, because of the band."""

from __future__ import annotations

import pytest
import torch

from policies.transformer import CHUNK, Transformer, banded

WIDTH = 32


@pytest.fixture
def decoder() -> Transformer:
    made = Transformer(WIDTH, layers=3, heads=4, feedforward=64, dropout=0.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made.eval()


def stepped(decoder: Transformer, x: torch.Tensor, capacity: int, begin: int = 0) -> torch.Tensor:
    memory = decoder.start(len(x), capacity, x.device)
    position = torch.full((len(x),), begin)
    return torch.stack([decoder.step(x[:, t], memory, position + t) for t in range(x.shape[1])], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("reach", [1, 7, 40, 100])
def test_a_ring_cache_is_the_banded_forward_pass(decoder: Transformer, reach: int):
    x = torch.randn(3, 3 * 100, WIDTH)
    assert (stepped(decoder, x, reach) - decoder(x, reach)).abs().max() < 1e-5


@torch.no_grad()
def test_a_ring_cache_is_not_the_last_steps_alone(decoder: Transformer):
    """The deeper layers' entries were computed from steps that have left the window, so only a banded pass gives the same."""
    x, reach = torch.randn(2, 60, WIDTH), 20
    alone = decoder(x[:, -reach:], reach)[:, -1]
    assert (stepped(decoder, x, reach)[:, -1] - alone).abs().max() > 1e-2


@torch.no_grad()
def test_only_distances_matter(decoder: Transformer):
    x = torch.randn(2, 60, WIDTH)  # long enough for the first contents of the slots to leave all layers
    near, far = (stepped(decoder, x, 15, begin)[:, -1] for begin in (0, 4_000_000))
    assert (far - near).abs().max() < 1e-5


@torch.no_grad()
def test_lanes_may_be_at_different_steps(decoder: Transformer):
    x, reach = torch.randn(2, 50, WIDTH), 12
    whole = decoder(x, reach)
    memory, position = decoder.start(2, reach, x.device), torch.tensor([0, 0])
    for t in range(20):  # the second lane waits
        alone = {name: value[:1] for name, value in memory.items()}
        assert (decoder.step(x[:1, t], alone, position[:1]) - whole[:1, t]).abs().max() < 1e-5
        position[0] += 1
    for t in range(30):
        both = decoder.step(torch.stack([x[0, 20 + t], x[1, t]]), memory, position)
        assert (both - torch.stack([whole[0, 20 + t], whole[1, t]])).abs().max() < 1e-5
        position += 1


@torch.no_grad()
def test_a_cache_can_begin_with_a_prefix(decoder: Transformer):
    x = torch.randn(3, 30, WIDTH)
    memory, lanes = decoder.start(3, 30, x.device), torch.tensor([0, 2])
    decoder.prefill(x[lanes, :20], memory, lanes)
    part = {name: value[lanes] for name, value in memory.items()}
    untouched = decoder.start(3, 30, x.device)
    assert all(torch.equal(value[1], untouched[name][1]) for name, value in memory.items())
    for t in range(20, 30):
        assert (decoder.step(x[lanes, t], part, torch.full((2,), t)) - decoder(x, 30)[lanes, t]).abs().max() < 1e-5


@pytest.mark.parametrize("reach", [5, 64, 500])
def test_a_step_sees_exactly_its_band(reach: int):
    steps = 2 * CHUNK + 9
    seen = torch.zeros(steps, steps, dtype=torch.bool)
    for asks, keys, mask in banded(steps, reach, torch.device("cpu")):
        seen[asks, keys] = mask == 0
    back = torch.arange(steps)[:, None] - torch.arange(steps)
    assert torch.equal(seen, (back >= 0) & (back < reach))


def test_without_a_band_every_step_sees_every_other(decoder: Transformer):
    x = torch.randn(1, 9, WIDTH, requires_grad=True)
    (gradient,) = torch.autograd.grad(decoder(x, None)[0, 0].sum(), x)
    assert gradient.abs().sum(-1).gt(0).all()
