"""Checkpoints that survive a kill at any moment: `checkpoints/step-N/`, and the links `last` and `best`.

    policy.safetensors, policy.json   what acts: the averaged weights where there is an average (policies/store.py)
    training.safetensors              the weights being trained and the optimiser's tensors
    state.json                        step, schedule, best score, and everything else that is a number
    config.yaml                       the run's resolved configuration
    manifest.json                     hashes of all the above

A folder is written under another name, reaches the disc, and is renamed: half a checkpoint is never seen. Nothing is
deleted before its successor is complete, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from conf.checkpoint import damage, write_manifest
from conf.errors import BadRequest
from policies.store import write_tensors

KEPT = 2  # newest checkpoints, beside the best


@dataclass
class Checkpoint:
    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def save(root: Path, step: int, write_policy: Callable[[Path], None], tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write `root/step-N`, move the links, and drop what is neither among the newest nor the best.

    `write_policy(folder)` puts what acts, and its configuration, into the folder. `state["best_step"]` says which is best.
    """
    root.mkdir(parents=True, exist_ok=True)
    final, folder = root / f"step-{step}", root / f".step-{step}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        write_policy(folder)
        write_tensors(folder / "training.safetensors", tensors)
        (folder / "state.json").write_text(json.dumps(state, indent=2))
        write_manifest(folder)
        for path in (*folder.iterdir(), folder):
            _sync(path)
        os.rename(folder, final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _link(root / "last", final.name)
    if state["best_step"] == step:
        _link(root / "best", final.name)
    _sync(root)
    kept = {os.readlink(link) for link in (root / "last", root / "best") if link.is_symlink()}
    for old in _by_step(root)[KEPT:]:
        if old.name not in kept:
            shutil.rmtree(old)
    return final


def newest(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole. Damaged ones are put aside, with a message, and the one before is used."""
    folders = _by_step(root)
    faults = {folder: fault for folder in folders if (fault := damage(folder))}
    whole = next((folder for folder in folders if folder not in faults), None)
    if whole is None:
        if faults:
            raise BadRequest(f"every checkpoint in {root} is damaged; start again with another hydra.run.dir")
        return None
    for folder in folders[: folders.index(whole)]:
        aside = next(path for i in range(1, 1000) if not (path := root / f"damaged-{i}-{folder.name}").exists())
        os.rename(folder, aside)
        say(f"{folder.name} is damaged ({faults[folder]}); it is put aside as {aside.name} and the one before it is used")
    state = json.loads((whole / "state.json").read_text())
    _link(root / "last", whole.name)  # a kill may have come between the folder and its links
    if (root / f"step-{state['best_step']}").exists():
        _link(root / "best", f"step-{state['best_step']}")
    return Checkpoint(whole, load_file(whole / "training.safetensors"), state)


def acting_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "policy.safetensors")


def _by_step(root: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in root.glob("step-*") if path.is_dir()), key=step_of, reverse=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
