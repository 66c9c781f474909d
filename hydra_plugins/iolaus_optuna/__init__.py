"""`hydra/sweeper=optuna`: a search instead of a grid. Hydra finds plugins in this package; the work is done in sweeps/search.py.

No `from __future__ import annotations`: Hydra executes a plugin before it is in sys.modules, where dataclasses would look.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """`hydra.sweeper.*` of a search."""

    _target_: str = "hydra_plugins.iolaus_optuna.OptunaSweeper"
    sampler: str = "tpe"  # tpe | random | grid
    trials: int = 20  # total number, including those of earlier commands; for a grid, the most
    parallel: int = 1  # number of trials that are proposed and run together
    metric: str = "val/success"  # of metrics.jsonl; the best value of a run counts. Never of the test split
    direction: str = "maximize"  # maximize | minimize
    seed: int = 0
    prune: bool = True  # stop a trial that is worse at a validation than the median of earlier trials
    prune_after: int = 5  # the first trials, which are never stopped
    params: dict[str, Any] = field(default_factory=dict)  # key: choice(...), range(...), interval(...), a value


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="iolaus")


class OptunaSweeper(Sweeper):
    def __init__(self, **values: Any):
        self.values = values

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from sweeps.search import Search  # Hydra imports this module at every start

        if code := Search(self.config, self.hydra_context, self.launcher, self.values, arguments).run():
            sys.exit(code)
