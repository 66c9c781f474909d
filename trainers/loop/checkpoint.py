"""Checkpoints that survive a kill at any moment: `checkpoints/step-N/`, and the links `last` and `best`.

    policy.safetensors, policy.json   the policy that acts: the averaged weights, if there is an average (policies/store.py)
    training.safetensors              the weights being trained and the optimiser's tensors
        state.json                        step, schedule, best score, and all other numbers
    config.yaml                       the run's resolved configuration
    manifest.json                     hashes of all the above

A folder is written under a temporary name, synced to disc, and renamed, so nobody sees half a checkpoint. Nothing is deleted
before its successor is complete, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from conf.checkpoint import TO_GO_ON, damage, write_manifest
from conf.errors import BadRequest
from conf.files import Damaged, read_json
from policies.store import read_tensors, write_tensors

STEP = re.compile(r"step-\d{1,12}")


@dataclass
class Checkpoint:
    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def save(
    root: Path, step: int, write_policy: Callable[[Path], None], tensors: dict[str, Tensor], state: dict[str, Any], keep: int
) -> Path:
    """Write `root/step-N`, move the links, and delete checkpoints that are neither among the `keep` newest nor the best.

    `write_policy(folder)` writes the policy that acts and its configuration. `state["best_step"]` is the best step.
    """
    root.mkdir(parents=True, exist_ok=True)
    final, folder = root / f"step-{step}", root / f".step-{step}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        write_policy(folder)
        write_tensors(folder / "training.safetensors", tensors)
        (folder / "state.json").write_text(json.dumps(state, indent=2, allow_nan=False))
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
    for old in _by_step(root)[keep:] if keep else []:
        if old.name not in kept:
            shutil.rmtree(old)
    return final


def newest(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint. Newer damaged ones are renamed, with a message."""
    folders = _by_step(root)
    faults = {folder: fault for folder in folders if (fault := _fault(folder))}
    whole = next((folder for folder in folders if folder not in faults), None)
    if whole is None:
        if faults:
            raise BadRequest(f"every checkpoint in {root} is damaged; start again with another hydra.run.dir")
        return None
    for folder in folders[: folders.index(whole)]:
        aside = _put_aside(folder)
        say(f"{folder.name} is damaged ({faults[folder]}); it is renamed to {aside.name}, and the one before it is used")
    for place in _strangers(root):
        say(f"{place.name} is not a checkpoint; it is renamed to {_put_aside(place).name}")
    state = read_json(whole / "state.json")
    _link(root / "last", whole.name)  # the run may have been killed after writing the folder and before the links
    if (root / f"step-{state['best_step']}").exists():
        _link(root / "best", f"step-{state['best_step']}")
    return Checkpoint(whole, read_tensors(whole / "training.safetensors"), state)


def acting_weights(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / "policy.safetensors")


def _fault(folder: Path) -> str | None:
    """What is wrong with this checkpoint, so that a run cannot go on from it; None if nothing is."""
    if fault := damage(folder, TO_GO_ON):
        return fault
    try:
        state = read_json(folder / "state.json")
        _check_state(state, step_of(folder))
    except Damaged as error:
        return str(error)
    for name in ("policy.safetensors", "training.safetensors"):
        try:
            with safe_open(folder / name, framework="numpy"):  # reads the header
                pass
        except SafetensorError as error:
            return f"{name}: {error}"
    return None


def _check_state(state: dict[str, Any], step: int) -> None:
    """Check the entries that every trainer stores."""
    whole = {name: state.get(name) for name in ("step", "metrics_offset", "threads")}
    if state.get("best_step") is not None:
        whole["best_step"] = state["best_step"]
    for name, value in whole.items():
        if type(value) is not int or value < 0:
            raise Damaged(f"state.json: {name} is {value}")
    if whole["step"] != step:
        raise Damaged(f"state.json is of step {whole['step']}")
    for name, kind in (("data", str), ("seconds", (int, float)), ("sums", dict), ("said", dict), ("schedule", dict)):
        if not isinstance(state.get(name), kind):
            raise Damaged(f"state.json: {name} is {state.get(name)}")


def _by_step(root: Path) -> list[Path]:
    """Newest first."""
    return sorted(
        (path for path in root.glob("step-*") if STEP.fullmatch(path.name) and path.is_dir()), key=step_of, reverse=True
    )


def _strangers(root: Path) -> list[Path]:
    """Files and folders that have the name of a checkpoint or of a link, but are not one."""
    links = [root / name for name in ("last", "best")]
    named = [path for path in root.glob("step-*") if not (STEP.fullmatch(path.name) and path.is_dir())]
    return [*named, *(link for link in links if link.exists() and not link.is_symlink())]


def _put_aside(folder: Path) -> Path:
    aside = next(path for i in range(1, 1000) if not (path := folder.with_name(f"damaged-{i}-{folder.name}")).exists())
    os.rename(folder, aside)
    return aside


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
