"""Hydra's own grid sweeper, with all runs checked before the first one starts. Hydra finds it because of where it lies.

No `from __future__ import annotations`: Hydra executes a plugin before it is in sys.modules, where dataclasses would look.
"""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


@dataclass
class CheckedSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.iolaus_sweeper.CheckedSweeper"


# It takes the name of Hydra's default, because a choice in config.yaml would silently beat an experiment's own sweeper.
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=CheckedSweeperConf, provider="iolaus")


class CheckedSweeper(BasicSweeper):
    def sweep(self, arguments: list[str]) -> Any:
        try:
            return super().sweep(arguments)
        finally:  # done, failed or stopped: what there is gets shown
            if self.overrides is not None:  # the grid was good, so there are runs
                self.show()

    def show(self) -> None:
        from sweeps import report

        assert self.config is not None
        try:
            report.show(Path(self.config.hydra.sweep.dir))
        except Exception:  # how the sweep itself ended matters more
            traceback.print_exc()

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        from conf.multirun import checked  # Hydra imports this module at every start

        assert self.config is not None and self.hydra_context is not None
        [grid] = BasicSweeper.split_arguments(overrides, None)
        runs = checked(self.config, grid, self.hydra_context.config_loader)
        return [*self.split_overrides_to_chunks(runs, max_batch_size)]
