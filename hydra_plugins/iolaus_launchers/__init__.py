"""`hydra/launcher=local` and `hydra/launcher=slurm`. Hydra finds plugins in this package; the work is done in sweeps/.

No `from __future__ import annotations`: Hydra executes a plugin before it is in sys.modules, where dataclasses would look.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    def __init__(self, **values: Any) -> None:
        """The values are read, and checked, where the launcher is set up."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from sweeps.local import LocalSweep  # Hydra imports this module at every start

        self.sweep = LocalSweep(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.sweep.launch(job_overrides)

    def show(self, job_overrides: Sequence[Sequence[str]]) -> None:
        self.sweep.show(job_overrides)


class SlurmLauncher(Launcher):
    def __init__(self, **values: Any) -> None:
        """The values are read, and checked, where the launcher is set up."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from sweeps.slurm import SlurmSweep  # Hydra imports this module at every start

        self.sweep = SlurmSweep(hydra_context, config)

    def wait_for_runs(self) -> None:
        """Called by a search, which needs results: `launch` then returns when the runs have ended, as with cluster.wait=true."""
        self.sweep.cluster.wait = True

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.sweep.launch(job_overrides)

    def show(self, job_overrides: Sequence[Sequence[str]]) -> None:
        self.sweep.show(job_overrides)


def _register() -> None:
    from conf import clusters

    for name in clusters.CLUSTERS:
        target = f"hydra_plugins.iolaus_launchers.{name.capitalize()}Launcher"
        node = {"_target_": target, **clusters.launcher(name)}
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="iolaus")


_register()
