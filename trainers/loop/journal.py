"""Records and messages during training: rows of metrics, speeds, and findings."""

from __future__ import annotations

import math
import time
from pathlib import Path

from conf.ranks import here
from trainers.health.bounds import Bounds
from trainers.health.report import Report
from trainers.health.watch import Watch
from trainers.loop.config import Config
from trainers.loop.state import State
from trainers.loop.step import Taken
from trainers.record.records import Records, means, say, write_json

# The results of a validation that the console shows:
SHOWN = ("val/loss", "val/cross_entropy", "val/first_action_loss", "val/excess", "val/success", "val/return")


class Journal:
    def __init__(
        self, config: Config, state: State, bounds: Bounds, report: Report, records: Records, folder: Path, max_steps: int
    ):
        self.config, self.state, self.bounds, self.report, self.records = config, state, bounds, report, records
        self.folder = folder
        self.began = time.perf_counter() - state.seconds
        report.during_training = state.said
        self.watch = Watch(bounds.chance, bounds.floor_of(bounds.plain), max_steps, config.grad_clip, state.said)
        self.words = ""  # for the progress display
        self.timed = state.step, state.step_seconds  # at the last row of metrics
        if state.said:
            self.write_health()

    @property
    def seconds(self) -> float:
        """The time of training with validations, summed over the run's processes."""
        return time.perf_counter() - self.began

    def add(self, step: int, taken: Taken) -> None:
        """Add the result of step `step` (from 1)."""
        if taken.not_finite is None:
            self.state.bad_in_row = 0
            for name, (total, count) in taken.metrics.items():
                sums = self.state.sums.setdefault(name, [0.0, 0.0])
                sums[0] += total
                sums[1] += count
            return
        self.state.bad_in_row += 1
        self.state.skipped += 1
        say(f"step {step}: the {taken.not_finite} is not finite; the step is skipped")
        if sentence := self.watch.skipped(step, taken.not_finite):
            self.warn([sentence])

    def log(self, step: int) -> None:
        """One row of metrics."""
        sums, self.state.sums = self.state.sums, {}
        values = means("train", sums)
        values |= {"train/skipped": self.state.skipped, "train/chance": self.bounds.chance}
        self.bounds.look("train", values)
        if (floor := self.bounds.floor_of(self.bounds.plain)) is not None:
            values["train/floor"] = floor
        self.records.scalars(step, values)
        before, seconds = self.timed
        self.timed = step, self.state.step_seconds
        steps_per_second = (step - before) / max(self.state.step_seconds - seconds, 1e-9)  # since the last row
        speed = {"steps_per_second": steps_per_second, "samples_per_second": steps_per_second * self.config.batch_size}
        self.records.speeds(step, {"speed/" + name: value for name, value in speed.items()})
        self.state.loss = values.get(f"train/{self.bounds.plain}")  # None where every step was skipped
        self.warn(list(self.watch.look(step, values)))
        known = {name: values.get(f"train/{name}", math.nan) for name in ("loss", self.bounds.plain)}
        shown = ", ".join(f"{name} {value:.3f}{self.bounds.beside(name)}" for name, value in known.items())
        self.words = f"{shown}  {speed['samples_per_second']:,.0f} samples/s"

    def validated(self, step: int, values: dict[str, float]) -> None:
        self.bounds.look("val", values)
        if "val/first_action_loss" in values and (floor := self.bounds.floor_of("first_action_loss")) is not None:
            values["val/action_floor"] = floor
        self.records.scalars(step, values)
        shown = [f"{name} {values[name]:.3f}{self.bounds.beside(name.removeprefix('val/'))}" for name in SHOWN if name in values]
        say(f"step {step}: " + ", ".join(shown))

    def warn(self, sentences: list[str]) -> None:
        for sentence in sentences:
            say(f"warning: {sentence}")
        if sentences:
            self.write_health()

    def write_health(self) -> None:
        """Write the report at once, because a run with a warning may soon be killed."""
        if here().rank == 0:
            write_json(self.folder / "health.json", self.report.to_json())
        self.records.health(self.report.to_markdown(), self.report.numbers())
