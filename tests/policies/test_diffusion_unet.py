"""What is special about diffusion_unet: its sizes, its four fixes, and that it learns a distribution with two modes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.base import Spaces
from envs.data.statistics import Moments, Statistics
from policies.diffusion_unet import Config, DiffusionUNet
from policies.noise import Noise
from policies.unet import FROM_CHANNELS, Convolution, UNet1d

SPACES = Spaces(spaces.Dict({"state": spaces.Box(-1, 1, (2,), np.float32)}), spaces.Box(-1, 1, (3,), np.float32))


def batch(size: int, horizon: int) -> dict:
    """Every number of an action is either -.5 or .5, constant along the chunk. The state shows which, except for the last
    number."""
    generator = torch.Generator().manual_seed(0)
    sign = (torch.rand(size, 3, generator=generator) > 0.5).float() * 2 - 1
    mask = torch.ones(size, horizon, dtype=torch.bool)
    return {
        "observation": {"state": sign[:, None, :2]},
        "observation_mask": torch.ones(size, 1, dtype=torch.bool),
        "action": 0.5 * sign[:, None].expand(size, horizon, 3).contiguous(),
        "action_mask": mask,
        "ended": ~mask,
    }


def fitted(**values) -> DiffusionUNet:
    torch.manual_seed(0)
    policy = DiffusionUNet(Config(**values), SPACES)
    state = Moments(np.zeros(2), np.ones(2), -np.ones(2), np.ones(2))
    policy.fit(Statistics({"state": state}, Moments(np.zeros(3), np.full(3, 0.5), np.full(3, -0.5), np.full(3, 0.5))))
    return policy


def loss(policy: DiffusionUNet, step: int = 0, size: int = 64) -> torch.Tensor:
    total, count, _ = policy(batch(size, policy.config.horizon), Noise(0, step, torch.arange(size)))
    return total / count


@pytest.mark.parametrize(("size", "parameters"), [("small", 744_963), ("base", 16_450_563), ("large", 73_074_691)])
def test_sizes_of_the_unet(size: str, parameters: int):
    with torch.device("meta"):
        policy = DiffusionUNet(Config(size=size), SPACES)
    assert sum(parameter.numel() for parameter in policy.unet.parameters()) == parameters


@pytest.mark.parametrize(("kernel", "stride", "padding", "steps"), [(5, 1, 2, 4), (3, 2, 1, 8), (1, 1, 0, 3)])
def test_a_product_of_matrices_is_the_convolution(
    monkeypatch: pytest.MonkeyPatch, kernel: int, stride: int, padding: int, steps: int
):
    made = Convolution(FROM_CHANNELS, 10, kernel, stride=stride, padding=padding)
    ours = torch.randn(2, FROM_CHANNELS, steps).requires_grad_()
    theirs = torch.nn.Conv1d(FROM_CHANNELS, 10, kernel, stride, padding)
    theirs.load_state_dict(made.state_dict())
    again = ours.detach().clone().requires_grad_()
    expected = theirs(again)
    monkeypatch.delattr(torch.nn.Conv1d, "forward")  # ours does without
    out = made(ours)
    assert torch.allclose(out, expected, atol=1e-5)
    for x in (out, expected):
        x.square().sum().backward()
    assert torch.allclose(ours.grad, again.grad, atol=1e-3)
    assert torch.allclose(made.weight.grad, theirs.weight.grad, atol=1e-3)


def test_features_may_be_joined_before_the_chunk_grows():
    torch.manual_seed(0)
    net, lengths = UNet1d(3, (16, 32, 64), 24, 5, join_first=True), []
    for stage in net.up:
        stage.register_forward_hook(lambda _, given, out: lengths.append((given[0].shape[1:], out.shape[1:])))
    assert net(torch.randn(2, 13, 3), torch.randn(2, 24)).shape == (2, 13, 3)  # padded to 16
    assert lengths == [((128, 4), (32, 4)), ((64, 8), (16, 8))]
    policy = fitted(join_first=True, condition_dim=32)
    assert policy.condition[-1].out_features == 32 and loss(policy).isfinite()
    with pytest.raises(ValueError, match="condition_dim must be an even number"):
        Config(condition_dim=33)


def test_unnormalised_conditioning_makes_the_loss_of_write_up_002():
    fixed, broken = (loss(fitted(prediction="epsilon", **values)) for values in ({}, BROKEN))
    assert fixed.item() == pytest.approx(1, abs=0.1) and broken.item() > 100


BROKEN = {"normalise": False, "zero_head": False, "condition_spread": 150.0}


@pytest.mark.parametrize("left", BROKEN)
def test_the_output_layer_or_normalisation_alone_prevents_it(left: str):
    """All faults except one: a zero head hides the problem, normalisation prevents it, and so does a condition of ordinary
    size."""
    values = {name: value for name, value in BROKEN.items() if name != left}
    assert loss(fitted(prediction="epsilon", **values)).item() < 2


def test_a_clipped_loss_is_a_tenth():
    plain, clipped = (loss(fitted(prediction="epsilon", clip_loss_above=limit)) for limit in (0.0, 0.5))
    assert clipped.item() == pytest.approx(0.1 * plain.item())


@pytest.mark.slow
@pytest.mark.parametrize(("prediction", "draws"), [("epsilon", 4), ("v", 1), ("sample", 1), ("flow", 1)])  # epsilon is hardest
def test_it_learns_what_the_state_says_and_both_modes_of_what_it_does_not(prediction: str, draws: int):
    policy = fitted(prediction=prediction, horizon=4, execute=1, denoise_steps=10, draws=draws)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    for step in range(150):
        optimizer.zero_grad()
        loss(policy, step).backward()
        optimizer.step()
    policy.eval()
    state = torch.tensor([[0.5, -0.5]]).sign().expand(400, 2)
    action, _ = policy.act({"state": state}, policy.start(400, torch.device("cpu")), Noise(1, 0, torch.arange(400)))
    assert ((action[:, 0] > 0) & (action[:, 1] < 0)).float().mean() > 0.95
    assert 0.2 < (action[:, 2] > 0).float().mean() < 0.8  # a regression would answer 0 everywhere
    assert (action[:, 2].abs() > 0.25).float().mean() > 0.8
