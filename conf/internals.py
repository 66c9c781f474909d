"""All the private names of Hydra and OmegaConf that this project uses, in one place; pyproject.toml pins both packages.

Hydra prints errors and exits with 1; here it raises them. It also makes objects from the composed config before it calls any
of our code; here everything below `hydra.*` is checked first.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal import config_loader_impl
from hydra._internal import hydra as hydra_application
from hydra._internal import utils as hydra_utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from conf.errors import BadRequest
from conf.overrides import refuse_wrong_choices, trusted_by
from conf.targets import refuse_in_hydra, refuse_package

HAVE_CONFIGS = ("hydra", "hydra_plugins")  # packages that hold Hydra's own configs, and those of its plugins


class Defaults(list[ResultDefault]):
    """The files that make up a config, in order, and what they are when merged."""

    merged: DictConfig | None = None


# By what decides it: where configs lie, the primary config, and the chosen options. A sweep's runs share a few, and so do the
# processes that are forked from the launcher, which would need half of their time to compose what it has composed before.
_defaults: dict[tuple[Any, ...], DefaultsList] = {}


def shared_defaults(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], prepend_hydra: bool, skip_missing: bool
) -> DefaultsList:
    """Hydra's `create_defaults_list`, once for all command lines that choose the same options."""
    choices: list[Override] = []
    values: list[Override] = []
    for override in overrides_list:
        chooses = repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
        if not override.is_sweep_override():  # of a sweep's command line; these are left to its runs
            (choices if chooses else values).append(override)
    places = tuple((source.provider, source.path) for source in repo.get_sources())
    key = places, config_name, tuple(choice.input_line for choice in choices), prepend_hydra
    # With `skip_missing` an option may be called `???`, and makes no difference where none is.
    if (found := _defaults.get((*key, False)) or _defaults.get((*key, skip_missing))) is None:
        found = create_defaults_list(repo, config_name, choices, prepend_hydra, skip_missing)
        found.defaults = Defaults(found.defaults)
        _defaults[*key, skip_missing] = found
    return replace(found, config_overrides=values)


class CheckedLoader(ConfigLoaderImpl):
    """Checks every config that Hydra composes, also that of each run of a sweep, before any object is made from it."""

    trusted: frozenset[str] = frozenset()  # by the command line, which is composed first
    kept: tuple[tuple[str | None, list[str], RunMode], DictConfig] | None = None  # what `get_mode` has composed, and of what

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        if self.kept is not None and self.kept[0] == (config_name, overrides, run_mode):
            composed, self.kept = self.kept[1], None
            if validate_sweep_overrides:
                parsed = OverridesParser.create().parse_overrides(overrides)
                self.validate_sweep_overrides_legal(overrides=parsed, run_mode=run_mode, from_shell=from_shell)
            return composed
        refuse_wrong_choices(overrides, self.get_group_options)
        composed = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        self.trusted |= {*trusted_by(overrides)}
        refuse_in_hydra(composed, [*self.trusted])
        return composed

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if not isinstance(defaults, Defaults):  # `take_over` was not called
            return super()._compose_config_from_defaults_list(defaults, repo)
        if defaults.merged is None:
            defaults.merged = super()._compose_config_from_defaults_list(defaults, repo)
        return copy.deepcopy(defaults.merged)

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Without overrides nothing has to be composed, and Hydra's copy of all configs at each call can be saved."""
        if config_name is None and not overrides:
            return self.repository.get_group_options(group_name, results_filter)
        return super().get_group_options(group_name, results_filter, config_name, overrides)


class CheckedPackages(ImportlibResourcesConfigSource):
    """Configs in a package (`hydra.searchpath=[pkg://x]`), which Hydra imports to find them. Refuses packages that are not
    trusted."""

    def __init__(self, provider: str, path: str) -> None:
        package = path.removeprefix("pkg://").replace("/", ".").split(".")[0]
        if package not in HAVE_CONFIGS:
            trusted = trusted_by([word for word in sys.argv[1:] if word.startswith("trusted_packages=")])
            refuse_package(package, f"configs would be read from {path} ({provider})", trusted, HAVE_CONFIGS)
        super().__init__(provider, path)


class Application(hydra_application.Hydra):
    """Hydra composes the whole config once only to learn `hydra.mode`. A command that says it, as those of a sweep's runs do,
    need not wait for that, and a single run uses what was composed."""

    def get_mode(self, config_name: str | None, overrides: list[str]) -> Any:
        said = [word.removeprefix("hydra.mode=") for word in overrides if word.startswith("hydra.mode=")]
        if said and said[-1] in RunMode.__members__:
            return RunMode[said[-1]]
        loader = self.config_loader
        assert isinstance(loader, CheckedLoader)
        try:
            composed = loader.load_configuration(config_name, overrides, RunMode.RUN, validate_sweep_overrides=False)
        except Exception:  # raised again later, if this is a single run
            return super().get_mode(config_name, overrides)
        mode, overrides = composed.hydra.mode, [*overrides]
        if mode is None:  # then Hydra adds this to the command of a single run
            overrides.append("hydra.mode=RUN")
            with read_write(composed.hydra):
                composed.hydra.mode = RunMode.RUN
                composed.hydra.overrides.hydra.append(overrides[-1])
        loader.kept = (config_name, overrides, RunMode.RUN), composed
        return mode


_parse_rule = functools.lru_cache(maxsize=4096)(OverridesParser.create().parse_rule)


def _parsed_once(parser: OverridesParser, text: str, rule: str) -> Any:
    """Hydra and our own checks parse each word of a command line three or four times, and .1 s would pass."""
    return copy.copy(_parse_rule(text, rule))  # Hydra adds its loader to an override


def take_over() -> None:
    """Make Hydra raise its errors and compose with our loader. Called before `hydra.main` runs."""
    OverridesParser.parse_rule = _parsed_once  # type: ignore[method-assign, assignment]
    hydra_utils.run_and_report = lambda func: func()
    hydra_application.ConfigLoaderImpl = CheckedLoader  # type: ignore[misc]
    config_loader_impl.create_defaults_list = shared_defaults
    hydra_application.Hydra = Application  # type: ignore[misc]
    Plugins.instance()  # registers Hydra's sources
    SourcesRegistry.instance().types["pkg"] = CheckedPackages


def flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's own flags as they were typed; BadRequest if there is no such flag."""
    parser = hydra_utils.get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    return parser.parse_args([*arguments])


@functools.cache
def loader(config_path: str | None, config_dir: str | None) -> ConfigLoaderImpl:
    """Of the configs that a command line with these flags sees, for a process that composes several runs."""
    path = hydra_utils.create_config_search_path(config_path or str(Path(__file__).parent.resolve()))
    if config_dir:
        # In the same place as Hydra puts it: its own schemas must stay last.
        schemas = SearchPathQuery(provider="schema")
        path.prepend(provider="command-line", path=f"file://{os.path.abspath(config_dir)}", anchor=schemas)
    GlobalHydra.instance().clear()
    made = hydra_application.Hydra.create_main_hydra2(task_name="launch", config_search_path=path).config_loader
    assert isinstance(made, ConfigLoaderImpl)
    return made


def config_flags(arguments: Sequence[str]) -> list[str]:
    """The flags that say where configs lie, as words of a command line."""
    given, _ = hydra_utils.get_args_parser().parse_known_args([*arguments])
    named = {"--config-dir": given.config_dir, "--config-path": given.config_path, "--config-name": given.config_name}
    return [word for flag, value in named.items() if value for word in (flag, value)]


def refuse_flags(arguments: Sequence[str]) -> None:
    """BadRequest for a flag that does not exist, or that would unpickle a file."""
    if flags(arguments).experimental_rerun is not None:
        raise BadRequest("--experimental-rerun would unpickle a file; paste the line in the run's command.txt instead")


def is_single(hydra: Any) -> bool:
    """Whether this run is not part of a sweep."""
    return bool(hydra.mode == RunMode.RUN)


def has_our_folder(hydra: Any) -> bool:
    """Whether our callback or our sweeper, not another sweeper, chose the folder of this run."""
    return is_single(hydra) or str(hydra.sweeper._target_).startswith("hydra_plugins.iolaus_sweeper.")


def root(node: DictConfig) -> Any:
    return node._get_root()


def is_filled(node: DictConfig) -> bool:
    """Whether it is a group of values, and not null or `???`."""
    return not node._is_none() and not node._is_missing()


def _refuse(message: str) -> NoReturn:
    flag = message.removeprefix("unrecognized arguments: ").split(" ")[0]
    if flag == message.split(" ")[0]:
        raise BadRequest(f"{message}; python launch.py --hydra-help lists the flags")
    raise BadRequest(f"there is no flag {flag}; values are written key=value, and python launch.py --hydra-help lists the flags")
