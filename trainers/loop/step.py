"""One optimiser step: forward, backward, clipping, optimiser and averaging. The policy computes the loss, so this works for
every policy.

A step depends only on (seed, step), its batch, and tensors that a checkpoint holds. It never waits for the device: metrics stay
there and are fetched many steps at a time, and the device decides whether a step was finite. The host learns of that later, so
once `bad_steps` in a row were not finite, the device lets no further step change anything.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from conf.errors import BadRequest
from conf.ranks import here
from policies.base import Batch, Loss, Policy
from policies.dropout import dropouts
from policies.noise import Noise, Purpose, finalised, fold, shared_uniform
from policies.recompute import recompute_all
from trainers.loop.batches import rows_of, to_device
from trainers.loop.capture import Captured, obstacle
from trainers.loop.config import Config
from trainers.loop.optim import Average, Schedule, make_optimizer, precise
from trainers.loop.processes import sum_over_all
from trainers.loop.source import Source

MOST_PENDING = 1000  # steps whose metrics are kept on the device


class Taken(NamedTuple):
    metrics: dict[str, tuple[float, float]]  # name -> (sum, count)
    not_finite: str | None  # "loss" or "gradient" if the step was skipped because of it


class Step:
    """The trained weights, and everything that changes them."""

    def __init__(self, config: Config, policy: Policy, source: Source, max_steps: int, seed: int, device: torch.device):
        self.config, self.policy, self.source, self.device = config, policy, source, device
        if config.recompute and not recompute_all(policy):
            raise BadRequest(f"trainer.recompute=true, but {type(policy).__name__} has no blocks to recompute; leave it out")
        self.model = torch.compile(policy) if config.compile else policy
        self.parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(config.optimizer, [*policy.parameters()])
        self.schedule = Schedule(config.schedule, max_steps, config.freeze_after)
        self.average = Average(policy, config.ema) if config.ema else None
        self.seed, self.noise_seed = seed, fold(seed, Purpose.TRAINING)
        self.in_parts = config.accumulate > 1 or not here().alone  # the loss is divided by its count after the backward pass
        # Fetched once: torch.manual_seed in every step would be slow, and without a GPU it keeps a stack trace of each call.
        self.generator = default_generator(device)
        self.captured = None if obstacle(config, device) else Captured(self.update, "the training step", config.capture == "on")
        # On the device, since only the device knows whether a step was finite:
        self.number = torch.zeros((), dtype=torch.int64, device=device)  # the step's number
        self.bad_in_row = torch.zeros((), dtype=torch.int64, device=device)  # number of last steps that were not finite
        self.dropout_seed, self.dropout_key = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self.dropouts = dropouts(policy)
        for module in self.dropouts.values():
            module.key = self.dropout_key
        # Not fetched by the host yet: a row of numbers for each step, and the learning rates.
        self.names: list[str] = []  # of the metrics, which have two numbers each in a row
        self.rows: Tensor | None = None  # [most, 2 * metrics + 1 + parameters]
        self.rates: list[float] = []

    @property
    def acting(self) -> Policy:
        """The policy that is validated and saved: the average, if there is one."""
        return self.average.policy if self.average else self.policy

    @property
    def most_pending(self) -> int:
        return min(self.config.log_every, MOST_PENDING)

    def take(self, inputs: Batch, step: int) -> None:
        """Take one optimiser step. It changes nothing if the loss or the gradient is not finite."""
        seed = fold(self.seed, Purpose.DROPOUT, step)
        self.generator.manual_seed(seed)  # for PyTorch's own dropout, in a policy of somebody else's
        self.dropout_seed.fill_(seed)
        rate = self.config.optimizer.lr * self.schedule.factor(step)
        self.optimizer.param_groups[0]["lr"].fill_(rate)
        self.number.fill_(step)
        if self.captured:
            row = self.captured.run(self.policy.variant(shared_uniform(self.noise_seed, step)), inputs, step)
        else:
            row = self.update(self.place(inputs), step)
        if self.rows is None:
            self.rows = torch.empty(self.most_pending, len(row), device=self.device)
        self.rows[len(self.rates)].copy_(row)
        self.rates.append(rate)

    def fetch(self) -> list[Taken]:
        """The results of the steps since the last fetch. Waits for the device."""
        if self.rows is None or not self.rates:
            return []
        rows, self_rates = self.rows[: len(self.rates)].tolist(), self.rates
        self.rates = []
        return [self._read(row, rate) for row, rate in zip(rows, self_rates, strict=True)]

    def _read(self, row: list[float], rate: float) -> Taken:
        values = {name: (row[2 * i], row[2 * i + 1]) for i, name in enumerate(self.names)}
        finite, *norms = row[2 * len(self.names) :]
        if not finite:
            return Taken({}, "gradient" if math.isfinite(values["loss"][0]) else "loss")
        return Taken(values | {"grad_norm": (math.hypot(*norms), 1), "lr": (rate, 1)}, None)

    # --- on the device -----------------------------------------------------------------------------------------------

    def place(self, inputs: Batch) -> Batch:
        return to_device(inputs, self.device)

    def update(self, inputs: Batch, step: int) -> Tensor:
        """The whole step, from inputs on the device; returns its row of numbers. `step` equals `self.number`. It decides only
        shapes (`policy.variant`), so one captured graph serves all steps of a variant."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.backward(self.source.cut(inputs), step)
        row, finite = self.clip(sums)
        # Once `bad_steps` in a row were not finite, the count stays and no step takes effect.
        goes_on = self.bad_in_row < self.config.bad_steps
        counts = finite & goes_on
        self.bad_in_row.copy_(torch.where(goes_on, torch.where(finite, 0, self.bad_in_row + 1), self.bad_in_row))
        self.optimizer.found_inf.copy_(~counts)  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.average:
            self.average.update(counts.to(precise(self.device)))
        return row

    def backward(self, batch: Batch, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute gradients of the mean loss (of its sum, if the batch is split), and the sums and counts of all metrics."""
        mine, local = here().share(self.config.batch_size), self.config.batch_size // here().count
        rows = torch.arange(mine.start, mine.stop, device=self.device)
        if not self.in_parts:  # the count is known before the backward pass, so gradients need no scaling afterwards
            loss = self.loss(batch, rows, step)
            (loss.total / loss.count.clamp(min=1)).backward()
            return loss.metrics | {"loss": (loss.total.detach(), loss.count)}
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        size = local // self.config.accumulate
        for start in range(0, local, size):
            part = slice(start, start + size)
            loss = self.loss(rows_of(batch, part), rows[part], step)
            loss.total.backward()
            for name, (value, count) in (loss.metrics | {"loss": (loss.total.detach(), loss.count)}).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
        return sums if here().alone else self.reduced(sums)

    def reduced(self, sums: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
        """Sums over all processes of the gradients (in place) and of the metrics."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        numbers = torch.stack([x.float() for pair in sums.values() for x in pair])
        sum_over_all([*gradients, numbers])
        return {name: (numbers[2 * index], numbers[2 * index + 1]) for index, name in enumerate(sums)}

    def loss(self, batch: Batch, rows: Tensor, step: int) -> Loss:
        if self.dropouts:
            self.dropout_key.copy_(finalised(self.dropout_seed + rows[0]))  # other draws for each part of a batch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(batch, Noise(self.noise_seed, self.number, rows, step))

    def clip(self, sums: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Scale and clip the gradients. Returns the step's row of numbers (metrics, whether it is finite, and each parameter's
        gradient norm before clipping), and whether it is finite [] bool."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.in_parts:
            torch._foreach_div_(gradients, sums["loss"][1].clamp(min=1))
        found = torch._foreach_norm(gradients)
        length = torch.stack(found).to(precise(self.device)).square().sum().sqrt()  # norm of the whole gradient
        finite = sums["loss"][0].isfinite() & length.isfinite()
        if self.config.grad_clip:
            torch._foreach_mul_(gradients, (self.config.grad_clip / length).clamp(max=1).float())
        self.names = list(sums)
        if len(found) < len(self.parameters):  # so that rows have the same length in every variant
            found = (*found, *[torch.zeros_like(found[0])] * (len(self.parameters) - len(found)))
        return torch.stack([*(x.float() for pair in sums.values() for x in pair), finite.float(), *found]), finite


def default_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[device.index or 0]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
