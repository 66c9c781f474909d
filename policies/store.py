"""A policy on disc: `policy.json` (what it is and which spaces it knows) and `policy.safetensors` (its weights)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor

from conf.build import build, plain
from conf.check import config_class, locate
from conf.checkpoint import damage, find
from conf.errors import BadRequest
from envs.base import Spaces
from policies.base import Policy


def save(folder: Path, target: str, config: Any, spaces: Spaces, weights: dict[str, Tensor]) -> None:
    """`target` is the policy's class as YAML names it."""
    record = {"target": target, "config": plain(config), "spaces": spaces.to_json()}
    (folder / "policy.json").write_text(json.dumps(record, indent=2))
    write_tensors(folder / "policy.safetensors", weights)


def load(
    path: str | Path, device: str | torch.device = "cpu", config: Any = None, trusted_packages: Sequence[str] = ()
) -> Policy:
    """A policy ready to `act`. `path` is a run folder (its best checkpoint is taken) or one checkpoint.

    `config` replaces the saved one: the way to act with other `execute` or `denoise_steps` than in training. A policy from
    somebody else's package loads only if that package is named in `trusted_packages`.
    """
    folder = find(str(path), "path")
    try:
        record = json.loads((folder / "policy.json").read_text())
        target, spaces, values = record["target"], Spaces.from_json(record["spaces"]), record["config"]
    except (OSError, ValueError, KeyError) as error:
        raise BadRequest(f"the checkpoint {folder} is damaged: {error}") from error
    cls = locate(target, "policy.json", "policies.base.Policy", trusted_packages)
    policy: Policy = cls(config or build(config_class(target.rpartition(".")[0], "policy"), values), spaces)
    load_weights(policy, folder)
    return policy.to(device).eval()


def load_weights(policy: Policy, folder: Path) -> None:
    """The acting weights of a checkpoint, all of them and nothing else."""
    if fault := damage(folder):
        raise BadRequest(f"the checkpoint {folder} is damaged ({fault}); choose another one of its run")
    weights = load_file(folder / "policy.safetensors")
    own = policy.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        raise BadRequest(
            f"the weights in {folder} do not fit this {type(policy).__name__}: {wrong[0]} is another. Leave out what changes the "
            f"network, so that it is as in {folder / 'config.yaml'}"
        )
    policy.load_state_dict(weights)


def load_parts(policy: Policy, folder: Path) -> list[str]:
    """The acting weights of a checkpoint of another policy, as far as both have them; returns which parts those are."""
    if fault := damage(folder):
        raise BadRequest(f"the checkpoint {folder} is damaged ({fault}); choose another one of its run")
    weights, own = load_file(folder / "policy.safetensors"), policy.state_dict()
    if wrong := [name for name in own if name in weights and own[name].shape != weights[name].shape]:
        raise BadRequest(
            f"the weights in {folder} do not fit this {type(policy).__name__}: {wrong[0]} is of another size. Leave out what "
            f"changes the parts that both have, so that they are as in {folder / 'config.yaml'}"
        )
    shared = {name: weight for name, weight in weights.items() if name in own}
    policy.load_state_dict(shared, strict=False)
    taken = {name.split(".")[0] for name in shared}
    return [name for name, _ in policy.named_children() if name in taken]


def target_of(folder: Path) -> str:
    """Which policy a checkpoint holds, as YAML names it."""
    return str(json.loads((folder / "policy.json").read_text())["target"])


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file. Copies, because it refuses tensors that share memory, as tied weights do."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(serialized(copies))  # not its own save_file, which hides a full disc behind an error of its own
