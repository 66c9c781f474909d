"""What a checkpoint says about its run: `mode=eval` plays the policy in the environment that it was trained with.

Only `policy` and `env` are taken. Everything else, `trusted_packages` above all, is the word of whoever runs the evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from conf.build import join, unknown
from conf.errors import BadRequest


def find(path: str, key: str) -> Path:
    """The checkpoint's folder, given itself or its run folder; `key` is who asked, for the sentence."""
    given = Path(path)
    for folder in (given, given / "checkpoints" / "best", given / "checkpoints" / "last"):
        if (folder / "policy.json").is_file():
            return folder.resolve()
    if not given.exists():
        raise BadRequest(f"{key}={path} does not exist; give a run folder, or a checkpoint such as RUN/checkpoints/best")
    raise BadRequest(f"{key}={path} holds no checkpoint; give a run folder that has checkpoints/best, or a checkpoint itself")


def write_manifest(folder: Path) -> None:
    """The hashes of a checkpoint's files, the last file to be written into it."""
    hashes = {path.name: _hash(path) for path in sorted(folder.iterdir())}
    (folder / "manifest.json").write_text(json.dumps(hashes, indent=2))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, if anything."""
    try:
        for name, digest in json.loads((folder / "manifest.json").read_text()).items():
            if _hash(folder / name) != digest:
                return f"{name} is not what was saved"
    except (FileNotFoundError, ValueError) as error:  # a file that cannot be read just now is no damage
        return str(error)
    return None


def refuse_damaged(folder: Path) -> None:
    if fault := damage(folder):
        raise BadRequest(f"the checkpoint {folder} is damaged ({fault}); choose another one of its run")


def record(folder: Path) -> dict[str, Any]:
    """Which policy a checkpoint holds, as YAML names it, with its values and the spaces it knows."""
    found: dict[str, Any] = json.loads((folder / "policy.json").read_text())
    return found


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adopt(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config with the checkpoint's policy and environment; what the command line says about their values still counts."""
    folder = find(config["ckpt_path"], "ckpt_path")
    held = saved(folder)
    asked = OverridesParser.create().parse_overrides([*overrides])
    groups = {override.key_or_group for override in asked if isinstance(override.value(), str)}
    if "policy" in groups and config["policy"]["_target_"] != held["policy"]["_target_"]:
        there, wanted = (section["policy"]["_target_"].split(".")[-2] for section in (held, config))
        raise BadRequest(f"the checkpoint holds {there}, not {wanted}; leave out policy=, or choose another ckpt_path")
    if "encoder" in groups and config["policy"].get("encoder") != held["policy"].get("encoder"):
        raise BadRequest("the checkpoint's encoder is not the one that encoder= asks for; leave out encoder=")
    adopted = {**config, "policy": held["policy"], "ckpt_path": str(folder), "name": config["name"] or held["name"]}
    if "env" not in groups:
        adopted["env"] = held["env"]
    for override in asked:
        key = override.key_or_group
        if key.startswith("policy.") or (key.startswith("env.") and "env" not in groups):
            put(adopted, key, _get(config, key))
    return adopted


def refuse_other_policy(path: str, target: str, others: Sequence[str]) -> None:
    """`init_from` takes weights, so it takes them from the same kind of policy, or from one of those that share parts with it."""
    held = record(Path(path))["target"]
    if held not in (target, *others):
        raise BadRequest(
            f"init_from={path} holds {held.split('.')[-2]}, not {target.split('.')[-2]}; choose its policy, or another run"
        )


def saved(folder: Path) -> dict[str, Any]:
    """The checkpoint's own config, once its files are whole and it agrees with the policy that lies beside it."""
    refuse_damaged(folder)
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        held = record(folder)
        target, _, _ = held["target"], held["config"], held["spaces"]["observation"]
        if not isinstance(config, dict) or config["policy"]["_target_"] != target or not isinstance(config["env"], dict):
            raise ValueError("config.yaml and policy.json do not belong together")
        return {"name": config["name"], "policy": config["policy"], "env": config["env"]}
    except (OSError, ValueError, KeyError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise BadRequest(f"the checkpoint {folder} is damaged ({error}); choose another one of its run") from error


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value[name]
    return value


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """In place. `adopt` never does it in the dicts that `config` shares with the composed one: `saved` was read for us alone."""
    path, node = "", config
    *parents, last = key.split(".")
    for name in parents:
        path, node = join(path, name), node[name] if isinstance(node.get(name), dict) else {}
    if last not in node:
        raise BadRequest(unknown(key, [join(path, name) for name in node]))
    node[last] = value
