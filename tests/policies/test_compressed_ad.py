from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from histories_of import batch, darkroom

from conf.errors import BadRequest
from policies.compressed_ad import CompressedAD, Config
from policies.noise import Noise

CPU = torch.device("cpu")
SMALL = Config(length=90, block=10, blocks=[6, 10, 15], latents=5)


def made(**values) -> CompressedAD:
    policy = CompressedAD(replace(SMALL, **values), darkroom().spaces)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy.eval()


def noise(rows: int, step: int = 0) -> Noise:
    return Noise(0, step, torch.arange(rows))


def in_training(policy: CompressedAD, tokens: torch.Tensor) -> torch.Tensor:
    """The features from which the forward pass reads the actions."""
    blocks = policy.cut(tokens, noise(len(tokens)))
    return policy.decoded(policy.compressed(blocks), blocks)[:, : tokens.shape[1]]


@torch.no_grad()
@pytest.mark.parametrize(
    "depth, recent", [(0, 0), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 0), (3, 0), (0, 1), (0, 3))), (2, 1)]
)
def test_acting_is_the_forward_pass_however_long_it_runs(depth: int, recent: int):
    policy = made(depth=depth, recent=recent)
    tokens = policy.token(batch(3, 250))  # 25 compressions
    memory = policy.start(3, CPU)
    sizes = {name: value.shape for name, value in memory.items()}
    acting = torch.stack([policy.step(tokens[:, t], memory) for t in range(250)], dim=1)
    assert (acting - in_training(policy, tokens)).abs().max() < 1e-5
    assert {name: value.shape for name, value in memory.items()} == sizes


@torch.no_grad()
def test_lanes_compress_when_each_of_them_is_full():
    policy = made()
    tokens = policy.token(batch(2, 40))
    alone = [
        torch.stack([policy.step(tokens[i : i + 1, t], m) for t in range(40)], 1)
        for i, m in enumerate([policy.start(1, CPU) for _ in range(2)])
    ]
    memory = policy.start(2, CPU)
    lane = {name: value[:1] for name, value in memory.items()}  # views: the first lane goes ahead by seven steps
    for t in range(7):
        policy.step(tokens[:1, t], lane)
    for t in range(33):
        both = policy.step(torch.stack([tokens[0, 7 + t], tokens[1, t]]), memory)
        assert (both - torch.stack([alone[0][0, 7 + t], alone[1][0, t]])).abs().max() < 1e-5


def test_the_last_block_learns_from_the_first():
    policy = made()
    tokens = policy.token(batch(2, 90)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(in_training(policy, tokens)[:, -1].sum(), tokens)
    assert gradient[:, :10].abs().sum() > 0
    limited = made(depth=2)
    (gradient,) = torch.autograd.grad(in_training(limited, tokens)[:, -1].sum(), tokens)
    assert gradient[:, 60:70].abs().sum() > 0 and gradient[:, :60].abs().sum() == 0  # the present block and two before it


@torch.no_grad()
def test_recent_blocks_are_seen_as_they_are_and_not_compressed():
    policy, tokens = made(recent=2), torch.randn(2, 90, 64)
    blocks = policy.cut(tokens, noise(2))
    latents = policy.compressed(blocks)
    assert policy.compressions(np.arange(90))[1].tolist() == [0] * 30 + np.repeat(range(1, 7), 10).tolist()
    before = policy.decoded(latents, blocks)
    other = latents.clone()
    other[:, 4:] += torch.randn_like(other[:, 4:])  # the latents of everything before block 4 are first read in block 6
    after = policy.decoded(other, blocks)
    assert torch.equal(before[:, :60], after[:, :60]) and not torch.allclose(before[:, 60:70], after[:, 60:70], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("recent", [0, 2])
def test_nothing_is_seen_before_it_happens(recent: int):
    policy, tokens = made(recent=recent), torch.randn(2, 90, 64)
    changed = tokens.clone()
    changed[:, 55:] += torch.randn(2, 35, 64)
    before, after = in_training(policy, tokens), in_training(policy, changed)
    assert torch.equal(before[:, :50], after[:, :50]) and torch.allclose(before[:, :55], after[:, :55], atol=1e-6)
    assert not torch.allclose(before[:, 55], after[:, 55], atol=1e-3)


@torch.no_grad()
def test_latents_matter():
    policy = made()
    blocks = policy.cut(policy.token(batch(2, 90)), noise(2))
    latents = policy.compressed(blocks)
    difference = policy.decoded(latents, blocks) - policy.decoded(torch.zeros_like(latents), blocks)
    assert difference.abs().max() > 1e-2


def test_each_batch_draws_one_block_length():
    policy = made().train()
    tokens = torch.randn(2, 90, 64)
    drawn = [policy.cut(tokens, noise(2, step)).shape[2] for step in range(40)]
    assert set(drawn) == {6, 10, 15}
    assert drawn == [policy.cut(tokens, noise(2, step)[torch.tensor([1])]).shape[2] for step in range(40)]
    assert policy.eval().cut(tokens, noise(2)).shape[2] == 10


@pytest.mark.parametrize("counted", [{}, {"targets": "one"}, {"late": 2, "late_weight": 10.0}], ids=["every", "one", "late"])
def test_reconstruction_weighs_what_it_was_given(counted: dict[str, Any]):
    """For any number of target actions and any weights on them."""
    plain, both, seen = made(**counted).train(), made(reconstruction=0.5, **counted).train(), batch(2, 90)
    plain.load_state_dict(both.state_dict(), strict=False)
    alone, loss = plain(seen, noise(2)), both(seen, noise(2))
    total, count = loss.metrics["reconstruction"]
    whole = alone.total / alone.count + 0.5 * total / count
    assert (loss.total / loss.count).item() == pytest.approx(whole.item(), rel=1e-5)


def test_reconstruction_reaches_what_it_needs():
    policy, seen = made(reconstruction=0.5), batch(2, 90)
    loss = policy(seen, noise(2))
    total, count = loss.metrics["reconstruction"]
    assert total > 0 and count == 2 * 80, "all blocks but the last are told of"
    loss.total.backward()
    assert policy.place.grad is not None and policy.place.grad[:10].abs().sum() > 0


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("policy.blocks=[]",), "blocks must be a list"),
        (("policy.blocks=[700]",), "nothing is compressed"),
        (("policy.depth=-1",), "depth"),
        (("env.data.source=expert",), "env.data.source=explorer"),
    ],
)
def test_what_cannot_work_is_a_sentence(request_for: Callable, words: tuple[str, ...], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for("policy=compressed_ad", "env=darkroom", *words)
