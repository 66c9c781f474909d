"""One optimiser step: forward, backward, clipping, optimiser and averaging. The loss lives in the policy; nothing here knows
which policy it drives.

All that a step does is a function of (seed, step), of its batch, and of tensors that a checkpoint holds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from policies.base import Batch, Loss, Policy
from policies.noise import Noise, Purpose, fold
from trainers.loop.batches import rows_of
from trainers.loop.config import Config
from trainers.loop.optim import Average, Schedule, make_optimizer


class Taken(NamedTuple):
    metrics: dict[str, tuple[float, float]]  # name -> (sum, count)
    not_finite: str | None  # "loss" or "gradient": the step was left out


class Step:
    """The weights that are trained, and what changes them."""

    def __init__(self, config: Config, policy: Policy, max_steps: int, seed: int, device: torch.device):
        self.config, self.policy, self.seed, self.device = config, policy, seed, device
        self.model = torch.compile(policy) if config.compile else policy
        self.parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(config.optimizer, policy)
        self.schedule = Schedule(config.schedule, max_steps)
        self.average = Average(policy, config.ema) if config.ema else None
        # Asked once: torch.manual_seed in every step would cost, and without a GPU it keeps a stack trace of each call.
        self.generator = default_generator(device)

    @property
    def acting(self) -> Policy:
        """The policy that is validated and kept: the average where there is one."""
        return self.average.policy if self.average else self.policy

    def take(self, batch: Batch, step: int) -> Taken:
        """One optimiser step, or none where the loss or the gradient is not finite."""
        self.generator.manual_seed(fold(self.seed, Purpose.DROPOUT, step))  # dropout draws from PyTorch's own generator
        rate = self.config.optimizer.lr * self.schedule.factor(step)
        self.optimizer.zero_grad(set_to_none=True)
        metrics, length = self.clip(self.backward(batch, step))
        if not math.isfinite(metrics["loss"][0]):
            return Taken({}, "loss")
        if not math.isfinite(length):
            return Taken({}, "gradient")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average:
            self.average.update()
        return Taken(metrics | {"grad_norm": (length, 1), "lr": (rate, 1)}, None)

    def backward(self, batch: Batch, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Gradients of the mean loss (of its sum, where the batch comes in parts), and the sums and counts of all metrics."""
        rows = torch.arange(self.config.batch_size, device=self.device)
        if self.config.accumulate == 1:  # its count is known before its gradient: no pass over the gradients is needed to scale
            loss = self.loss(batch, rows, step)
            (loss.total / loss.count.clamp(min=1)).backward()
            return loss.metrics | {"loss": (loss.total.detach(), loss.count)}
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        size = self.config.batch_size // self.config.accumulate
        for start in range(0, self.config.batch_size, size):
            part = slice(start, start + size)
            loss = self.loss(rows_of(batch, part), rows[part], step)
            loss.total.backward()
            for name, (value, count) in (loss.metrics | {"loss": (loss.total.detach(), loss.count)}).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
        return sums

    def loss(self, batch: Batch, rows: Tensor, step: int) -> Loss:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(batch, Noise(fold(self.seed, Purpose.TRAINING), step, rows))

    def clip(self, sums: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, tuple[float, float]], float]:
        """Brings the gradients to their final length; returns the metrics as numbers, and the length before clipping."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.config.accumulate > 1:
            torch._foreach_div_(gradients, sums["loss"][1].clamp(min=1))
        tensors = [x.float() for pair in sums.values() for x in pair]
        numbers = torch.stack([*tensors, *torch._foreach_norm(gradients)]).tolist()  # the step's one wait for the device
        values = {name: (numbers[2 * i], numbers[2 * i + 1]) for i, name in enumerate(sums)}
        length = math.hypot(*numbers[len(tensors) :])  # of the whole gradient
        if 0 < self.config.grad_clip < length:
            torch._foreach_mul_(gradients, self.config.grad_clip / length)
        return values, length


def default_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[device.index or 0]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
