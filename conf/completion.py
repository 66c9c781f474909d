"""Tab completion of values. Hydra completes the options of groups, but for a value offers only the present one.

`eval "$(python launch.py -sc install=bash)"` passes the whole line to the command; Hydra completes what is not known here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

CONF = Path(__file__).parent


def asked(arguments: Sequence[str]) -> bool:
    return any(word in ("-sc", "--shell-completion") for word in arguments) and any(w.startswith("query=") for w in arguments)


def suggestions(line: str) -> list[str]:
    """Completions of the last word of the command line; [] where Hydra may know more."""
    words = line.split(" ")
    key, equals, typed = words[-1].partition("=")
    if not equals or key not in VALUES:
        return []
    return [f"{key}={value}" for value in VALUES[key](typed, words) if value.startswith(typed)]


def _literals(key: str) -> Callable[[str, Sequence[str]], Iterable[str]]:
    def values(typed: str, words: Sequence[str]) -> Iterable[str]:
        from conf.check import TopLevel

        return map(str, get_args(get_type_hints(TopLevel)[key]))

    return values


def _sources(typed: str, words: Sequence[str]) -> Iterable[str]:
    module, _ = _family(words)
    return ["expert", *get_type_hints(module.Config)["data"].SOURCES]


def _ids(typed: str, words: Sequence[str]) -> Iterable[str]:
    _, family = _family(words)
    found: list[str] = family.suggested_ids()
    return found


def _family(words: Sequence[str]) -> Any:
    """The module and the class of the environment that the line chooses."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("env=")]
    path = CONF / "env" / f"{chosen[-1] if chosen else 'minigrid'}.yaml"
    module, _, name = yaml.safe_load(path.read_text())["_target_"].rpartition(".")
    imported = importlib.import_module(module)
    return imported, getattr(imported, name)


def _runs(typed: str, words: Sequence[str]) -> Iterable[str]:
    """Folders below the typed path. Those that are no run folders end in /, so that completion goes on."""
    parent = typed if typed.endswith("/") or not typed else os.path.dirname(typed)
    folder = Path(parent or ".")
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    shown = [path for path in inside if not path.name.startswith((".", "damaged-"))]
    return [f"{path}" if (path / "config.yaml").exists() else f"{path}/" for path in shown]


VALUES: dict[str, Callable[[str, Sequence[str]], Iterable[str]]] = {
    "mode": _literals("mode"),
    "device": _literals("device"),
    "env.data.source": _sources,
    "env.id": _ids,
    "ckpt_path": _runs,
    "init_from": _runs,
    "hydra.run.dir": _runs,
    "hydra.sweep.dir": _runs,
}
