"""The contract of a trainer, and the loop that all trainers share.

A trainer is one file in `trainers/` with a dataclass `Config` (derived from `trainers.loop.config.Config`) and a subclass of
`Trainer` that makes the source of its batches. A run that was killed and resumed is bit for bit the run that was not, because a
step depends only on (seed, step) and on state that is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from conf.errors import BadRequest
from conf.ranks import here
from envs.base import Family, Score
from envs.data.statistics import Floor
from envs.data.windows import Windows
from policies.base import Batch, Policy
from policies.noise import Purpose, fold
from policies.store import write_tensors
from trainers.health.bounds import Bounds
from trainers.health.report import Report
from trainers.loop import saving
from trainers.loop.batches import flattened
from trainers.loop.capture import obstacle
from trainers.loop.config import Config
from trainers.loop.journal import Journal
from trainers.loop.processes import any_of_all, copy_from_first, first_before_others
from trainers.loop.source import Source
from trainers.loop.state import State
from trainers.loop.step import Step
from trainers.loop.stop import StopRequest
from trainers.loop.validation import Validation
from trainers.record.records import Records, bar, say

Hopeless = Callable[[int, Mapping[str, float]], bool]  # (step, values of a validation) -> whether to stop the run

ASKED_EVERY = 5  # steps between two questions among several processes whether one of them was asked to stop
SMALLEST_CAP = 1024  # a batch of up to this size may repeat the samples of a tiny dataset
OVERFIT_TO = 0.3  # a batch counts as learned when its loss is below this share of the chance loss


@dataclass
class Outcome:
    status: str  # done | preempted | diverged | pruned (by a search) | failed (debug=overfit only)
    step: int
    seconds: float  # of training with validations, summed over the run's processes
    step_seconds: float  # the part of `seconds` spent in training steps


@dataclass(frozen=True)
class Run:
    """What a trainer knows about its run."""

    folder: Path
    seed: int
    device: torch.device
    save_policy: Callable[[Path, Policy], None]  # writes a policy and its configuration to a checkpoint's folder
    make_records: Callable[[int, int, str], Records]  # (offset into metrics.jsonl, step, hash up to there) -> records
    play: Callable[[Policy], Score] | None = None  # lets a policy play the val episodes
    judged_by: tuple[str, ...] = ("success", "return")  # the scores that choose `best`, the most important first; then the loss
    hopeless: Hopeless | None = None  # called at each validation: lets a search stop the run
    family: Family | None = None  # for trainers that play
    # (policy, windows, folder for the features: data_dir unless given): freezes the policy's image backbone, and returns the
    # windows with its features in place of the images
    freeze: Callable[..., list[Windows]] | None = None
    floor: Floor | None = None  # entropy of the next action given a window, where it is known


class Trainer(ABC):
    """`fit()` trains, starting from the newest checkpoint in the run folder if there is one."""

    recorded: ClassVar[bool] = False  # whether all data exist before the first step, as several runs in one process need

    def __init__(self, config: Config, policy: Policy, data: Windows, held_out: Windows, run: Run):
        self.config, self.policy, self.data, self.run = config, policy, data, run
        self._refuse()
        self.max_steps = config.max_steps
        if config.max_epochs:
            self.max_steps = math.ceil(config.max_epochs * len(data) / config.batch_size)
        self.source = self.make_source()
        self.step = Step(config, policy, self.source, self.max_steps, run.seed, run.device)
        size = config.batch_size // config.accumulate  # a batch of this size is known to fit into memory
        self.validation = Validation(held_out, run.play, run.judged_by, size, fold(run.seed, Purpose.VALIDATION), run.device)
        self.bounds = Bounds(policy.window, run.floor)
        self.report = Report()  # findings from before the first step; those during training are added
        self.state = State(self.source.fingerprint, torch.get_num_threads())
        self.saved = -1  # the step of the newest checkpoint
        self.frozen = False  # whether the backbone was frozen on the way
        self.pruned = False  # whether a search stopped the run

    @classmethod
    def accepts(cls, config: Any, family: Family, policy: type[Policy]) -> str | None:
        """A sentence if it cannot train such a policy in this environment, else None."""
        return None

    @abstractmethod
    def make_source(self) -> Source:
        """The source of the batches."""

    def _refuse(self) -> None:
        config, samples = self.config, len(self.data)
        if config.batch_size > max(samples, SMALLEST_CAP):
            raise BadRequest(
                f"trainer.batch_size={config.batch_size} exceeds the {samples} samples of the data; lower it, or raise "
                "env.data.episodes"
            )
        if config.capture == "on" and (why := obstacle(config, self.run.device)):
            raise BadRequest(f"trainer.capture=on is not possible: {why}; leave it out")
        if config.compile and config.precision == "bf16" and self.run.device.type == "cpu":
            raise BadRequest(
                "trainer.compile=true with trainer.precision=bf16 needs a GPU: the code that PyTorch generates for a CPU does "
                "not compile. Leave out one of them"
            )

    # --- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        self.begin()
        try:
            with bar("train", self.max_steps) as progress, StopRequest() as stop:
                while not self.over and not self.asked_to_stop(stop):
                    self.advance()
                    progress(self.state.step, note=self.journal.words)
                    self.validate_and_save()
                return self.end(any_of_all(stop.signal is not None))
        finally:
            self.journal.records.close()

    def asked_to_stop(self, stop: StopRequest) -> bool:
        """Whether a signal has come, to any of the processes: they ask each other every few steps."""
        if not here().alone and self.state.step % ASKED_EVERY:
            return False
        return any_of_all(stop.signal is not None)

    def end(self, stopped: bool) -> Outcome:
        """What became of the training, with a checkpoint if a signal has stopped it."""
        self.catch_up()
        if self.diverged:
            self.keep_evidence(self.state.step - 1)
            return self.outcome("diverged")
        if stopped:
            self.save()
            return self.outcome("preempted")
        if self.pruned:
            return self.outcome("pruned")
        return self.outcome("done" if not self.config.overfit or self.learned() else "failed")

    def begin(self) -> None:
        """Load the newest checkpoint, if there is one, and open the records."""
        with first_before_others():  # it mends what a kill has left
            found = saving.resume(self.checkpoints, self.state.data, self.step)
        copy_from_first([*self.policy.state_dict().values(), *self.step.acting.state_dict().values()])
        if found:
            self.state, self.saved = found, found.step
            say(f"resumed from step-{found.step}, {self.max_steps - found.step} steps to go")
        records = self.run.make_records(self.state.metrics_offset, self.state.step, self.state.metrics_digest)
        self.bounds.chance = self.policy.chance_loss(self.batch(0))
        self.journal = Journal(self.config, self.state, self.bounds, self.report, records, self.run.folder, self.max_steps)
        self.policy.train()

    def advance(self) -> None:
        """Take one step and record it."""
        step = self.state.step
        if 0 < self.config.freeze_after <= step and not self.frozen:
            self.freeze()
        if added := self.source.prepare(0 if self.config.overfit else step, self.step.acting):
            self.journal.records.scalars(step, added)
        began = time.perf_counter()
        self.step.take(self.source.inputs(0 if self.config.overfit else step), step)
        self.taken(time.perf_counter() - began)

    def freeze(self) -> None:
        """From here on, train on the features of the image backbone as it is (trainer.freeze_after)."""
        assert self.run.freeze is not None
        self.frozen = True
        if self.state.step == self.config.freeze_after and self.step.average:  # a resumed run has done that
            self.policy.load_state_dict(self.step.average.policy.state_dict())
        self.data, self.validation.windows = self.run.freeze(self.policy, [self.data, self.validation.windows])
        self.source = self.step.source = self.make_source()

    def taken(self, seconds: float) -> None:
        """Counts a step, and records what it did where that is due."""
        step = self.state.step
        self.state.step_seconds += seconds
        self.state.step = step + 1
        logs = self.state.step % self.config.log_every == 0 or self.state.step == self.max_steps
        if logs or len(self.step.rates) == self.step.most_pending:
            self.catch_up()
        if logs and self.state.step == step + 1:
            self.journal.log(self.state.step)

    def catch_up(self) -> None:
        """Fetch the results of the last steps from the device. Steps after a divergence changed nothing, so they do not count."""
        first, began = self.state.step - len(self.step.rates), time.perf_counter()
        fetched = self.step.fetch()  # waits for the device
        self.state.step_seconds += time.perf_counter() - began
        for step, taken in enumerate(fetched, start=first + 1):
            self.journal.add(step, taken)
            if self.diverged:
                self.state.step = step
                return

    @property
    def over(self) -> bool:
        return self.state.step >= self.max_steps or self.overfitted or self.diverged or self.pruned

    @property
    def diverged(self) -> bool:
        return self.state.bad_in_row >= self.config.bad_steps

    def batch(self, step: int) -> Batch:
        return self.source.batch(0 if self.config.overfit else step)

    def validate_and_save(self) -> None:
        """Validate and save if they are due after the step that was just taken."""
        config, step = self.config, self.state.step
        last = step == self.max_steps or self.overfitted
        validates = (last or (config.eval_every and step % config.eval_every == 0)) and not config.overfit
        saves = last or validates or (config.save_every and step % config.save_every == 0)
        if validates or saves:
            self.catch_up()
        if self.diverged:
            return
        if validates:
            self.validate()
        if saves:
            self.save()

    def validate(self) -> None:
        """Measure the acting weights, tell the schedule, and remember the best step."""
        self.policy.eval()
        values = self.validation.measure(self.step.acting)
        self.policy.train()
        self.step.schedule.observe(values["val/loss"])
        self.journal.validated(self.state.step, values)
        score = self.validation.score(values)
        self.state.best = max(score, self.state.best or score)
        if self.validation.as_good(score, self.state.best):
            self.state.best_step = self.state.step
        if self.run.hopeless is not None and self.run.hopeless(self.state.step, values):
            self.pruned = self.state.step < self.max_steps

    def outcome(self, status: str) -> Outcome:
        return Outcome(status, self.state.step, self.journal.seconds, self.state.step_seconds)

    # --- debug=overfit -----------------------------------------------------------------------------------------------

    @property
    def overfitted(self) -> bool:
        """With `overfit`: whether the batch is learned, by the last row of metrics."""
        return self.config.overfit and self.state.loss is not None and self.state.loss < OVERFIT_TO * self.bounds.chance

    def learned(self) -> bool:
        """Report whether the batch was learned, and in how many steps."""
        limit, learned = OVERFIT_TO * self.bounds.chance, self.overfitted
        verdict = "learned" if learned else "NOT learned: look at the policy, its loss and the learning rate, not at the data"
        loss = math.nan if self.state.loss is None else self.state.loss
        say(f"one batch, {self.state.step} steps: loss {loss:.4f}, must be below {limit:.4f}; {verdict}")
        return learned

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.run.folder / "checkpoints"

    def save(self) -> None:
        self.catch_up()
        if self.state.step == self.saved:
            return
        self.saved = self.state.step
        with first_before_others():
            if here().rank == 0:
                self._write()

    def _write(self) -> None:
        self.state.metrics_offset, self.state.metrics_digest = self.journal.records.flush(), self.journal.records.digest
        self.state.seconds = self.journal.seconds
        saving.save(self.checkpoints, self.state, self.step, self.run.save_policy, self.config.keep_checkpoints)

    def keep_evidence(self, step: int) -> None:
        """Keep the batch on which the run diverged (with several processes: the share of the first), and its weights."""
        if here().rank:
            return
        folder = self.run.folder / "diverged"
        folder.mkdir(exist_ok=True)
        write_tensors(folder / "batch.safetensors", flattened(self.batch(step)))
        write_tensors(folder / "weights.safetensors", self.policy.state_dict())
