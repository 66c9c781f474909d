"""Config is not code: where a value may name a class (`_target_`), and which packages that class may come from.

`conf/check.py` reads our own sections. Everything below `hydra.*` is checked as soon as it is composed, because Hydra makes
its callbacks and its logging from it before it calls any of our code (`conf/internals.py`).
"""

from __future__ import annotations

import gc
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.build import join
from conf.errors import BadRequest

OWN_PACKAGES = ("policies", "envs", "trainers")
OWN_CALLBACK, OWN_HANDLER = "conf.callback.Check", "conf.log.LogFile"
CALLBACK = "hydra.experimental.callback.Callback"
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")  # Hydra itself requires these of launchers and sweepers
SAMPLERS = re.compile(r"optuna\.samplers\.\w+Sampler")  # Optuna's sweeper takes such a class as a value
LOGGING = ("logging", "colorlog", "rich")  # packages whose handlers and formatters a logging configuration may name
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def locate(
    target: Any, key: str, base: str = "builtins.object", trusted: Sequence[str] = (), own: Sequence[str] = OWN_PACKAGES
) -> type:
    """The class that `target` names, if its package may be imported; `key` is where it was read."""
    refuse(target, key, trusted, own)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(imported(module), name, None)
    except ImportError as error:
        raise BadRequest(f"{key} is {target}, which cannot be imported: {error}") from error
    if found is None:
        raise BadRequest(f"{key} is {target}, but {module} has no {name}")
    base_module, _, base_name = base.rpartition(".")
    if not isinstance(found, type) or not issubclass(found, getattr(importlib.import_module(base_module), base_name)):
        raise BadRequest(f"{key} is {target}, which is not a {base}" if base != "builtins.object" else f"{target} is not a class")
    refuse(f"{found.__module__}.{found.__qualname__}", key, trusted, own)  # our module may import a class of another package
    return found


def imported(module: str) -> ModuleType:
    """Imports PyTorch, as a rule: half a million objects that stay, among which looking for garbage would take .2 s in vain."""
    if module in sys.modules:
        return sys.modules[module]
    collecting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def refuse(target: Any, key: str, trusted: Sequence[str], own: Sequence[str] = OWN_PACKAGES) -> None:
    """BadRequest unless `target` names something in a package that may be imported."""
    if not isinstance(target, str) or "." not in target:
        raise BadRequest(f"{key} must name a class, such as policies.bc_mlp.BCMLP, got {target}")
    refuse_package(target.split(".")[0], f"{key} is {target}", trusted, own)


def refuse_package(package: str, named: str, trusted: Sequence[str], own: Sequence[str] = OWN_PACKAGES) -> None:
    if package not in (*own, *trusted):
        listed = f"only {', '.join(own)} are trusted" if own else "no package is trusted with it"
        raise BadRequest(f"{named}, but {listed}; if {package} is your own, add 'trusted_packages=[{package}]'")


def refuse_in_sections(values: Mapping[str, Any], places: Sequence[str], trusted: Sequence[str], path: str = "") -> None:
    """`places` are the sections that name their class; a `_target_` anywhere else is refused."""
    for name, value in values.items():
        key = join(path, name)
        if name == "_target_":
            if path not in places:
                raise BadRequest(f"{key} may not name code; only {', '.join(f'{place}._target_' for place in places)} do")
            refuse(value, key, trusted)
        elif isinstance(value, Mapping):
            refuse_in_sections(value, places, trusted, key)
        elif isinstance(value, list):
            refuse_in_sections({str(i): item for i, item in enumerate(value)}, places, trusted, key)


def refuse_in_hydra(config: DictConfig, trusted: Sequence[str]) -> None:
    """Check everything below `hydra` that would become an object. `trusted` are the packages that the command line names: a
    config file cannot trust itself."""
    for key, value in _leaves(config.hydra, "hydra"):
        section, _, name = key.rpartition(".")
        if name == "_target_":
            _refuse_hydra_target(value, key, section, trusted)
        elif key.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
            _refuse_logging(value, key, name, trusted)


def _refuse_hydra_target(target: Any, key: str, section: str, trusted: Sequence[str]) -> None:
    if section in ("hydra.launcher", "hydra.sweeper"):
        if not str(target).startswith(PLUGINS):
            raise BadRequest(f"{key} is {target}, which is no plugin of Hydra; choose one with {section.replace('.', '/')}=...")
    elif re.fullmatch(r"hydra\.callbacks\.[^.]+", section):
        if target != OWN_CALLBACK:
            locate(target, key, CALLBACK, trusted, ("hydra", "hydra_plugins"))
    elif not (section.startswith("hydra.sweeper.") and SAMPLERS.fullmatch(str(target))):
        refuse(target, key, trusted, ())


def _refuse_logging(value: Any, key: str, name: str, trusted: Sequence[str]) -> None:
    """Python's logging instantiates what `class` and `()` name, and imports what `ext://` names.

    From Python 3.12 it also calls what `queue` and `listener` of a QueueHandler name.
    """
    if name in ("class", "()", "queue", "listener"):
        if value != OWN_HANDLER:
            refuse(value, key, trusted, LOGGING)
    elif isinstance(value, str) and value.startswith("ext://") and value not in STREAMS:
        refuse(value.removeprefix("ext://"), key, trusted, LOGGING)


def _leaves(node: DictConfig | ListConfig, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below `node` with its dotted key, resolved if that is possible now."""
    for name in node if isinstance(node, DictConfig) else range(len(node)):
        key = join(path, str(name))
        if OmegaConf.is_missing(node, name):
            continue
        try:
            value = node[name]  # type: ignore[index]
        except OmegaConfBaseException:
            value = "an interpolation that does not resolve"
        if isinstance(value, (DictConfig, ListConfig)):
            yield from _leaves(value, key)
        else:
            yield key, value
