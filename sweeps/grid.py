"""A whole sweep over a grid, with any launcher: check the runs, launch them, show the results."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from conf import multirun
from conf.errors import BadRequest, Exit, RunFailed
from sweeps import launching
from sweeps.state import of_run


def sweep(config: DictConfig, context: HydraContext, launcher: Launcher, words: Sequence[str], batch: int | None) -> int:
    """Returns the exit code, which is the worst one of the runs."""
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(words))
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise BadRequest(
                f"{override.input_line} is no grid; write values, range() or choice(), or search: hydra/sweeper=optuna"
            )
    [grid] = BasicSweeper.split_arguments(parsed, None)
    placed = multirun.checked(config, grid, context.config_loader)
    if config.dry:
        if (show := getattr(launcher, "show", None)) is not None:
            show(placed)
        return Exit.DONE
    home = Path(config.hydra.sweep.dir)
    folders = [run.folder for run in launching.runs_of(config, context, placed)]
    todo = placed
    if not hasattr(launcher, "show"):  # launchers of other packages do not skip finished runs
        todo = [run for run, folder in zip(placed, folders, strict=True) if of_run(folder).status != "done"]
    try:
        fault = _launched(launcher, todo, batch)
    finally:
        if any(of_run(folder).status not in ("pending", "queued") for folder in folders):
            _show(home)
    if fault is not None:
        raise fault
    return launching.worst([of_run(folder) for folder in folders])


def _launched(launcher: Launcher, runs: Sequence[Sequence[str]], batch: int | None) -> Exception | None:
    """Launch all batches, even if runs fail; returns the first fault that has a traceback to show."""
    returns: list[JobReturn] = []
    for start in range(0, len(runs), batch or len(runs) or 1):
        part = [list(run) for run in runs[start : start + (batch or len(runs))]]
        returns += launcher.launch(part, initial_job_idx=start)
    faults = [result._return_value for result in returns if result.status == JobStatus.FAILED]
    return next((fault for fault in faults if isinstance(fault, Exception) and not isinstance(fault, RunFailed)), None)


def _show(home: Path) -> None:
    """Show the results that exist, whether the sweep is done, failed or stopped."""
    from sweeps import report

    try:
        report.show(home)
    except Exception:  # a fault in the report must not hide how the sweep ended
        traceback.print_exc()
