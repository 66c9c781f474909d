"""Read the runs of a sweep from their folders, running or finished. A damaged file marks its run as damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from conf import again
from conf.errors import BadRequest
from conf.files import Damaged
from conf.folder import identifying, leaves
from conf.status import DAMAGED
from sweeps.state import of_run

GROUPS = ("experiment", "policy", "encoder", "env", "trainer")  # their options are shown by the typed names
TARGET = "._target_"

Episodes = dict[str, Any]  # of one player in one run: success, return and length of each episode, and the strata they come in


@dataclass
class Run:
    folder: Path
    seed: int  # of the training that is compared
    setting: dict[str, str]  # everything but the seed that decides the results: policy.horizon -> 8; and the options' names
    asked: set[str]  # the keys of its overrides
    status: str
    study: str | None = None
    reason: str = ""  # why it failed, from its status.json
    summary: dict[str, Any] = field(default_factory=dict)  # this and the next two only of a run that is done
    evaluation: dict[str, Any] = field(default_factory=dict)
    episodes: dict[str, Episodes] = field(default_factory=dict)  # player -> episodes

    @property
    def only_looks(self) -> bool:
        """Whether the run only checks a configuration (debug=..., health, a profile), so there is nothing to compare."""
        flags = (self.setting.get(f"trainer.{name}") for name in ("profile", "overfit"))
        return self.setting.get("mode", "train") not in ("train", "eval") or "true" in flags or "debug" in self.asked


def read(folder: Path) -> list[Run]:
    if (folder / "config.yaml").exists():
        raise BadRequest(f"{folder} is the folder of one run; a sweep's folder has such a folder for each of its runs")
    runs = [_run(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    if not runs:
        raise BadRequest(f"{folder} {'holds no run of a sweep' if folder.exists() else 'does not exist'}; give runs/NAME/TIME")
    take_training_seeds(runs)
    pool_starts(runs)
    return runs


def pool_starts(runs: Sequence[Run]) -> None:
    """Where each seed starts from a run of its own (init_from=runs/first-${seed}), and these were trained alike but for their
    seeds, the first of them stands for all. With one start for several seeds, or several for one, the start is compared."""
    seeds: dict[str, set[int]] = {}
    for run in runs:
        if (start := run.setting.get("init_from", "null")) != "null":
            seeds.setdefault(start, set()).add(run.seed)
    alike: dict[str, list[str]] = {}
    for start in seeds:
        alike.setdefault(_training(start), []).append(start)
    for starts in alike.values():
        # one seed of the runs for each start, and one of its training, and none of them twice
        own = {(*seeds[start], _config(Path(start)).get("seed")) for start in starts if len(seeds[start]) == 1}
        if len(starts) == len(own) == len({seed for seed, _ in own}) == len({seed for _, seed in own}):
            first = min(starts, key=lambda start: min(seeds[start]))
            for run in runs:
                if run.setting.get("init_from") in starts:
                    run.setting["init_from"] = first


def _training(path: str) -> str:
    """How a checkpoint was trained, its seed aside; the path itself, if its config cannot be read."""
    config = identifying(_config(Path(path)))
    if not config:
        return path
    del config["seed"]
    if config.get("init_from"):
        config["init_from"] = _training(config["init_from"])
    return json.dumps(config, sort_keys=True)


def take_training_seeds(runs: Sequence[Run]) -> None:
    """Where checkpoints of several training seeds are played, those are the seeds to compare over, and not those of the acting.

    Checkpoints that were trained alike but for their seed then count as one: the first of them stands for all in `ckpt_path`.
    """
    seeds: dict[str, int] = {}
    alike: dict[str, list[str]] = {}  # how they were trained -> checkpoints
    for path in {run.setting["ckpt_path"] for run in runs if run.setting.get("mode") == "eval"}:
        config = _config(Path(path))  # the checkpoint may be gone
        if config:
            seeds[path] = config["seed"]
            alike.setdefault(_training(path), []).append(path)
    # With two checkpoints of one training, say step-100 and step-200, the path is what is compared.
    pools = [paths for paths in alike.values() if len(paths) == len({seeds[path] for path in paths})]
    if not any(len(paths) > 1 for paths in pools):
        return
    first = {path: min(paths, key=lambda path: seeds[path]) for paths in pools for path in paths}
    played = [run for run in runs if run.setting.get("ckpt_path", "") in seeds]
    own = all(run.seed == seeds[run.setting["ckpt_path"]] for run in played)  # each acts with the seed that it was trained with
    for run in played:
        path = run.setting["ckpt_path"]
        run.setting |= {"seed": "its run's" if own else json.dumps(run.seed), "ckpt_path": first.get(path, path)}
        run.seed = seeds[path]


def _run(folder: Path) -> Run:
    config = _config(folder)
    if not config:
        return Run(folder, 0, {}, set(), DAMAGED, reason="config.yaml cannot be read")
    typed = [word.partition("=") for word in _words(folder)]
    names = {key.lstrip("+~"): value for key, _, value in typed}
    values = dict(leaves(identifying(config)))
    seed = values.pop("seed")
    setting = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    for group in GROUPS:
        target = setting.pop(group + TARGET, "")
        if group in names or target:
            setting[group] = names.get(group) or ".".join(target.split(".")[-2:-1])
    state = of_run(folder)
    run = Run(folder, seed, setting, {*names}, state.status, names.get("study"), state.reason)
    if run.status == DAMAGED:
        run.reason = "status.json cannot be read"
    if run.status == "done":
        try:
            run.summary = _object(folder / "summary.json")
            if run.summary.get("status") == "pruned":
                run.status = "pruned"
                return run
            run.evaluation = {} if run.only_looks else _object(folder / "evaluation.json")
            run.episodes = _episodes(run.evaluation)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            run.status, run.reason = DAMAGED, f"its results cannot be read ({error})"
            run.summary, run.evaluation = {}, {}
    return run


def _episodes(evaluation: dict[str, Any]) -> dict[str, Episodes]:
    """Every player's episodes as arrays; ValueError if they do not fit together."""
    found: dict[str, Episodes] = {}
    strata = evaluation.get("task_of_stream")
    for player, score in evaluation.get("per_episode", {}).items():
        if not isinstance(score, dict):  # what was seen in training stands beside the players
            continue
        arrays = {name: np.asarray(score[name], float) for name in ("success", "return", "length")}
        if len({len(array) for array in arrays.values()}) != 1 or not len(arrays["success"]):
            raise ValueError(f"the episodes of {player} are incomplete")
        found[player] = {**arrays, "strata": strata if strata and len(strata) == len(arrays["success"]) else None}
    if any(not {"return", "success"} <= score.keys() for score in evaluation.get("scores", {}).values()):
        raise ValueError("a player has no score")
    return found


def _config(folder: Path) -> dict[str, Any]:
    """The run's configuration; {} if it cannot be read."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) and isinstance(config.get("seed"), int) else {}


def _words(folder: Path) -> list[str]:
    try:
        return again.read(folder)
    except (OSError, Damaged):
        return []


def _object(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is not what it should be")
    return found
