"""A policy on disc: `policy.json` (class, config and spaces) and `policy.safetensors` (weights)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor

from conf.build import build, plain
from conf.check import config_class
from conf.checkpoint import damaged, find, record, refuse_damaged
from conf.fit import refuse_misfit
from conf.targets import locate
from envs.base import Spaces
from policies.base import Policy
from policies.encoders.frozen import BACKBONE


def save(folder: Path, target: str, config: Any, spaces: Spaces, weights: dict[str, Tensor]) -> None:
    """`target` is the policy's class as YAML names it."""
    held = {"target": target, "config": plain(config), "spaces": spaces.to_json()}
    (folder / "policy.json").write_text(json.dumps(held, indent=2))
    write_tensors(folder / "policy.safetensors", weights)


def load(
    path: str | Path, device: str | torch.device = "cpu", config: Any = None, trusted_packages: Sequence[str] = ()
) -> Policy:
    """A policy ready to `act`. `path` is a run folder (its best checkpoint is loaded) or a checkpoint.

    `config` replaces the saved one, for example to act with another `execute` or `denoise_steps` than in training. A policy
    of an external package loads only if `trusted_packages` names that package.
    """
    folder = find(str(path), "path")
    refuse_damaged(folder)
    held = record(folder)
    target, values = held["target"], held["config"]
    try:
        spaces = Spaces.from_json(held["spaces"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise damaged(folder, f"policy.json: {error}") from error
    cls = locate(target, "policy.json", "policies.base.Policy", trusted_packages)
    config = config or build(config_class(target.rpartition(".")[0], "policy"), values)
    refuse_misfit(cls, folder, config, spaces)  # before anything is made: policy.json may ask for any size
    policy: Policy = cls(config, spaces)
    load_weights(policy, folder, config, spaces)
    return policy.to(device).eval()


def load_weights(policy: Policy, folder: Path, config: Any, spaces: Spaces) -> None:
    """Load a checkpoint's acting weights, which must match exactly. `policy` was made of `config` and `spaces`."""
    refuse_damaged(folder)
    refuse_misfit(type(policy), folder, config, spaces)
    policy.load_state_dict(_weights_for(policy, folder))


def load_parts(policy: Policy, folder: Path, config: Any, spaces: Spaces) -> list[str]:
    """Load the acting weights that this policy shares with a checkpoint of another one; returns the names of these parts."""
    refuse_damaged(folder)
    refuse_misfit(type(policy), folder, config, spaces)
    shared = _weights_for(policy, folder)
    policy.load_state_dict(shared, strict=False)
    taken = {name.split(".")[0] for name in shared}
    return [name for name, _ in policy.named_children() if name in taken]


def load_backbones(policy: Policy, folder: Path) -> None:
    """Load the image backbones of a checkpoint of any policy that has the same ones."""
    refuse_damaged(folder)
    policy.load_state_dict({name: x for name, x in _weights_for(policy, folder).items() if BACKBONE in name}, strict=False)


def _weights_for(policy: Policy, folder: Path) -> dict[str, Tensor]:
    """The stored weights that `policy` has too, after a check of their types and values."""
    own, shared = policy.state_dict(), {}
    for name, weight in read_tensors(folder / "policy.safetensors").items():
        if name not in own:
            continue
        if weight.dtype != own[name].dtype:
            raise damaged(folder, f"{name} holds {weight.dtype} where {own[name].dtype} belongs")
        if weight.is_floating_point() and weight.isnan().any():
            raise damaged(folder, f"{name} holds values that are no numbers")
        shared[name] = weight
    return shared


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; BadRequest if it is none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise damaged(path.parent, f"{path.name}: {error}") from error


def target_of(folder: Path) -> str:
    """Which policy a checkpoint holds, as YAML names it."""
    return str(record(folder)["target"])


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file. Copies, because it refuses tensors that share memory, as tied weights do."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(serialized(copies))  # not save_file, which reports a full disc as an error of its own
