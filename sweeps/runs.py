"""The runs of a sweep, read from their folders while they are still going on or long after."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.errors import BadRequest
from conf.folder import identifying, leaves


@dataclass
class Run:
    folder: Path
    seed: int  # of the training that is compared
    setting: dict[str, str]  # all that decides what is computed, but the seed: policy.horizon -> 8
    asked: set[str]  # the keys of its overrides
    status: str
    summary: dict[str, Any]  # this and the next only of a run that is done
    evaluation: dict[str, Any]


def read(folder: Path) -> list[Run]:
    if (folder / "config.yaml").exists():
        raise BadRequest(f"{folder} is the folder of one run; a sweep's folder has such a folder for each of its runs")
    configs = {path.parent: _yaml(path) for path in sorted(folder.glob("*/config.yaml"))}
    runs = [_run(place, config) for place, config in configs.items() if isinstance(config, dict) and "seed" in config]
    if not runs:
        raise BadRequest(f"{folder} {'holds no run of a sweep' if folder.exists() else 'does not exist'}; give runs/NAME/TIME")
    take_training_seeds(runs)
    return runs


def take_training_seeds(runs: Sequence[Run]) -> None:
    """Where checkpoints of several training seeds are played, those are the seeds to pool over, and not those of the acting.

    Checkpoints that were trained alike but for their seed then count as one: the first of them stands for all in `ckpt_path`.
    """
    seeds: dict[str, int] = {}
    alike: dict[str, list[str]] = {}  # how they were trained -> checkpoints
    for path in {run.setting["ckpt_path"] for run in runs if run.setting.get("mode") == "eval"}:
        config = _yaml(Path(path) / "config.yaml")  # it may have gone since
        if isinstance(config, dict) and "seed" in config:
            seeds[path] = config.pop("seed")
            alike.setdefault(json.dumps(identifying(config), sort_keys=True), []).append(path)
    # With two checkpoints of one training, say step-100 and step-200, the path is what is compared.
    pools = [paths for paths in alike.values() if len(paths) == len({seeds[path] for path in paths})]
    if not any(len(paths) > 1 for paths in pools):
        return
    first = {path: min(paths, key=lambda path: seeds[path]) for paths in pools for path in paths}
    for run in runs:
        if (path := run.setting.get("ckpt_path", "")) in seeds:
            run.setting |= {"seed": json.dumps(run.seed), "ckpt_path": first.get(path, path)}
            run.seed = seeds[path]


def _run(folder: Path, config: dict[str, Any]) -> Run:
    values = dict(leaves(identifying(config)))
    seed = values.pop("seed")
    asked = {word.partition("=")[0].lstrip("+~") for word in _yaml(folder / "overrides.yaml") or []}
    status = _status(folder)
    summary, evaluation = (_json(folder / f"{name}.json") if status == "done" else {} for name in ("summary", "evaluation"))
    setting = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return Run(folder, seed, setting, asked, status, summary, evaluation)


def _status(folder: Path) -> str:
    """What the run says of itself; `pending` if it has not begun, `died` if its process went without a word."""
    if status := _json(folder / "status.json").get("status"):
        return status if status != "running" or _locked(folder) else "died"
    return "starting" if (folder / "overrides.yaml").exists() else "pending"


def _locked(folder: Path) -> bool:
    """The lock goes with the process that holds it, however that ended."""
    try:
        with open(folder / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or not there to tell
        return True
    return False


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
