"""The training loop over recorded episodes. The loss lives in the policy; nothing here knows which policy it drives.

Everything a step does is a function of (seed, step) and of the state that a checkpoint holds, so a run that was killed and
resumed is bit for bit the run that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conf.errors import BadRequest
from envs.base import Score
from envs.data.statistics import Floor
from envs.data.windows import Windows
from policies.base import Batch, Loss, Policy
from policies.noise import Noise, Purpose, fold
from policies.store import write_tensors
from trainers.health.bounds import Bounds
from trainers.health.report import Report
from trainers.health.watch import Watch
from trainers.loop import checkpoint
from trainers.loop.batches import Batches, flattened, rows_of, to_device
from trainers.loop.optim import Average, OptimizerConfig, Schedule, ScheduleConfig, make_optimizer
from trainers.loop.stop import StopRequest
from trainers.loop.validation import Validation
from trainers.record.profile import LEAST, TRACED, WARM_UP
from trainers.record.records import Records, bar, means, say, write_json

# Of a validation, in the console:
SHOWN = ("val/loss", "val/cross_entropy", "val/first_action_loss", "val/excess", "val/success", "val/return")
SMALLEST_CAP = 1024  # a batch up to this size may repeat the samples of a tiny dataset
OVERFIT_TO = 0.3  # share of the chance loss under which one batch counts as learned


@dataclass
class Config:
    """`trainer.*`"""

    max_steps: int = 2000  # the budget in optimiser steps
    max_epochs: int = 0  # if above 0: the budget in passes over the data, instead of max_steps
    batch_size: int = 256  # samples of one optimiser step
    accumulate: int = 1  # parts the batch is cut into, for memory; the result is the same but for rounding
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    grad_clip: float = 1.0  # largest gradient norm; 0 for no clipping. Losses are never clipped
    ema: float = 0.999  # decay of the averaged weights, which are the ones that act; 0 for none
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    compile: bool = False  # torch.compile; on a CPU a minute of it, for steps some 15 % faster
    threads: int = 0  # CPU threads; 0 leaves PyTorch's choice. Recorded: the last bits depend on it
    log_every: int = 50  # steps between rows of metrics.jsonl
    eval_every: int = 500  # steps between validations (loss, and success on the val split); 0: only at the end
    eval_episodes: int = 100  # episodes of a validation; 0: loss only
    save_every: int = 500  # steps between checkpoints, beside those at every validation; 0: only those
    bad_steps: int = 5  # non-finite steps in a row that end the run
    overfit: bool = False  # train on one fixed batch and fail unless it is learned (debug=overfit)
    profile: bool = False  # train for max_steps to see where their time goes, and stop (debug=profile)

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "max_epochs", "threads", "eval_every", "eval_episodes", "save_every", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.max_steps and not self.max_epochs:
            raise ValueError("max_steps and max_epochs are both 0: give one of them a budget")
        if self.eval_episodes > 100_000:
            raise ValueError(f"eval_episodes cannot exceed 100000, got {self.eval_episodes}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size={self.batch_size}, got {self.accumulate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision}")
        if self.profile and (self.max_epochs or self.max_steps < LEAST):
            raise ValueError(
                f"max_steps must be at least {LEAST} for a profile, and max_epochs 0, got {self.max_steps} and "
                f"{self.max_epochs}: it takes {WARM_UP} steps to warm up, {TRACED} to trace, and some to time"
            )


@dataclass
class Outcome:
    status: str  # done | preempted | diverged | failed (debug=overfit alone)
    step: int
    seconds: float  # of training, validations included, over all of the run's processes


class Offline:
    """`fit()` trains from wherever the run folder's newest checkpoint is."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        data: Windows,
        held_out: Windows,
        *,
        folder: Path,
        seed: int,
        device: torch.device,
        save_policy: Callable[[Path, Policy], None],  # writes what acts, and its configuration, into a checkpoint's folder
        play: Callable[[Policy], Score] | None,  # the val episodes, played by a policy
        make_records: Callable[[int, int], Records],  # (offset into metrics.jsonl, step) -> records
        judged_by: tuple[str, ...] = ("success", "return"),  # what of the played episodes chooses `best`, before the loss
        floor: Floor | None = None,  # entropy of the next action given a window, where it can be counted
    ):
        self.config, self.policy, self.data = config, policy, data
        self.folder, self.seed, self.device = folder, seed, device
        self.bounds = Bounds(policy.window, floor)
        self.report = Report()  # what was found before the first step; findings of the training are added
        self.save_policy, self.make_records = save_policy, make_records
        size = config.batch_size // config.accumulate  # what is known to fit into memory
        self.validation = Validation(held_out, play, judged_by, size, fold(seed, Purpose.VALIDATION), device)
        if config.batch_size > max(len(data), SMALLEST_CAP):
            raise BadRequest(
                f"trainer.batch_size={config.batch_size} exceeds the {len(data)} samples of the data; lower it, or raise "
                "env.data.episodes"
            )
        if config.compile and config.precision == "bf16" and device.type == "cpu":
            raise BadRequest(
                "trainer.compile=true with trainer.precision=bf16 needs a GPU: what PyTorch writes for it on a CPU does not "
                "compile. Leave out one of them"
            )
        self.max_steps = config.max_steps
        if config.max_epochs:
            self.max_steps = math.ceil(config.max_epochs * len(data) / config.batch_size)
        self.model = torch.compile(policy) if config.compile else policy
        self.optimizer = make_optimizer(config.optimizer, policy)
        self.schedule = Schedule(config.schedule, self.max_steps)
        self.average = Average(policy, config.ema) if config.ema else None
        self.batches = Batches(len(data), config.batch_size, seed)
        # Asked once: torch.manual_seed in every step would cost, and without a GPU it keeps a stack trace of each call.
        self.generator = default_generator(device)
        self.saved = -1  # the step of the newest checkpoint
        self.parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.state: dict[str, Any] = {
            "step": 0,
            "best_step": None,
            "best": None,  # the scores that `judged_by` names, and -loss, on the val split
            "bad_in_row": 0,
            "skipped": 0,
            "said": {},  # what Watch found
            "loss": None,  # of the last row of metrics
            "data": data.dataset.fingerprint,
            "sums": {},  # name -> [sum, count] since the last row of metrics
            "metrics_offset": 0,
            "threads": torch.get_num_threads(),
            "seconds": 0.0,
        }

    @property
    def acting(self) -> Policy:
        """The policy that is validated and kept: the average where there is one."""
        return self.average.policy if self.average else self.policy

    # --- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        self.begin()
        config, step = self.config, self.state["step"]
        try:
            with bar("train", self.max_steps) as progress, StopRequest() as stop:
                while step < self.max_steps and not stop.signal and not self.overfitted:
                    words = self.advance(step)
                    step = self.state["step"]
                    progress(step, note=words)
                    if self.state["bad_in_row"] >= config.bad_steps:
                        self.keep_evidence(step - 1)
                        return self.outcome("diverged")
                    last = step == self.max_steps or self.overfitted
                    validates = (last or (config.eval_every and step % config.eval_every == 0)) and not config.overfit
                    if validates:
                        self.validate(step)
                    if last or validates or (config.save_every and step % config.save_every == 0):
                        self.save()
                if stop.signal:
                    self.save()
                    return self.outcome("preempted")
            return self.outcome("done" if not config.overfit or self.learned() else "failed")
        finally:
            self.records.close()

    def begin(self) -> None:
        self.resume()
        self.records = self.make_records(self.state["metrics_offset"], self.state["step"])
        self.began = time.perf_counter() - self.state["seconds"]
        self.bounds.chance = self.policy.chance_loss(self.batch(0))
        said = self.report.during_training = self.state["said"]
        floor = self.bounds.floor_of(self.bounds.plain)
        self.watch = Watch(self.bounds.chance, floor, self.max_steps, self.config.grad_clip, said)
        if said:
            self.write_health()
        self.words = ""
        self.policy.train()

    def advance(self, step: int) -> str:
        """One step and what is recorded of it; returns the words for the progress display."""
        self.step(step)
        self.state["step"] = step + 1
        if (step + 1) % self.config.log_every == 0 or step + 1 == self.max_steps:
            self.words = self.log(step + 1)
        return self.words

    def step(self, step: int) -> None:
        """One optimiser step, or none where the loss or the gradient is not finite."""
        self.generator.manual_seed(fold(self.seed, Purpose.DROPOUT, step))  # dropout draws from PyTorch's own generator
        rate = self.config.optimizer.lr * self.schedule.factor(step)
        self.optimizer.zero_grad(set_to_none=True)
        values, length = self.clip(self.backward(step))
        finite = math.isfinite(values["loss"][0])
        if not (finite and math.isfinite(length)):
            self.state["bad_in_row"] += 1
            self.state["skipped"] += 1
            what = "gradient" if finite else "loss"
            say(f"step {step + 1}: the {what} is not finite; the step is skipped")
            if sentence := self.watch.skipped(step + 1, what):
                say(f"warning: {sentence}")
                self.write_health()
            return
        self.state["bad_in_row"] = 0
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average:
            self.average.update()
        self.add(values | {"grad_norm": (length, 1), "lr": (rate, 1)})

    def backward(self, step: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Gradients of the mean loss (of its sum, where the batch comes in parts), and the sums and counts of all metrics."""
        batch, rows = self.batch(step), torch.arange(self.config.batch_size, device=self.device)
        if self.config.accumulate == 1:  # its count is known before its gradient: no pass over the gradients is needed to scale
            loss = self.loss(batch, rows, step)
            (loss.total / loss.count.clamp(min=1)).backward()
            return loss.metrics | {"loss": (loss.total.detach(), loss.count)}
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        size = self.config.batch_size // self.config.accumulate
        for start in range(0, self.config.batch_size, size):
            part = slice(start, start + size)
            loss = self.loss(rows_of(batch, part), rows[part], step)
            loss.total.backward()
            for name, (value, count) in (loss.metrics | {"loss": (loss.total.detach(), loss.count)}).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
        return sums

    def clip(self, sums: dict[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, tuple[float, float]], float]:
        """Brings the gradients to their final length; returns the metrics as numbers, and the length before clipping."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.config.accumulate > 1:
            torch._foreach_div_(gradients, sums["loss"][1].clamp(min=1))
        tensors = [x.float() for pair in sums.values() for x in pair]
        numbers = torch.stack([*tensors, *torch._foreach_norm(gradients)]).tolist()  # the step's one wait for the device
        values = {name: (numbers[2 * i], numbers[2 * i + 1]) for i, name in enumerate(sums)}
        length = math.hypot(*numbers[len(tensors) :])  # of the whole gradient
        if 0 < self.config.grad_clip < length:
            torch._foreach_mul_(gradients, self.config.grad_clip / length)
        return values, length

    def batch(self, step: int) -> Batch:
        samples = self.batches.samples(0 if self.config.overfit else step)
        return to_device(self.data.batch(samples), self.device)

    def loss(self, batch: Batch, rows: Tensor, step: int) -> Loss:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(batch, Noise(fold(self.seed, Purpose.TRAINING), step, rows))

    # --- what is seen of it ------------------------------------------------------------------------------------------

    def add(self, values: dict[str, tuple[float, float]]) -> None:
        for name, (total, count) in values.items():
            sums = self.state["sums"].setdefault(name, [0.0, 0.0])
            sums[0] += total
            sums[1] += count

    def log(self, step: int) -> str:
        """One row of metrics; returns the words for the progress display."""
        sums, self.state["sums"] = self.state["sums"], {}
        values = means("train", sums)
        values |= {"train/skipped": self.state["skipped"], "train/chance": self.bounds.chance}
        self.bounds.look("train", values)
        if (floor := self.bounds.floor_of(self.bounds.plain)) is not None:
            values["train/floor"] = floor
        self.records.scalars(step, values)
        steps_per_second = step / (time.perf_counter() - self.began)
        speed = {"steps_per_second": steps_per_second, "samples_per_second": steps_per_second * self.config.batch_size}
        self.records.speeds(step, {"speed/" + name: value for name, value in speed.items()})
        self.state["loss"] = values.get("train/loss", math.nan)
        if found := list(self.watch.look(step, values)):
            for sentence in found:
                say(f"warning: {sentence}")
            self.write_health()
        known = {name: values.get(f"train/{name}", math.nan) for name in ("loss", self.bounds.plain)}
        shown = ", ".join(f"{name} {value:.3f}{self.bounds.beside(name)}" for name, value in known.items())
        return f"{shown}  {speed['samples_per_second']:,.0f} samples/s"

    def write_health(self) -> None:
        """At once: a run that was warned is the one most likely to be killed."""
        write_json(self.folder / "health.json", self.report.to_json())
        self.records.health(self.report.to_markdown(), self.report.numbers())

    def validate(self, step: int) -> None:
        """Measures the acting weights, tells the schedule, and remembers the best."""
        self.policy.eval()
        values = self.validation.measure(self.acting)
        self.policy.train()
        self.bounds.look("val", values)
        if "val/first_action_loss" in values and (floor := self.bounds.floor_of("first_action_loss")) is not None:
            values["val/action_floor"] = floor
        self.schedule.observe(values["val/loss"])
        self.records.scalars(step, values)
        score = self.validation.score(values)
        if self.state["best"] is None or score > self.state["best"]:
            self.state.update(best=score, best_step=step)
        shown = [f"{name} {values[name]:.3f}{self.bounds.beside(name.removeprefix('val/'))}" for name in SHOWN if name in values]
        say(f"step {step}: " + ", ".join(shown))

    @property
    def overfitted(self) -> bool:
        """`overfit`: whether the one batch is learned, as far as the last row of metrics tells."""
        return self.config.overfit and self.state["loss"] is not None and self.state["loss"] < OVERFIT_TO * self.bounds.chance

    def learned(self) -> bool:
        """Says whether the one batch was learned, and in how many steps."""
        limit, learned = OVERFIT_TO * self.bounds.chance, self.overfitted
        verdict = "learned" if learned else "NOT learned: the policy, its loss or the learning rate is at fault, not the data"
        say(f"one batch, {self.state['step']} steps: loss {self.state['loss']:.4f}, to be below {limit:.4f}; {verdict}")
        return learned

    def outcome(self, status: str) -> Outcome:
        return Outcome(status, self.state["step"], time.perf_counter() - self.began)

    # --- saving and going on -----------------------------------------------------------------------------------------

    def save(self) -> None:
        if self.state["step"] == self.saved:
            return
        self.saved = self.state["step"]
        self.state["metrics_offset"] = self.records.flush()
        self.state["seconds"] = time.perf_counter() - self.began
        tensors = {f"weight/{name}": value for name, value in self.policy.state_dict().items()}
        names = [name for name, _ in self.policy.named_parameters()]
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{names[index]}/{key}": value for key, value in moments.items()}
        average = self.average.count if self.average else 0
        state = {**self.state, "schedule": self.schedule.state, "average_count": average}
        root = self.folder / "checkpoints"
        checkpoint.save(root, self.state["step"], lambda folder: self.save_policy(folder, self.acting), tensors, state)

    def resume(self) -> None:
        """Take up the newest whole checkpoint of the run folder, if there is one."""
        found = checkpoint.newest(self.folder / "checkpoints", say)
        if found is None:
            return
        state = dict(found.state)
        if state["data"] != self.state["data"]:
            raise BadRequest(
                "the data is not the data that this run was trained on so far (another version of the environment?); "
                "start again with another hydra.run.dir, and init_from=... to keep the weights"
            )
        self.saved = state["step"]
        self.schedule.state = state.pop("schedule")
        if self.average:
            self.average.count = state.pop("average_count")
            self.average.policy.load_state_dict(checkpoint.acting_weights(found.folder))
        self.state = state
        torch.set_num_threads(state["threads"])  # convolutions and GRUs round differently with another number
        weights: dict[str, Tensor] = {}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in found.tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "weight":
                weights[rest] = value
            else:
                parameter, _, key = rest.rpartition("/")
                moments.setdefault(parameter, {})[key] = value
        self.policy.load_state_dict(weights)
        indexed = {i: moments[name] for i, (name, _) in enumerate(self.policy.named_parameters()) if name in moments}
        self.optimizer.load_state_dict({"state": indexed, "param_groups": self.optimizer.state_dict()["param_groups"]})
        say(f"resumed from {found.folder.name}, {self.max_steps - state['step']} steps to go")

    def keep_evidence(self, step: int) -> None:
        """What a diverged run leaves behind: the batch that broke it and the weights it broke on."""
        folder = self.folder / "diverged"
        folder.mkdir(exist_ok=True)
        write_tensors(folder / "batch.safetensors", flattened(self.batch(step)))
        write_tensors(folder / "weights.safetensors", self.policy.state_dict())


def default_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[device.index or 0]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
