"""Is this run worth its time? Checks before the first step and during training; each finding is a sentence that names the
likely cause and the override to try.

The project grew out of post-mortems of failed trainings; every check here would have ended one of them in its first minute.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn

from envs.data.store import Dataset
from policies.base import Batch, Policy
from policies.noise import Noise, Purpose, fold
from trainers.optim import ScheduleConfig

LARGEST_LAYER = 0.5  # share of all parameters above which one layer is worth a sentence
SMALL_MODEL = 100_000  # parameters below which nobody minds
OUTPUT_SPREAD = 3.0  # standard deviation of untrained outputs: above it a policy is sure of nonsense
OFF_CHANCE = 0.1  # relative distance of the first loss from chance
STILL_AT_CHANCE = 0.98


@dataclass
class Report:
    facts: dict[str, Any]
    warnings: list[str]


def parameter_table(policy: nn.Module) -> Table:
    total = sum(parameter.numel() for parameter in policy.parameters())
    table = Table(title=f"{type(policy).__name__}: {total:,} parameters", title_justify="left")
    for name, side in (("module", "left"), ("parameters", "right"), ("share", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    own = sum(parameter.numel() for parameter in policy.parameters(recurse=False))
    rows = [(name, sum(p.numel() for p in child.parameters())) for name, child in policy.named_children()]
    for name, count in [*rows, ("(its own)", own)]:
        if count:
            table.add_row(name, f"{count:,}", f"{count / total:.1%}")
    return table


def before_training(policy: Policy, batch: Batch, dataset: Dataset, seed: int) -> Report:
    """On one batch, without changing the policy."""
    noise = Noise(fold(seed, Purpose.HEALTH), 0, torch.arange(len(batch["action"]), device=batch["action"].device))
    trial = copy.deepcopy(policy).train()
    layer, spread, loss = _first_outputs(trial, batch, noise)
    chance = policy.chance_loss(batch)
    total = sum(parameter.numel() for parameter in policy.parameters())
    facts = {
        "parameters": total,
        "first_loss": loss,
        "chance_loss": chance,
        "output_layer": layer,
        "output_spread": spread,
        "labels": dataset.meta["action_entropy"],
    }
    warnings = []
    largest, weight = max(policy.named_parameters(), key=lambda pair: pair[1].numel())
    if total > SMALL_MODEL and weight.numel() > LARGEST_LAYER * total:
        shape = "x".join(map(str, weight.shape))
        warnings.append(
            f"{largest} ({shape}) holds {weight.numel() / total:.0%} of all parameters: most often a flattened feature map in "
            "front of a linear layer; try encoder=mlp or a smaller width"
        )
    if spread > OUTPUT_SPREAD:
        warnings.append(
            f"untrained outputs ({layer}) have a standard deviation of {spread:.1f}, where about 1 is healthy: inputs or "
            "conditioning are not normalised, or the output layer does not start near zero"
        )
    if not math.isfinite(loss):
        warnings.append("the first loss is not finite: look for a division by an empty mask or unnormalised inputs")
    elif abs(loss - chance) > OFF_CHANCE * chance:
        warnings.append(
            f"the first loss is {loss:.3f}, a policy that knows nothing has {chance:.3f}: an output layer that does not start "
            "near zero, or a loss that counts padding"
        )
    if silent := _without_gradient(trial, batch, noise, seed):
        warnings.append(
            f"no gradient reaches {', '.join(silent)}: these parameters are unused with this configuration, or cut off by a "
            "detach or a mask"
        )
    return Report(facts, warnings)


def _first_outputs(policy: Policy, batch: Batch, noise: Noise) -> tuple[str, float, float]:
    """The last layer to run, the spread of what it puts out, and the mean loss."""
    last: dict[str, Any] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.is_floating_point():
                last.update(name=name, spread=output.detach().float().std().item())

        return hook

    leaves = [(name, module) for name, module in policy.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    with torch.no_grad():
        loss = policy(batch, copy.copy(noise))
    for handle in handles:
        handle.remove()
    return last["name"], last["spread"], (loss.total / loss.count.clamp(min=1)).item()


def _without_gradient(policy: Policy, batch: Batch, noise: Noise, seed: int) -> list[str]:
    """Parameters that learning can never change.

    Layers that start at zero rightly hold back all gradients in front of them in the very first step, so every parameter is
    nudged off its start before asking.
    """
    generator = torch.Generator().manual_seed(fold(seed, Purpose.HEALTH))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.02)
    policy(batch, copy.copy(noise)).total.backward()
    return [
        name
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]


def idle_schedule(schedule: ScheduleConfig, max_steps: int, eval_every: int) -> str | None:
    """A learning-rate schedule that cannot act within the budget."""
    if schedule.warmup >= max_steps:
        return (
            f"the warm-up of {schedule.warmup} steps is as long as the whole run of {max_steps}, which never reaches its rate: "
            "lower trainer.schedule.warmup or raise trainer.max_steps"
        )
    validations = 1 + (max_steps - 1) // eval_every if eval_every else 1
    if schedule.name == "plateau" and validations <= schedule.patience + 1:
        return (
            f"schedule=plateau waits for more than {schedule.patience} validations without improvement, but the run has only "
            f"{validations}: it can never cut the rate. Lower trainer.schedule.patience or trainer.eval_every, or use cosine"
        )
    return None


def still_at_chance(loss: float, chance: float, floor: float | None, step: int) -> str | None:
    """During training: nothing was learned, though something could be."""
    if loss < STILL_AT_CHANCE * chance or (floor is not None and floor > STILL_AT_CHANCE * chance):
        return None
    known = "" if floor is None else f", while the data's own floor is about {floor:.3f}"
    return (
        f"after {step} steps the loss is {loss:.3f}, still at chance ({chance:.3f}){known}: the learning rate is too low or too "
        "high (trainer.optimizer.lr), or the policy does not see what the actions depend on; debug=overfit shows which"
    )
