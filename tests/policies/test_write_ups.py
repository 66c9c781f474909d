"""The write-ups' systems are unchanged: their sizes match those counted on the write-ups' layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import PUSH_SPACES


@pytest.mark.parametrize(
    "recipe, width, tokenizer, parameters",
    [
        ("seed_000", 64, "conv", 754_183),
        ("seed_000", 64, "flat", 20_413_895),
        ("seed_001", 128, "conv", 1_815_751),
        ("seed_001", 128, "flat", 41_126_983),
    ],
)
def test_sizes_are_those_of_the_write_ups(request_for: Callable, recipe: str, width: int, tokenizer: str, parameters: int):
    asked = request_for(f"experiment={recipe}", f"encoder={tokenizer}")
    assert (asked.policy.hidden_dim, asked.policy.layers, asked.policy.heads, asked.policy.feedforward) == (width, 4, 4, 4)
    policy = asked.targets["policy"](asked.policy, asked.targets["env"](asked.env).spaces)
    assert sum(p.numel() for p in policy.parameters()) == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize(
    "recipe, parameters",
    [
        ("bc", 411_875),
        ("bc_spherical", 411_875),
        ("bc_gru", 518_755),
        ("bc_resnet18", 11_704_899),
        pytest.param("bc_vit", 86_458_115, marks=pytest.mark.slow),
        ("act", 18_035_427),
        ("act_resnet18", 29_328_451),
    ],
)
def test_visuomotor_sizes_are_exactly_those_that_were_counted(request_for: Callable, recipe: str, parameters: int):
    pytest.importorskip("panda_gym", reason="env=push needs the extra [push]")
    asked = request_for(f"experiment=seed_004_{recipe}")
    policy = asked.targets["policy"](asked.policy, PUSH_SPACES)
    assert sum(p.numel() for p in policy.parameters()) == parameters
