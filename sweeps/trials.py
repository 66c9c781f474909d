"""What a run and a search exchange: the best value of a metric, and whether the run should go on.

A search writes `trial.json` into the folder of each of its runs. The run reports its validations to the search's journal and is
told there to stop if it is worse than the median of the trials before it.
"""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from conf.errors import BadRequest

NAME = "search"  # of the study in its journal
FILE = "trial.json"
Pruner = Callable[[int, Mapping[str, float]], bool]  # (step, values of a validation) -> whether to stop


def optuna_module() -> Any:
    try:
        import optuna
    except ImportError:
        raise BadRequest("hydra/sweeper=optuna needs Optuna: pip install -e '.[hpo]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna


def storage(journal: Path) -> Any:
    """The journal as Optuna's storage. Its lock is released when its process ends, even by a kill."""
    optuna_module()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.storages.journal._file import BaseJournalFileLock

    class Lock(BaseJournalFileLock):
        def __init__(self) -> None:
            self.file: IO[bytes] | None = None

        def acquire(self) -> bool:
            self.file = open(journal.with_suffix(".lock"), "wb")  # noqa: SIM115  (open as long as it is held)
            fcntl.flock(self.file, fcntl.LOCK_EX)
            _repair(journal)
            return True

        def release(self) -> None:
            assert self.file is not None
            self.file.close()

    return JournalStorage(JournalFileBackend(str(journal), lock_obj=Lock()))


def best(folder: Path, metric: str, maximize: bool = True) -> float | None:
    """The best value that a run's metrics.jsonl has of a metric."""
    values = []
    try:
        lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            value = json.loads(line).get(metric)
        except ValueError:  # half a line of a killed run
            continue
        if isinstance(value, (int, float)):
            values.append(float(value))
    return (max if maximize else min)(values, default=None)


def objective(folder: Path) -> float | None:
    """The value that `launch.py` returns to a sweeper: the best success on the val split, or return, or minus the loss."""
    for metric in ("val/success", "val/return"):
        if (found := best(folder, metric)) is not None:
            return found
    loss = best(folder, "val/loss", maximize=False)
    return None if loss is None else -loss


def pruner(folder: Path) -> Pruner | None:
    """The pruner of a run that belongs to a search with pruning; None for other runs."""
    try:
        said = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    optuna = optuna_module()
    study = optuna.load_study(study_name=NAME, storage=storage(Path(said["journal"])), pruner=median(said["prune_after"]))
    trial = optuna.trial.Trial(study, said["trial"])
    if study.trials[trial.number].state != optuna.trial.TrialState.RUNNING:  # the run was resumed by itself, after its search
        return None

    def hopeless(step: int, values: Mapping[str, float]) -> bool:
        if said["metric"] not in values:
            return False
        trial.report(values[said["metric"]], step)
        return bool(trial.should_prune())

    return hopeless


def median(after: int) -> Any:
    """A pruner: compares a trial with the median of the best values of earlier trials at the same step, if there are three."""
    return optuna_module().pruners.MedianPruner(n_startup_trials=after, n_min_trials=min(3, max(1, after)))


def _repair(journal: Path) -> None:
    """Cut off the incomplete last line that a killed process left, or the next line would be lost with it."""
    if not journal.exists() or not (size := journal.stat().st_size):
        return
    with open(journal, "r+b") as file:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())
