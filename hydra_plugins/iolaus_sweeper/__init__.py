"""Hydra's own grid sweeper, but all runs are checked before the first one starts. Hydra finds plugins in this package.

No `from __future__ import annotations`: Hydra executes a plugin before it is in sys.modules, where dataclasses would look.
"""

import sys
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore


@dataclass
class CheckedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.iolaus_sweeper.CheckedSweeper"


# It has the name of Hydra's default, because a choice in config.yaml would silently override an experiment's sweeper.
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=CheckedSweeperConf, provider="iolaus")


class CheckedSweeper(BasicSweeper):
    def sweep(self, arguments: list[str]) -> Any:
        from sweeps.grid import sweep  # Hydra imports this module at every start

        assert self.config is not None and self.hydra_context is not None and self.launcher is not None
        words = [*self._parse_config(), *arguments]
        if code := sweep(self.config, self.hydra_context, self.launcher, words, self.max_batch_size):
            sys.exit(code)
