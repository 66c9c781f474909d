"""Fields of a dataclass that the YAML of its option lacks. They are found in the source file, because importing it may take
seconds and may run code that nobody trusts."""

from __future__ import annotations

import ast
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any


def sentence(key: str, target: Any) -> str | None:
    """For a key such as policy.width that the chosen option does not have: what to do if its dataclass has it. `target` is the
    option's `_target_`."""
    section, _, name = key.partition(".")
    module = str(target).rpartition(".")[0]
    if name not in _fields_of_config(module):
        return None
    return (
        f"{key} is a field of {module}.Config, but the option's YAML has no value for it; add {name}: ... to that file, in the "
        f"folder {section} of the configs"
    )


def _fields_of_config(module: str) -> set[str]:
    """The fields of the dataclass `Config` that is written in this module; none if it is written elsewhere."""
    package, *names = module.split(".")
    found = importlib.util.find_spec(package) if names else None  # finds a package at the top without importing it
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(OSError, SyntaxError):
            tree = ast.parse(Path(folder, *names).with_suffix(".py").read_text())
            config = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
            fields = [line.target for node in config for line in node.body if isinstance(line, ast.AnnAssign)]
            return {field.id for field in fields if isinstance(field, ast.Name)}
    return set()
