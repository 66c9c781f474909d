"""A search for good values: Optuna proposes them, any launcher runs them, and a journal on disc records them.

The journal lies in the search's folder. The same command continues it, up to the requested total number of trials. Trials whose
process is gone are marked as failed, and their values are tried again in the same run folder, which resumes. The samplers' random
numbers depend on the number of earlier trials, so a stopped search proposes the same values as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from conf import folder as folders
from conf import multirun
from conf.errors import BadRequest, Exit
from sweeps import launching, trials
from sweeps.leftovers import alone, status_of, wait_for_leftovers
from sweeps.record import FILE, SearchRecord, short
from sweeps.space import distribution, grid

SAMPLERS = ("tpe", "random", "grid")
STOPPED = ("preempted", "interrupted", "pending", "queued", "running")  # the trial itself did not fail
MOST_FAILURES = 5  # after this many failures in a row the search stops
LEAST_FOR_IMPORTANCE = 10  # trials


@dataclass
class Values:
    """`hydra.sweeper.*`; what each means stands in hydra_plugins/iolaus_optuna."""

    sampler: str
    trials: int
    parallel: int
    metric: str
    direction: str
    seed: int
    prune: bool
    prune_after: int
    params: dict[str, Any]

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise BadRequest(f"hydra.sweeper.sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler}")
        if self.direction not in ("maximize", "minimize"):
            raise BadRequest(f"hydra.sweeper.direction must be maximize or minimize, got {self.direction}")
        for name, least in {"trials": 1, "parallel": 1, "prune_after": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise BadRequest(f"hydra.sweeper.{name} must be at least {least}, got {getattr(self, name)}")


class Search:
    def __init__(
        self, config: DictConfig, context: HydraContext, launcher: Launcher, values: Mapping[str, Any], arguments: Sequence[str]
    ):
        self.config, self.context, self.launcher = config, context, launcher
        self.values = Values(**values)
        self.optuna = trials.optuna_module()
        given = {word.partition("=")[0].lstrip("+") for word in arguments}
        words = [f"{key}={value}" for key, value in self.values.params.items() if key not in given]
        parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides([*words, *arguments])
        self.space = {one.get_key_element(): distribution(one) for one in parsed if one.is_sweep_override()}
        self.fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
        if not self.space:
            raise BadRequest("there is nothing to search: write a key=interval(...), choice(...) or range(...)")
        self.home = self.choose_home()
        self.maximize = self.values.direction == "maximize"

    def choose_home(self) -> Path:
        """The same search has the same folder, so that the same command continues it."""
        if self.config.hydra.sweep.dir != folders.AUTO:
            return Path(self.config.hydra.sweep.dir)
        if study := self.config.hydra.runtime.choices.get("study"):
            return Path("runs") / str(study)
        fixed = [word for word in self.fixed if not launching.is_machinery(word)]
        asked = [*fixed, *(f"{key}={one}" for key, one in self.space.items()), self.values.metric, self.values.sampler]
        mark = hashlib.sha256("\n".join(sorted(asked)).encode()).hexdigest()[:6]
        return Path("runs") / str(self.config.name or "search") / f"search-{mark}"

    def run(self) -> int:
        if self.config.dry:
            print("\n".join(f"{key}: {one}" for key, one in self.space.items()))
            values = self.values
            print(f"{values.trials} trials of {values.sampler}, to {values.direction} {values.metric}, in {self.home}")
            return Exit.DONE
        self.home = folders.make(self.home)
        with open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = str(self.home)
        if (wait := getattr(self.launcher, "wait_for_runs", None)) is not None:
            wait()
        with alone(self.home):
            self.study = self.opened()
            try:
                return self.search()
            finally:
                self.write_record()
                self.show()

    def opened(self) -> Any:
        """The study in the journal, after taking care of trials that are marked as running."""
        study = self.optuna.create_study(
            study_name=trials.NAME,
            storage=trials.storage(self.home / "search.journal"),
            load_if_exists=True,
            direction=self.values.direction,
        )
        known = next((trial.distributions for trial in study.trials if trial.distributions), self.space)
        if known != self.space or study.direction.name.lower() != self.values.direction:
            raise BadRequest(f"{self.home} holds a search of another space; choose another folder with hydra.sweep.dir=...")
        self.recover(study)
        if self.values.sampler == "grid":
            seen = [trial.params or trial.system_attrs.get("fixed_params") for trial in study.trials]
            for point in grid(self.space):
                if point not in seen:
                    study.enqueue_trial(point)
        return study

    def recover(self, study: Any) -> None:
        """Trials that a stopped search left running: finished ones count, the others are queued again."""
        state = self.optuna.trial.TrialState
        left = study.get_trials(states=(state.RUNNING,))
        folders = {trial.number: self.home / trial.user_attrs.get("folder", "-") for trial in left}
        wait_for_leftovers([*folders.values()])
        if alive := [str(folder) for folder in folders.values() if status_of(folder) in ("running", "queued")]:
            raise BadRequest(f"{len(alive)} trials of this search are still going on ({alive[0]}); wait for them, or cancel them")
        for trial in left:
            folder = folders[trial.number]
            value = trials.best(folder, self.values.metric, self.maximize)
            if status_of(folder) == "done" and value is not None:
                study.tell(trial.number, value)
            else:
                study.tell(trial.number, state=state.FAIL)
                study.enqueue_trial(trial.params)

    def search(self) -> int:
        total, failed = self.total(), 0
        if self.finished():
            print(f"{self.finished()} of {total} trials are in {self.home} already")
        while (left := self.left(total)) > 0:
            self.study.sampler = self.sampler()
            batch = [self.study.ask(self.space) for _ in range(min(self.values.parallel, left))]
            ends = self.launch(batch)
            if any(end in STOPPED for end in ends):
                waiting = all(end in ("queued", "running") for end in ends)
                print("submitted; give the same command when they are done" if waiting else "stopped; the same command goes on")
                return Exit.DONE if waiting else Exit.PREEMPTED
            failed = 0 if any(end in ("done", "pruned") for end in ends) else failed + len(ends)
            if failed >= MOST_FAILURES:
                print(f"the last {failed} trials failed, so the search stops; their folders in {self.home} say why")
                return Exit.FAILED
            self.write_record()
        return Exit.DONE

    def total(self) -> int:
        if self.values.sampler != "grid":
            return self.values.trials
        return min(self.values.trials, sum(1 for _ in grid(self.space)))

    def finished(self) -> int:
        state = self.optuna.trial.TrialState
        return len(self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)))

    def failed(self) -> int:
        return sum("failed" in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def left(self, total: int) -> int:
        """The number of trials still to run. In a grid, a failed point counts as tried, and no point is tried twice."""
        if self.values.sampler != "grid":
            return total - self.finished()
        waiting = self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.WAITING,))
        return min(len(waiting), total - self.finished() - self.failed())

    def sampler(self) -> Any:
        """A sampler seeded with the number of finished trials, so proposals do not depend on where a search was stopped."""
        samplers, seed = self.optuna.samplers, self.values.seed * 1_000_003 + self.finished() + self.failed()
        return samplers.TPESampler(seed=seed, multivariate=True) if self.values.sampler == "tpe" else samplers.RandomSampler(seed)

    def launch(self, batch: Sequence[Any]) -> list[str]:
        """Tell the study how each trial ended; returns the endings."""
        placed: dict[int, list[str]] = {}
        ends: dict[int, str] = {}
        for trial in batch:
            words = [*self.fixed, *(f"{key}={value}" for key, value in trial.params.items())]
            try:
                label = [f"{key}={short(value)}" for key, value in trial.params.items()]
                [placed[trial.number]] = multirun.checked(self.config, [words], self.context.config_loader, label)
            except BadRequest as error:
                trial.set_user_attr("failed", str(error))
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                if not self.finished() and trial.number == 0:
                    raise  # nothing has run, so the request itself is wrong
                print(f"trial {trial.number} cannot run: {error}")
                ends[trial.number] = "failed"
            else:
                self.claim(trial, self.folder_of(placed[trial.number]))
        if placed:
            self.launcher.launch([*placed.values()], initial_job_idx=min(placed))
        if leftovers := wait_for_leftovers([self.folder_of(words) for words in placed.values()]):
            again = {number: words for number, words in placed.items() if self.folder_of(words) in leftovers}
            self.launcher.launch([*again.values()], initial_job_idx=min(again))
        for trial in batch:
            if trial.number in placed:
                ends[trial.number] = self.tell(trial, self.folder_of(placed[trial.number]))
        return [ends[trial.number] for trial in batch]

    def claim(self, trial: Any, folder: Path) -> None:
        trial.set_user_attr("folder", folder.name)
        if self.values.prune:
            said = {"journal": str((self.home / "search.journal").absolute()), "trial": trial._trial_id}
            said |= {"metric": self.values.metric, "prune_after": self.values.prune_after}
            (folder / trials.FILE).write_text(json.dumps(said))

    def tell(self, trial: Any, folder: Path) -> str:
        state = self.optuna.trial.TrialState
        status, value = status_of(folder), trials.best(folder, self.values.metric, self.maximize)
        if status in STOPPED:  # left as running: the next command queues it again
            return status
        if status == "pruned":
            self.study.tell(trial, state=state.PRUNED)
        elif status == "done" and value is not None:
            self.study.tell(trial, value)
        else:
            trial.set_user_attr("failed", status)
            self.study.tell(trial, state=state.FAIL)
            reason = status if status != "done" else f"it has no {self.values.metric}; choose another hydra.sweeper.metric"
            print(f"trial {trial.number} failed ({reason}): {folder}")
            status = "failed"
        return status

    def folder_of(self, overrides: Sequence[str]) -> Path:
        [word] = OverridesParser.create().parse_overrides([overrides[-1]])
        return self.home / str(word.value())

    def write_record(self) -> None:
        """search.json: what `python -m sweeps report` shows of the search, without Optuna."""
        shown = [
            {"number": t.number, "state": t.state.name.lower(), "value": t.value, "params": t.params, **t.user_attrs}
            for t in self.study.get_trials(deepcopy=False)
        ]
        done = [one for one in shown if one["state"] == "complete"]
        best = (max if self.maximize else min)(done, key=lambda one: one["value"], default=None)
        importance = self.importance() if len(done) >= LEAST_FOR_IMPORTANCE else {}
        record = SearchRecord(self.values.metric, self.values.direction, best, shown, importance)
        temporary = self.home / f".{FILE}.tmp"
        temporary.write_text(json.dumps(vars(record), indent=1))
        os.replace(temporary, self.home / FILE)

    def importance(self) -> dict[str, float]:
        """How much each parameter matters for being among the best tenth of the trials (PED-ANOVA)."""
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        try:
            return get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
        except (ValueError, RuntimeError):  # all trials alike, or one value of a parameter
            return {}

    def show(self) -> None:
        from conf.sentences import explain
        from sweeps import report

        try:
            report.show(self.home)
        except Exception as error:  # a fault in the report must not hide how the search ended
            print(explain(error) or repr(error))
