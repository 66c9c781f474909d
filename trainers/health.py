"""Is this run worth its time? Checks before the first step and during training; each finding is a sentence that names the
likely cause and the override to try.

The project grew out of post-mortems of failed trainings; every check here would have ended one of them in its first minute.
`debug=health` runs the checks alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from torch import nn

from envs.data.statistics import Floor, label_shares, repeated_episodes
from envs.data.windows import HistoryCut, Windows
from policies.base import Batch, Policy
from trainers.optim import ScheduleConfig
from trainers.probes import Probe, not_finite

LARGEST_LAYER = 0.5  # share of all parameters above which one layer is worth a sentence
SMALL_MODEL = 100_000  # parameters below which nobody minds
OUTPUT_SPREAD = 3.0  # standard deviation of untrained outputs: above it a policy is sure of nonsense
INNER_SPREAD = 10.0  # of any layer on the way: normalised ones stay near 1
OFF_CHANCE = 0.1  # relative distance of the first loss from chance
BEHIND_THE_END = 0.6  # share of plan slots after their episode's end; expert plans at horizon 8 have .2 to .4
ONE_LABEL = 0.95  # share of the most frequent action, above which always answering it looks like success
NEAR_CHANCE = 0.95  # of chance: a floor above it leaves nothing to learn
NOT_HELD_OUT = 0.5  # share of val episodes that are training episodes
AUDITED = 512  # samples whose targets are looked at
EARLY = 0.5  # share of the histories below which targets have only seen their beginning
REPEATED = 0.5  # share of samples whose window occurs more than once, below which their entropy cannot be counted
STILL_AT_CHANCE = 0.98
CHANCE_AFTER = 200  # steps after which a loss at chance is no longer a slow start
VANISHED = 1e-6  # gradient norm
EXPLODED = 100.0  # times trainer.grad_clip


@dataclass
class Finding:
    check: str
    measured: str
    warning: str | None = None  # what is wrong, why most often, and the override to try


@dataclass
class Report:
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        return [finding.warning for finding in self.findings if finding.warning]

    def add(self, check: str, measured: str, wrong: bool, warning: str) -> None:
        self.findings.append(Finding(check, measured, warning if wrong else None))

    def to_json(self) -> dict[str, Any]:
        return {"facts": self.facts, "checks": [vars(finding) for finding in self.findings], "warnings": self.warnings}

    def numbers(self) -> dict[str, float]:
        """Those facts that are a number."""
        return {name: value for name, value in self.facts.items() if isinstance(value, (int, float))} | {
            "warnings": len(self.warnings)
        }

    def to_markdown(self) -> str:
        rows = [f"| {f.check} | {'look' if f.warning else 'ok'} | {f.measured} |" for f in self.findings]
        warnings = "\n".join(f"- {warning}" for warning in self.warnings)
        return "\n".join(["| check | | measured |", "|---|---|---|", *rows, "", warnings])

    def table(self) -> Table:
        shown = Table(title=f"{len(self.findings)} checks, {len(self.warnings)} with a warning", title_justify="left")
        for name in ("check", "", "measured"):
            shown.add_column(name)
        for finding in self.findings:
            shown.add_row(finding.check, "[red]look[/]" if finding.warning else "[green]ok[/]", finding.measured)
        return shown


def parameter_table(policy: nn.Module) -> Table:
    total = sum(parameter.numel() for parameter in policy.parameters())
    table = Table(title=f"{type(policy).__name__}: {total:,} parameters", title_justify="left")
    for name, side in (("module", "left"), ("parameters", "right"), ("share", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    own = sum(parameter.numel() for parameter in policy.parameters(recurse=False))
    rows = [(name, sum(p.numel() for p in child.parameters())) for name, child in policy.named_children()]
    for name, count in [*rows, ("(its own)", own)]:
        if count:
            table.add_row(name, f"{count:,}", f"{count / total:.1%}")
    return table


# --- before the first step -------------------------------------------------------------------------------------------


def before_training(policy: Policy, batch: Batch, data: Windows, validation: Windows, floor: Floor | None, seed: int) -> Report:
    """On one batch and what the data say of themselves, without changing the policy. `floor` is None for continuous actions."""
    report = Report({"chance_loss": policy.chance_loss(batch)})
    _parameters(report, policy)
    _batch(report, batch)
    _first_loss(report, policy, batch, seed)
    _padding(report, policy, batch, seed)
    _gradients(report, policy, batch, seed)
    if floor:
        _labels(report, data, floor)
    if isinstance(data.cut, HistoryCut) and floor:
        _targets(report, data, data.cut, floor)
        _smoothing(report, policy)
    _held_out(report, data, validation)
    return report


def _parameters(report: Report, policy: Policy) -> None:
    total = report.facts["parameters"] = sum(parameter.numel() for parameter in policy.parameters())
    largest, weight = max(policy.named_parameters(), key=lambda pair: pair[1].numel())
    share, shape = weight.numel() / total, "x".join(map(str, weight.shape))
    report.add(
        "largest layer",
        f"{largest} ({shape}) holds {share:.0%} of {total:,} parameters",
        total > SMALL_MODEL and share > LARGEST_LAYER,
        f"{largest} ({shape}) holds {share:.0%} of all {total:,} parameters: most often a flattened feature map in front of a "
        "linear layer; try encoder=mlp or a smaller width",
    )


def _batch(report: Report, batch: Batch) -> None:
    bad = not_finite(batch)
    report.add(
        "finite data",
        ", ".join(bad) or "every value of the first batch is finite",
        bool(bad),
        f"the first batch holds values that are not finite in {', '.join(bad)}: every step on such a batch is skipped; the "
        "episodes were recorded that way, so record them again (env.data.seed, or delete their folder)",
    )


def _first_loss(report: Report, policy: Policy, batch: Batch, seed: int) -> None:
    first, chance = Probe(policy, batch, seed).first_pass(), report.facts["chance_loss"]
    output = first.spreads[-1]
    report.facts |= {"first_loss": first.loss, "output_layer": output.layer, "output_spread": output.deviation}
    wide = next((spread for spread in first.spreads if spread.deviation > INNER_SPREAD), None)
    shown = output if output.deviation > OUTPUT_SPREAD or not wide else wide
    begins = f" (it begins in {wide.layer})" if wide and wide != shown else ""
    report.add(
        "spread of outputs",
        f"{shown.layer} has a standard deviation of {shown.deviation:.2g}",
        output.deviation > OUTPUT_SPREAD or wide is not None,
        f"untrained, the {'output' if shown == output else 'inner'} layer {shown.layer} puts out a standard deviation of "
        f"{shown.deviation:.1f}{begins}, where about 1 is healthy: inputs or conditioning are not normalised, or the output "
        "layer does not start near zero",
    )
    finite = math.isfinite(first.loss)
    report.add(
        "first loss",
        f"{first.loss:.3f}, chance is {chance:.3f}",
        not finite or abs(first.loss - chance) > OFF_CHANCE * chance,
        f"the first loss is {first.loss:.3f}, a policy that knows nothing has {chance:.3f}: an output layer that does not start "
        "near zero, or a loss that counts padding"
        if finite
        else "the first loss is not finite: look for a division by an empty mask or unnormalised inputs",
    )


def _padding(report: Report, policy: Policy, batch: Batch, seed: int) -> None:
    behind = report.facts["behind_the_end"] = 1 - batch["action_mask"].float().mean().item()
    counted = Probe(policy, batch, seed).counts_padding()
    report.add(
        "padding",
        f"{behind:.0%} of the action slots lie behind the end, {'and the loss counts them' if counted else 'none counted'}",
        counted or behind > BEHIND_THE_END,
        f"{behind:.0%} of the action slots lie behind their episode's end and hold no label, yet the loss changes with what "
        "stands in them: repeating one action then looks like success (write-up 001 had a low loss and solved nothing); try "
        "policy.padding=end"
        if counted
        else f"{behind:.0%} of the action slots lie behind their episode's end: the plans are longer than the episodes, and most "
        "of the computation is spent on nothing; try a smaller policy.horizon",
    )


def _gradients(report: Report, policy: Policy, batch: Batch, seed: int) -> None:
    silent = Probe(policy, batch, seed).without_gradient()
    report.add(
        "gradients",
        f"none reaches {', '.join(silent)}" if silent else "they reach every parameter",
        bool(silent),
        f"no gradient reaches {', '.join(silent)}: these parameters are unused with this configuration, or cut off by a "
        "detach or a mask",
    )


def _labels(report: Report, data: Windows, floor: Floor) -> None:
    shares = label_shares(data.dataset.columns["action"])
    chance = math.log(data.dataset.spaces.action.n)  # type: ignore[attr-defined]
    report.facts |= {
        "labels": data.dataset.meta["action_entropy"],
        "label_shares": shares,
        "action_floor": vars(floor),
        "action_chance": chance,
    }
    common = max(shares)
    report.add(
        "label balance",
        f"the most frequent action, {shares.index(common)}, is {common:.0%} of the labels",
        common > ONE_LABEL,
        f"{common:.1%} of the labels are action {shares.index(common)}: always answering it looks like success; judge by the "
        "return, and record episodes that need the other actions (env.data.noise, another env.id)",
    )
    if isinstance(data.cut, HistoryCut):
        return  # their floor is the source's own: `_targets`
    known = floor.repeated >= REPEATED
    report.add(
        "entropy floor",
        f"{floor.entropy:.3f} for the next action given what is seen (chance {chance:.3f})"
        if known
        else f"not countable: only {floor.repeated:.0%} of the samples show what another one shows",
        known and floor.entropy > NEAR_CHANCE * chance,
        f"what the policy sees says nearly nothing about the actions: the best possible loss of an action is "
        f"{floor.entropy:.3f}, chance is {chance:.3f}, and no hyper-parameter can go below that; look at which samples are "
        "drawn, and at how the episodes were recorded (env.data.source)",
    )


def _targets(report: Report, data: Windows, cut: HistoryCut, floor: Floor) -> None:
    """Which parts of the histories training asks about, and what the source itself knew there."""
    samples = np.linspace(0, len(cut) - 1, min(AUDITED, len(cut))).astype(np.int64)
    step, length = cut.ages(samples)
    chance = report.facts["action_chance"]
    reach, whole = int(step.max()) + 1, int(length.max())
    tenths = np.bincount(step * 10 // length, minlength=10) / len(step)
    report.facts |= {"target_floor": floor.entropy, "target_floor_known": floor.repeated, "target_tenths": tenths.tolist()}
    coverage = " ".join(f"{share:.0%}" for share in tenths)
    told = f" on the {floor.repeated:.0%} whose probability the source told" if floor.repeated < 1 else ""
    known = f"floor {floor.entropy:.3f}{told}" if floor.repeated else "floor unknown: the source does not tell its probabilities"
    early = reach < EARLY * whole
    report.add(
        "training targets",
        f"{known}, chance {chance:.3f}; they lie in steps 1 to {reach} of {whole}, by tenths of the histories {coverage}",
        floor.repeated >= REPEATED and floor.entropy > NEAR_CHANCE * chance,
        f"the training targets lie in the first {reach} of {whole} steps of the histories, where the source is still random: the "
        f"best possible loss on them is {floor.entropy:.3f}, chance is {chance:.3f}, and no hyper-parameter can help. Sample "
        "whole histories: policy.from_start=0, a larger policy.length, or policy.every=3"
        if early
        else f"the source is as good as random wherever training looks: the best possible loss is {floor.entropy:.3f}, chance is "
        f"{chance:.3f}, and no hyper-parameter can help; record longer histories (env.data.episodes_per_history) or those of "
        "another learner (env.data.source)",
    )


def _smoothing(report: Report, policy: Policy) -> None:
    smoothing, chance = getattr(getattr(policy, "config", None), "label_smoothing", 0.0), report.facts["action_chance"]
    if not smoothing:
        return
    rest = smoothing / round(math.exp(chance))  # what each of the actions is given
    sure = 1 - smoothing + rest
    floor = -sure * math.log(sure) - (smoothing - rest) * math.log(rest)
    report.facts["smoothing_floor"] = floor
    report.add(
        "label smoothing",
        f"{smoothing:g}: the smoothed loss cannot go below {floor:.3f}, however sure the source is",
        True,
        f"policy.label_smoothing={smoothing:g} puts a floor of its own, {floor:.3f}, under the loss even where the source is "
        f"certain, and the policy that it asks for acts at random in {smoothing:.0%} of the steps for ever; judge by "
        "cross_entropy, which is not smoothed, or set it to 0",
    )


def _held_out(report: Report, data: Windows, validation: Windows) -> None:
    share = report.facts["val_in_training"] = repeated_episodes(data.dataset, validation.dataset)
    report.add(
        "held-out data",
        f"{share:.0%} of the val episodes are training episodes, step for step",
        share > NOT_HELD_OUT,
        f"{share:.0%} of the val episodes are training episodes, step for step: this environment has too few layouts to hold "
        "any out, so val and test scores show memory, not skill; try an env.id with more of them",
    )


def schedule(report: Report, config: ScheduleConfig, max_steps: int, eval_every: int) -> None:
    """A learning-rate schedule that cannot act within the budget."""
    validations = 1 + (max_steps - 1) // eval_every if eval_every else 1
    all_warmup = config.warmup >= max_steps
    report.add(
        "schedule",
        f"{config.name} over {max_steps} steps, {validations} validations",
        all_warmup or (config.name == "plateau" and validations <= config.patience + 1),
        f"the warm-up of {config.warmup} steps is as long as the whole run of {max_steps}, which never reaches its rate: lower "
        "trainer.schedule.warmup or raise trainer.max_steps"
        if all_warmup
        else f"schedule=plateau waits for more than {config.patience} validations without improvement, but the run has only "
        f"{validations}: it can never cut the rate. Lower trainer.schedule.patience or trainer.eval_every, or use cosine",
    )


# --- during training -------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Looks at every row of training metrics. `said` holds what was said already; it belongs into the checkpoint."""

    chance: float
    floor: Floor | None  # of the loss itself, where it is that of the next action alone
    max_steps: int
    grad_clip: float
    said: list[str] = field(default_factory=list)

    def look(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """New findings in the row `values` of means since the row before."""
        for name, sentence in (
            ("chance", self._still_at_chance(step, values["train/loss"])),
            ("vanished", self._vanished(step, values["train/grad_norm"])),
            ("exploded", self._exploded(step, values["train/grad_norm"])),
        ):
            if sentence and name not in self.said:
                self.said.append(name)
                yield sentence

    def _still_at_chance(self, step: int, loss: float) -> str | None:
        if step < max(CHANCE_AFTER, self.max_steps // 10) or loss < STILL_AT_CHANCE * self.chance:
            return None
        bottom = self.floor.entropy if self.floor and self.floor.repeated >= REPEATED else None
        if bottom is not None and bottom > STILL_AT_CHANCE * self.chance:
            return None  # nothing is there to be learned, and that was said before training
        known = "" if bottom is None else f", while the data's own floor is about {bottom:.3f}"
        return (
            f"after {step} steps the loss is {loss:.3f}, still at chance ({self.chance:.3f}){known}: the learning rate is too "
            "low or too high (trainer.optimizer.lr), or the policy does not see what the actions depend on; debug=overfit tells"
        )

    def _vanished(self, step: int, norm: float) -> str | None:
        if not norm < VANISHED:
            return None
        return (
            f"at step {step} the gradient's norm is {norm:.1e}: nothing is being learned any more; either everything is learned "
            "(trainer.max_steps is more than enough), or a saturated layer holds the gradients back (trainer.optimizer.lr)"
        )

    def _exploded(self, step: int, norm: float) -> str | None:
        if not 0 < self.grad_clip * EXPLODED < norm:
            return None
        return (
            f"at step {step} the gradient's norm is {norm:.1e}, {norm / self.grad_clip:.0f} times trainer.grad_clip: each step "
            "keeps its direction alone; lower trainer.optimizer.lr, or look for inputs that are not normalised (debug=health)"
        )
