"""Save the state of a training to a checkpoint, and load it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from conf.errors import BadRequest
from policies.base import Policy
from trainers.loop import checkpoint
from trainers.loop.state import State
from trainers.loop.step import Step
from trainers.record.records import say


def save(root: Path, state: State, step: Step, save_policy: Callable[[Path, Policy], None], keep: int) -> None:
    """`save_policy` writes the policy that acts and its configuration to the checkpoint's folder."""
    tensors = {f"weight/{name}": value for name, value in step.policy.state_dict().items()}
    names = [name for name, _ in step.policy.named_parameters()]
    for index, moments in step.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{names[index]}/{key}": value for key, value in moments.items()}
    average = int(step.average.count) if step.average else 0
    numbers = {**asdict(state), "schedule": step.schedule.state, "average_count": average}
    checkpoint.save(root, state.step, lambda folder: save_policy(folder, step.acting), tensors, numbers, keep)


def resume(root: Path, data: str, step: Step) -> State | None:
    """Load the tensors of the newest intact checkpoint into `step` and return its state; None if there is no checkpoint.
    `data` is the fingerprint of the data to train on."""
    found = checkpoint.newest(root, say)
    if found is None:
        return None
    numbers = dict(found.state)
    if numbers["data"] != data:
        raise BadRequest(
            "the data differ from those that this run was trained on so far (another version of the environment?); "
            "start again with another hydra.run.dir, and init_from=... to keep the weights"
        )
    step.schedule.state, count = numbers.pop("schedule"), numbers.pop("average_count")
    if step.average:
        step.average.count.fill_(count)
        step.average.policy.load_state_dict(checkpoint.acting_weights(found.folder))
    torch.set_num_threads(numbers["threads"])
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in found.tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "weight":
            weights[rest] = value
        else:
            parameter, _, key = rest.rpartition("/")
            moments.setdefault(parameter, {})[key] = value
    step.policy.load_state_dict(weights)
    indexed = {i: moments[name] for i, (name, _) in enumerate(step.policy.named_parameters()) if name in moments}
    step.optimizer.load_state_dict({"state": indexed, "param_groups": step.optimizer.state_dict()["param_groups"]})
    step.bad_in_row.fill_(numbers["bad_in_row"])
    return State(**numbers)
