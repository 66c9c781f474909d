"""What a checkpoint says about its run: `mode=eval` plays the policy in the environment that it was trained with.

Only `policy` and `env` are taken. The user who runs the evaluation decides everything else, above all `trusted_packages`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.build import join, unknown
from conf.errors import BadRequest
from conf.files import Damaged, digest, read_json, read_yaml
from conf.overrides import parsed

TO_ACT = frozenset({"policy.json", "policy.safetensors"})  # what every checkpoint holds
TO_EVALUATE = TO_ACT | {"config.yaml"}  # and the environment that it was trained in
TO_GO_ON = TO_ACT | {"training.safetensors", "state.json"}  # and what a resumed run needs
LARGEST_SPACE = 10**8  # numbers in one observation
NAME_PART = r"[.+-]*\w[\w.+-]*"


def find(path: str, key: str) -> Path:
    """The folder of the checkpoint at `path`, which is that folder or a run folder; error messages name `key`."""
    given = Path(path)
    try:
        for folder in (given, given / "checkpoints" / "best", given / "checkpoints" / "last"):
            if (folder / "policy.json").is_file():
                return folder.resolve()
        there = given.exists()
    except (OSError, ValueError) as error:  # an impossible file name, or an unreadable folder
        raise BadRequest(f"{key}={path} cannot be read: {error}") from error
    if not there:
        raise BadRequest(f"{key}={path} does not exist; give a run folder, or a checkpoint such as RUN/checkpoints/best")
    raise BadRequest(f"{key}={path} holds no checkpoint; give a run folder that has checkpoints/best, or a checkpoint itself")


def write_manifest(folder: Path) -> None:
    """Write the hashes of a checkpoint's files. This is the last file of a checkpoint to be written."""
    hashes = {path.name: digest(path) for path in sorted(folder.iterdir())}
    (folder / "manifest.json").write_text(json.dumps(hashes, indent=2))


def damage(folder: Path, needed: frozenset[str] = TO_ACT) -> str | None:
    """What is wrong with a checkpoint's files, if anything; `needed` are the files that must be there."""
    try:
        manifest = read_json(folder / "manifest.json")
        if missing := sorted(needed - manifest.keys()):
            return f"manifest.json does not name {missing[0]}"
        for name, expected in manifest.items():
            if name != Path(name).name:
                return f"manifest.json names {name}, which lies elsewhere"
            if digest(folder / name) != expected:
                return f"{name} is not what was saved"
    except Damaged as error:  # not OSError: a file that cannot be read now may be intact
        return str(error)
    return None


def refuse_damaged(folder: Path, needed: frozenset[str] = TO_ACT) -> None:
    if fault := damage(folder, needed):
        raise damaged(folder, fault)


def damaged(folder: Path, fault: object) -> BadRequest:
    return BadRequest(f"the checkpoint {folder} is damaged ({fault}); choose another one of its run")


def record(folder: Path) -> dict[str, Any]:
    """Which policy a checkpoint holds, as YAML names it, with its values and the spaces it knows."""
    try:
        found = read_json(folder / "policy.json")
        _check_record(found)
    except (Damaged, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, f"policy.json: {error}") from error
    return found


def _check_record(found: Mapping[str, Any]) -> None:
    target, config, spaces = found["target"], found["config"], found["spaces"]
    if not isinstance(target, str) or "." not in target or not isinstance(config, dict):
        raise Damaged("it names no policy")
    for space in (spaces["action"], *spaces["observation"].values()):
        shape = space.get("shape", [])
        if space["type"] not in ("discrete", "box") or any(type(n) is not int or n < 1 for n in (*shape, space.get("n", 1))):
            raise Damaged("it holds spaces of an unknown kind")
        if math.prod(shape) > LARGEST_SPACE or space.get("n", 1) > LARGEST_SPACE:
            raise Damaged("it holds a space that no network could take in")


def adopt(config: dict[str, Any], overrides: Sequence[str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the checkpoint's policy and environment; the command line may still override their values.

    The seed and `eval.*` come from the checkpoint's run too, so that random play and the episodes are the same, unless the
    command line or an experiment changes them from their `usual` values.
    """
    folder = find(config["ckpt_path"], "ckpt_path")
    held = saved(folder)
    asked = parsed(overrides)
    groups = {override.key_or_group for override in asked if isinstance(override.value(), str)}
    if "policy" in groups and config["policy"]["_target_"] != held["policy"]["_target_"]:
        there, wanted = (section["policy"]["_target_"].split(".")[-2] for section in (held, config))
        raise BadRequest(f"the checkpoint holds {there}, not {wanted}; leave out policy=, or choose another ckpt_path")
    if "encoder" in groups and config["policy"].get("encoder") != held["policy"].get("encoder"):
        raise BadRequest("the checkpoint's encoder is not the one that encoder= asks for; leave out encoder=")
    adopted = {**config, "policy": held["policy"], "ckpt_path": str(folder), "name": config["name"] or held["name"]}
    if "env" not in groups:
        adopted["env"] = held["env"]
    typed = {override.key_or_group for override in asked}
    there = held["config"]
    if "seed" not in typed and config["seed"] == usual.get("seed", config["seed"]) and type(there.get("seed")) is int:
        adopted["seed"] = there["seed"]
    if isinstance(there.get("eval"), dict):
        same = {key: value for key, value in there["eval"].items() if key in config["eval"] and f"eval.{key}" not in typed}
        usual_eval = usual.get("eval", config["eval"])
        adopted["eval"] = {**config["eval"], **{k: v for k, v in same.items() if config["eval"][k] == usual_eval.get(k)}}
    for override in asked:
        key = override.key_or_group
        if key.startswith("policy.") or (key.startswith("env.") and "env" not in groups):
            put(adopted, key, _get(config, key))
    return adopted


def refuse_other_policy(path: str, target: str, others: Sequence[str]) -> None:
    """`init_from` takes weights from the same kind of policy, or from a policy that shares parts with it."""
    held = record(Path(path))["target"]
    if held not in (target, *others):
        raise BadRequest(
            f"init_from={path} holds {held.split('.')[-2]}, not {target.split('.')[-2]}; choose its policy, or another run"
        )


def saved(folder: Path) -> dict[str, Any]:
    """The checkpoint's own config, after a check that its files are intact and that it agrees with the policy beside it."""
    refuse_damaged(folder, TO_EVALUATE)
    held = record(folder)
    try:
        config = read_yaml(folder / "config.yaml")
        policy, env, name = config["policy"], config["env"], config["name"]
        if not isinstance(env, dict) or not isinstance(env["_target_"], str):
            raise Damaged("config.yaml names no environment")
        if policy != {"_target_": held["target"], **held["config"]}:
            raise Damaged("config.yaml and policy.json do not belong together")
        if not isinstance(name, str) or not is_name(name):
            raise Damaged("config.yaml has a name that is none")
        return {"name": name, "policy": policy, "env": env, "config": config}
    except (OSError, Damaged, KeyError, TypeError) as error:
        raise damaged(folder, error) from error


def is_name(name: str) -> bool:
    """Whether it can be a folder below runs/: no part of it consists of dots alone."""
    return ".." not in name and re.fullmatch(rf"{NAME_PART}(/{NAME_PART})*", name) is not None


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value[name]
    return value


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Change `config` in place. `adopt` may do that, because the sections that `saved` returns are shared with nobody."""
    path, node = "", config
    *parents, last = key.split(".")
    for name in parents:
        path, node = join(path, name), node[name] if isinstance(node.get(name), dict) else {}
    if last not in node:
        raise BadRequest(unknown(key, [join(path, name) for name in node]))
    node[last] = value
