from __future__ import annotations

import builtins
import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import PUSH_SPACES

from conf.errors import BadRequest
from policies.encoders import Config, Encoder
from policies.encoders.backbones import CNN
from policies.encoders.image import Image
from policies.encoders.resnet import ResNet
from policies.encoders.vit import resized
from policies.noise import Noise

SPACE = spaces.Box(0, 255, (84, 84, 3), np.uint8)


def images(rows: int, frames: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (rows, frames, 84, 84, 3), dtype=torch.uint8)


def test_the_spatial_softmax_says_where():
    """If a bright spot moves to the right, so does the point of a filter that responds to brightness; an average would not show
    it."""
    backbone, x = CNN(Config(), (84, 84)), torch.zeros(2, 64, 11, 11)
    x[0, :, 5, 2], x[1, :, 5, 8] = 50, 50
    backbone.map = lambda _, film: x
    points = backbone(x).unflatten(1, (64, 2))
    assert torch.allclose(points[0, 0], torch.tensor([-0.6, 0.0]), atol=1e-4)
    assert torch.allclose(points[1, 0], torch.tensor([0.6, 0.0]), atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backbone(x).unflatten(1, (64, 2)), points)
    average = CNN(Config(image_pool="average"), (84, 84))
    average.map = lambda _, film: x
    assert torch.allclose(*average(x))


def test_shifts_are_drawn_for_rows_and_belong_to_training():
    part, seen = Image(Config(image_shift=4), SPACE, 16), images(6, 2)
    moved = part.shifted(seen, Noise(0, 0, torch.arange(6)))
    assert not torch.equal(moved, seen) and moved.shape == seen.shape
    assert torch.equal(moved[2:], part.shifted(seen[2:], Noise(0, 0, torch.arange(2, 6))))  # however the batch is divided
    inner = moved[:, :, 4:-4, 4:-4]
    found = [(y, x) for y in range(9) for x in range(9) if torch.equal(inner[0], seen[0, :, y : y + 76, x : x + 76])]
    assert len(found) == 1  # both frames of a row move together
    encoder = Encoder(Config(image_shift=4), PUSH_SPACES.observation, 16)
    observation = {"image": seen, "state": torch.zeros(6, 2, 3)}
    drawn = [encoder(observation, noise=Noise(0, step, torch.arange(6))) for step in (0, 1)]
    assert not torch.equal(*drawn)
    drawn = [encoder.eval()(observation, noise=Noise(0, step, torch.arange(6))) for step in (0, 1)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("values", [{}, {"image_pool": "average"}, {"image_size": 96}])
def test_images_of_another_size_are_refused(values: dict):
    part = Image(Config(**values), SPACE, 16)
    with pytest.raises(BadRequest, match="learned from images of 84x84 pixels and was given 64x64"):
        part.feature(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_a_missing_package_for_pretrained_weights_is_named(monkeypatch: pytest.MonkeyPatch):
    config = Config(image="resnet18", image_pretrained=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'iolaus[vision]'" in str(Encoder.accepts(config, PUSH_SPACES.observation))
    assert Encoder.accepts(Config(image="resnet18"), PUSH_SPACES.observation) is None


def test_patches_of_16_do_not_divide_84_pixels():
    sentence = Encoder.accepts(Config(image="vit_b16"), PUSH_SPACES.observation)
    assert "84x84" in sentence and "policy.encoder.image_size=224" in sentence
    assert Encoder.accepts(Config(image="vit_b16", image_size=224), PUSH_SPACES.observation) is None


def test_positions_of_another_size_are_interpolated():
    positions = torch.randn(1, 1 + 14 * 14, 8)
    assert torch.allclose(resized(positions, (14, 14)), positions, atol=1e-5)
    assert resized(positions, (6, 6)).shape == (1, 37, 8)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_rows_features_do_not_depend_on_the_batch(pretrained: bool):
    part = Image(Config(image="resnet18", image_pretrained=pretrained), SPACE, 16)
    seen = images(3)[:, 0]
    assert torch.allclose(part(seen)[:1], part(seen[:1]), atol=1e-4)


def test_weights_that_cannot_be_had_are_a_sentence(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def unreachable(name, *rest):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    part = Image(Config(image="resnet18", image_pretrained=True), SPACE, 16)
    monkeypatch.setattr(builtins, "__import__", unreachable)
    with pytest.raises(BadRequest, match="image_pretrained=false"):
        part.fit(None)


def test_bfloat16_is_for_training():
    part, seen = Image(Config(image_bf16=True), SPACE, 16), images(2)[:, 0]
    exact = Image(Config(), SPACE, 16)
    exact.load_state_dict(part.state_dict())
    assert part(seen).dtype == torch.float32 and not torch.equal(part(seen), exact(seen))
    assert torch.equal(part.eval()(seen), exact.eval()(seen))


@pytest.mark.parametrize(("image", "cells"), [("cnn", 11 * 11), ("resnet18", 3 * 3), ("vit_b16", 6 * 6)])
def test_without_a_pool_each_cell_of_the_map_is_a_token(image: str, cells: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("policies.encoders.vit.LAYERS", 1)
    config = Config(image=image, image_pool="none", image_size=96 if image == "vit_b16" else 0)
    assert Encoder.accepts(config, PUSH_SPACES.observation) is None
    encoder, seen = Encoder(config, PUSH_SPACES.observation, 32).eval(), images(2, 1)
    part = encoder.parts["image"]
    tokens = encoder({"image": seen, "state": torch.zeros(2, 1, 3)})
    assert encoder.tokens == cells + 1 and tokens.shape == (2, 1, cells + 1, 32)
    # A frozen backbone's features stand in for the images, as `trainer.cache_features` stores them.
    features = part.feature(seen[:, 0])
    assert features.shape == (2, part.feature_size) and torch.equal(part(features), part(seen[:, 0]))
    marks = encoder.kind[:cells]  # each place begins with an embedding of its own
    assert torch.cdist(marks, marks).fill_diagonal_(9).min() > 0.3


def test_what_changes_in_a_corner_changes_that_corners_tokens():
    part = Image(Config(image_pool="none"), SPACE, 16)
    seen = images(1)[:, 0]
    other = seen.clone()
    other[:, -8:, :8] ^= 255
    changed = (part(seen) != part(other))[0].any(-1).view(11, 11)
    assert changed[10, 0] and changed[6:, :5].sum() == changed.sum()  # rows come first


def test_tokens_of_cells_are_not_joined_into_one():
    for join in ("concat", "sum"):
        with pytest.raises(ValueError, match="needs join=tokens"):
            Config(image_pool="none", join=join)


def only_large(convolve: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The convolution, which small maps and single pixels must do without."""

    def forward(layer: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        out = convolve(layer, x)
        assert layer.kernel_size != (1, 1) and out.shape[-1] > 4
        return out

    return forward


@pytest.mark.parametrize("frozen", [False, True])
def test_a_resnets_cells_are_what_its_pool_averages(monkeypatch: pytest.MonkeyPatch, frozen: bool):
    """They are computed in another way, so they are equal but for rounding."""
    pooled, whole = (ResNet(frozen, pooled) for pooled in (True, False))
    whole.load_state_dict(pooled.state_dict())
    results = []
    for network in (pooled, whole):
        x = torch.linspace(-1, 1, 2 * 3 * 84 * 84).sin().view(2, 84, 84, 3).permute(0, 3, 1, 2)
        if network is whole:
            monkeypatch.setattr(torch.nn.Conv2d, "forward", only_large(torch.nn.Conv2d.forward))
        out = network(x)
        out = out if network is pooled else out.mean(1)
        out.square().sum().backward()
        results.append((out.detach(), network.layer4[0].downsample[0].weight.grad, network.conv1.weight.grad))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
