"""Sampling from a Gaussian, whose best denoiser is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from policies.diffusion import LAST_ANGLE, PREDICTIONS, mean_square_of_target, noised, sampled
from policies.noise import Noise

MEAN, DEVIATION = 0.5, 0.3
ROWS = 4000


def best_network(prediction: str):
    """The expected value of the prediction target given x, for data ~ N(MEAN, DEVIATION^2)."""

    def network(x: Tensor, time: Tensor) -> Tensor:
        t = time[:, None, None]
        keep, add = (1 - t, t) if prediction == "flow" else ((LAST_ANGLE * t).cos(), (LAST_ANGLE * t).sin())
        data = MEAN + DEVIATION**2 * keep / (keep**2 * DEVIATION**2 + add**2) * (x - keep * MEAN)
        noise = (x - keep * data) / add
        return {"epsilon": noise, "sample": data, "v": keep * noise - add * data, "flow": noise - data}[prediction]

    return network


def draw(prediction: str, steps: int, ancestral: bool = False) -> Tensor:
    noise = Noise(0, 0, torch.arange(ROWS))
    start, limit = noise.normal(2, 3), torch.full((3,), 5.0)
    *_, data = sampled(prediction, best_network(prediction), start, steps, limit, noise if ancestral else None)
    return data


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_many_steps_draw_from_the_data(prediction: str):
    data = draw(prediction, 100)
    assert data.mean().item() == pytest.approx(MEAN, abs=0.01)  # 24,000 numbers: a standard error of .002
    assert data.std().item() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("prediction", [name for name in PREDICTIONS if name != "flow"])
def test_ancestral_sampling_draws_from_the_data_too(prediction: str):
    data = draw(prediction, 400, ancestral=True)  # its fresh noise is a little too small, the less so the more steps there are
    assert data.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert data.std().item() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_step_gives_the_mean(prediction: str):
    data = draw(prediction, 1)
    assert data.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert data.std().item() < 0.1 * DEVIATION


def test_deterministic_predictions_agree_step_by_step():
    """Epsilon, v and sample are equivalent predictions, so their samplers take the same path."""
    epsilon, v, sample = (draw(prediction, 7) for prediction in ("epsilon", "v", "sample"))
    assert torch.allclose(epsilon, sample, atol=1e-4) and torch.allclose(v, sample, atol=1e-4)


def test_estimates_stay_within_the_limit():
    start = torch.full((2, 1, 1), 30.0)
    estimates = [*sampled("epsilon", lambda x, time: torch.zeros_like(x), start, 3, torch.tensor([1.0]))]
    assert len(estimates) == 3 and all((estimate.abs() <= 1).all() for estimate in estimates)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_chance_is_the_mean_square_of_what_is_asked(prediction: str):
    noise = Noise(1, 0, torch.arange(50_000))
    data, drawn, time = 0.7 * noise.normal(1, 1), noise.normal(1, 1), noise.uniform(1, 1)
    _, asked = noised(prediction, data, drawn, time)
    assert asked.square().mean().item() == pytest.approx(mean_square_of_target(prediction, 0.49), rel=0.03)


def test_the_noisiest_data_still_hold_some_data():
    assert 0 < math.cos(LAST_ANGLE) < 0.05
