"""Measurements for the health checks, made with one batch on a copy of the policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policies.base import Batch, Loss, Policy
from policies.noise import Noise, Purpose, fold


class Spread(NamedTuple):
    layer: str
    deviation: float  # standard deviation of the layer's output


class FirstPass(NamedTuple):
    loss: float  # mean over the counted targets; of `cross_entropy`, whose chance is known, where the loss has other terms
    spreads: list[Spread]  # of every layer, in the order in which they run


class Probe:
    """One policy and one batch with the same random numbers in every pass, so passes differ only by deliberate changes."""

    def __init__(self, policy: Policy, batch: Batch, seed: int, num_actions: int | None = None):
        self.policy = copy.deepcopy(policy).train()
        self.batch, self.seed = batch, fold(seed, Purpose.HEALTH)
        self.num_actions = num_actions  # None: actions are not classes

    def loss(self, batch: Batch) -> Loss:
        rows = torch.arange(len(batch["action"]), device=batch["action"].device)
        with torch.random.fork_rng(devices=[rows.device] if rows.device.type == "cuda" else []):
            torch.manual_seed(self.seed)  # for PyTorch's own dropout, in a policy of somebody else's
            return self.policy(batch, Noise(self.seed, 0, rows))

    @torch.no_grad()
    def first_pass(self) -> FirstPass:
        spreads: list[Spread] = []
        with _watched(self.policy, spreads):
            loss = self.loss(self.batch)
        total, count = loss.metrics.get("cross_entropy", (loss.total, loss.count))
        return FirstPass((total / count.clamp(min=1)).item(), spreads)

    @torch.no_grad()
    def counts_padding(self) -> bool:
        """Whether the loss depends on the contents of slots that hold no label."""
        action, padding = self.batch["action"], ~self.batch["action_mask"]
        padding = padding.view(*padding.shape, *[1] * (action.dim() - padding.dim())).expand_as(action)
        if not padding.any():
            return False
        self._nudge()  # an output layer that starts at zero gives every label the same loss
        before = self.loss(self.batch).total
        if not before.isfinite():  # then passes cannot be compared
            return False
        other = action + 1 if self.num_actions is None else (action + 1) % self.num_actions
        after = self.loss({**self.batch, "action": torch.where(padding, other, action)}).total
        return not torch.equal(before, after)

    def without_gradient(self) -> list[str]:
        """Trainable parameters that get no gradient."""
        self._nudge()  # layers that start at zero block all gradients before them in the first step, which is intended
        self.policy.zero_grad(set_to_none=True)
        self.loss(self.batch).total.backward()
        return [
            name
            for name, parameter in self.policy.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        ]

    @torch.no_grad()
    def _nudge(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        for parameter in self.policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.02)


def not_finite(batch: Batch) -> list[str]:
    """The entries of a batch with NaN or infinity, and how much of each. In `floor`, NaN means unknown and is fine."""
    found = []
    for name, value in batch.items():
        if isinstance(value, dict):
            found += [f"{name}.{words}" for words in not_finite(value)]
        elif name != "floor" and value.is_floating_point() and not (finite := value.isfinite()).all():
            found.append(f"{name} ({1 - finite.float().mean().item():.1%} of its values)")
    return found


@contextmanager
def _watched(policy: Policy, spreads: list[Spread]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output  # a GRU returns (output, state)
            if isinstance(first, Tensor) and first.is_floating_point():
                deviation = first.detach().float().std().item() if first.numel() > 1 else 0.0
                spreads.append(Spread(name, deviation if math.isfinite(deviation) else math.inf))

        return hook

    leaves = [(name, module) for name, module in policy.named_modules() if name and not any(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
