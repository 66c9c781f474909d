"""The runs of a sweep, composed in a few milliseconds each.

The expensive part of Hydra's composition depends only on the choices of groups (`policy=`, `env=`), so it is done once per
combination of them. Hydra's own function then applies the values to a copy, as Hydra 1.3 does. A test compares the result with
Hydra's on hundreds of random command lines.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        OverridesParser.create().parse_overrides([text])  # raises the error that names the override
        raise


@dataclass
class Base:
    """What the runs of one combination of options share."""

    config: DictConfig  # before any value is applied
    hydra: DictConfig  # only the key `hydra`


class Composer:
    """`composer(overrides)` is the config that Hydra composes for one run, without `hydra`, which goes to `HydraConfig`."""

    def __init__(self, loader: ConfigLoader, config_name: str):
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.config_name = loader, config_name
        self.bases: dict[tuple[str, ...], Base] = {}
        self.groups: dict[str, bool] = {}
        _, self.repository = loader._parse_overrides_and_create_caching_repo(config_name, [])

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The run's config. Sets `HydraConfig` to that of this run, so that `${hydra:...}` resolves."""
        parsed = [_parse(text) for text in overrides]
        self.loader.validate_sweep_overrides_legal(overrides=parsed, run_mode=RunMode.RUN, from_shell=True)
        values = [one for one in parsed if not (self._chooses(one) or one.is_hydra_override())]
        base = self._base(tuple(one.input_line or "" for one in parsed if one not in values))
        config = copy.deepcopy(base.config)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        with read_write(base.hydra.hydra):  # Hydra locks the one that was set last
            base.hydra.hydra.overrides.task = [one.input_line for one in parsed if not one.is_hydra_override()]
        HydraConfig.instance().cfg = base.hydra  # type: ignore[assignment]  # what `set_config` does, without its copy
        return config

    def _chooses(self, override: Override) -> bool:
        """Whether it chooses an option of a group instead of setting a value."""
        key = override.key_or_group
        if key not in self.groups:
            self.groups[key] = self.repository.group_exists(key)
        return self.groups[key] or override.package is not None

    def _base(self, choices: tuple[str, ...]) -> Base:
        """Composed by Hydra from the overrides that choose options and those of the `hydra` node."""
        if choices not in self.bases:
            config: Any = self.loader.load_configuration(self.config_name, list(choices), RunMode.RUN)
            hydra = OmegaConf.masked_copy(config, "hydra")
            with open_dict(config):
                del config["hydra"]
            self.bases[choices] = Base(config, hydra)
        return self.bases[choices]
