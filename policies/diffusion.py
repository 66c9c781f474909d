"""Diffusion of continuous vectors: what a network predicts, and how samples are made of its predictions.

There are two ways from data to noise. Variance-preserving (DDPM, Ho et al. 2020) with the cosine schedule turns by an angle,
`x = cos(angle) * data + sin(angle) * noise`, and the network predicts the noise (epsilon), the data (sample) or
`v = cos(angle) * noise - sin(angle) * data` (Salimans & Ho 2022). Flow matching (Lipman et al. 2023) goes straight,
`x = (1 - time) * data + time * noise`, and the network predicts the velocity `noise - data`.

Time runs from 0 (data) to 1 (noise). It is continuous, so a sampler may take any number of steps: DDIM (Song et al. 2021) for the
first, Euler for the second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from policies.noise import Noise

PREDICTIONS = ("epsilon", "v", "sample", "flow")
LAST_ANGLE = 0.997 * math.pi / 2  # some signal remains, as in DDPM; otherwise epsilon could not be converted back to data


def angle(time: Tensor) -> Tensor:
    return LAST_ANGLE * time


def noised(prediction: str, data: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The network's input and target; all [B, H, A], `time` [B, 1, 1]."""
    if prediction == "flow":
        return (1 - time) * data + time * noise, noise - data
    cosine, sine = angle(time).cos(), angle(time).sin()
    asked = {"epsilon": noise, "sample": data, "v": cosine * noise - sine * data}[prediction]
    return cosine * data + sine * noise, asked


def mean_square_of_target(prediction: str, data_square: float) -> float:
    """The target's mean square, averaged over times: the loss of a network that always predicts 0."""
    if prediction == "flow":
        return 1 + data_square
    if prediction == "v":
        sine_square = 0.5 - math.sin(2 * LAST_ANGLE) / (4 * LAST_ANGLE)  # its mean over times
        return (1 - sine_square) + sine_square * data_square
    return {"epsilon": 1.0, "sample": data_square}[prediction]


def sampled(
    prediction: str,
    network: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    steps: int,
    limit: Tensor,
    noise: Noise | None = None,
) -> Iterator[Tensor]:
    """The estimate of the data [B, H, A] after each of `steps` steps, from the noise `start`; the last one is the sample.

    `network(x, time [B])` predicts. Estimates are clamped to +-`limit` [A], because the first ones can lie far outside the data.
    With `noise` each step draws new noise (DDPM's ancestral sampling); without it, the sample is a function of `start` (DDIM).
    """
    x = start
    times = torch.linspace(1, 0, steps + 1).tolist()
    for time, then in itertools.pairwise(times):
        predicted = network(x, x.new_full((len(x),), time))
        if prediction == "flow":
            data = (x - time * predicted).clamp(-limit, limit)
            x = data if then == 0 else x + (then - time) * predicted
            yield data
            continue
        cosine, sine = math.cos(LAST_ANGLE * time), math.sin(LAST_ANGLE * time)
        if prediction == "epsilon":
            data = (x - sine * predicted) / cosine
        else:
            data = predicted if prediction == "sample" else cosine * x - sine * predicted
        data = data.clamp(-limit, limit)
        yield data
        epsilon = (x - cosine * data) / sine
        cosine_then, sine_then = math.cos(LAST_ANGLE * then), math.sin(LAST_ANGLE * then)
        if noise is not None and then > 0:
            # The posterior's standard deviation; the rest of the noise keeps its direction.
            fresh = sine_then / sine * math.sqrt(max(0.0, 1 - (cosine / cosine_then) ** 2))
            kept = math.sqrt(max(0.0, sine_then**2 - fresh**2))
            x = cosine_then * data + kept * epsilon + fresh * noise.normal(*x.shape[1:])
        else:
            x = cosine_then * data + sine_then * epsilon
