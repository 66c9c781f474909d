"""Optimiser, learning-rate schedule and weight averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from policies.base import Policy


@dataclass
class OptimizerConfig:
    """`trainer.optimizer.*`"""

    name: str = "adamw"  # adamw | adam (weight decay as an L2 term in the gradient)
    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "adam"):
            raise ValueError(f"optimizer.name must be adamw or adam, got {self.name}")
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr must be above 0, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay must be at least 0, got {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be two numbers in [0, 1), got {self.betas}")


@dataclass
class ScheduleConfig:
    """`trainer.schedule.*`"""

    name: str = "cosine"  # cosine | constant | plateau
    warmup: int = 50  # steps of linear warm-up from 0, under any schedule
    final: float = 0.02  # cosine: share of the learning rate left at the last step
    patience: int = 5  # plateau: evaluations without improvement before the rate is cut
    threshold: float = 0.0  # plateau: an improvement must be more than this share of the best loss
    factor: float = 0.5  # plateau: the rate is multiplied by this

    def __post_init__(self) -> None:
        if self.name not in ("cosine", "constant", "plateau"):
            raise ValueError(f"schedule.name must be cosine, constant or plateau, got {self.name}")
        if self.warmup < 0:
            raise ValueError(f"schedule.warmup must be at least 0, got {self.warmup}")
        if not 0 <= self.final <= 1:
            raise ValueError(f"schedule.final must be between 0 and 1, got {self.final}")
        if self.patience < 1:
            raise ValueError(f"schedule.patience must be at least 1, got {self.patience}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"schedule.threshold must be at least 0 and below 1, got {self.threshold}")
        if not 0 < self.factor < 1:
            raise ValueError(f"schedule.factor must be between 0 and 1, got {self.factor}")


def make_optimizer(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser. Its learning rate is a tensor on the parameters' device; with 1 in `found_inf`, a step changes nothing."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name]
    betas, device = (config.betas[0], config.betas[1]), parameters[0].device
    # A GPU's kernel needs a float32; on a CPU the rate keeps the full precision of a Python number.
    rate = torch.tensor(config.lr, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    optimizer = kind(
        parameters,
        lr=rate,
        weight_decay=config.weight_decay,
        betas=betas,
        fused=True,
        capturable=device.type == "cuda",
    )
    optimizer.found_inf = torch.zeros((), device=device)
    optimizer._warned_capturable_if_run_uncaptured = True  # it may run captured or not
    return optimizer


class Schedule:
    """A factor on the learning rate. Cosine and constant depend on the step alone; only plateau has a state."""

    def __init__(self, config: ScheduleConfig, max_steps: int, restart: int = 0):
        """`restart`: the step at which warm-up and cosine begin anew; 0: never."""
        self.config, self.max_steps = config, max_steps
        self.restart = restart if restart < max_steps else 0
        self.state: dict[str, Any] = {"cut": 1.0, "best": None, "waited": 0}

    def factor(self, step: int) -> float:
        """For step `step`, counted from 0."""
        warmup, last = self.config.warmup, self.restart or self.max_steps
        if self.restart and step >= self.restart:
            step, last = step - self.restart, self.max_steps - self.restart
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.config.name == "cosine":
            progress = (step - warmup) / max(1, last - warmup)
            return self.config.final + (1 - self.config.final) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.state["cut"]

    def observe(self, loss: float) -> None:
        """Tell the plateau schedule the loss of a validation."""
        if self.config.name != "plateau":
            return
        best = self.state["best"]
        if math.isfinite(loss) and (best is None or loss < best - self.config.threshold * abs(best)):
            self.state.update(best=loss, waited=0)
        else:
            self.state["waited"] += 1
            if self.state["waited"] > self.config.patience:
                self.state.update(cut=self.state["cut"] * self.config.factor, waited=0)


class Average:
    """An exponential moving average of a policy's weights. It is a policy itself, and the one that acts.

    The decay grows with the number of updates, so the first weights are soon forgotten. The number is a tensor, because only the
    device knows whether a step was finite.
    """

    def __init__(self, policy: Policy, decay: float):
        self.decay = decay
        self.policy = copy.deepcopy(policy).requires_grad_(False).eval()
        own, source = self.policy.state_dict(), policy.state_dict()
        floating = [name for name, weight in source.items() if weight.is_floating_point()]
        self._own, self._source = [own[name] for name in floating], [source[name] for name in floating]
        device = self._own[0].device
        self.count = torch.zeros((), dtype=precise(device), device=device)

    @torch.no_grad()
    def update(self, counts: Tensor) -> None:
        """`counts` []: 1, or 0 after a skipped step, which changes nothing."""
        self.count += counts
        decay = ((1 + self.count) / (10 + self.count)).clamp(max=self.decay)
        weight = ((1 - decay) * counts).float()
        torch._foreach_lerp_(self._own, self._source, [weight] * len(self._own))


def precise(device: torch.device) -> torch.dtype:
    """The most precise float type of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
