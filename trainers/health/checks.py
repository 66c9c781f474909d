"""Checks before the first step. Each warning is a sentence that names the likely cause and an override to try. (`watch` checks
during training, `audit` checks learning histories, `probes` measures.)

The project grew out of post-mortems of failed trainings; every check here would have ended one of them in its first minute.
`debug=health` runs the checks alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from rich.table import Table
from torch import nn

from envs.data.statistics import Floor, label_entropy, label_shares, repeated_episodes
from envs.data.windows import HistoryCut, Windows
from policies.base import Batch, Policy
from policies.histories import HistoryPolicy
from trainers.health import audit
from trainers.health.probes import FirstPass, Probe, not_finite
from trainers.health.report import Report
from trainers.loop.optim import ScheduleConfig

LARGEST_LAYER = 0.5  # warn if one layer has more than this share of all parameters,
SMALL_MODEL = 5_000_000  # unless there are fewer parameters than this; write-up 000 had 20 to 41 million
OUTPUT_SPREAD = 3.0  # largest healthy standard deviation of untrained outputs
INNER_SPREAD = 10.0  # the same for inner layers; normalised ones stay near 1
OFF_CHANCE = 0.1  # largest relative distance of the first loss from chance
FAR_ABOVE_CHANCE = 10.0  # times chance: a first loss above that has gradients that have to be clipped
COUNTED_SAMPLES = 4096  # windows whose slots are counted
BEHIND_THE_END = 0.6  # warn above this share of plan slots after the episode's end; expert plans of 8 actions have .2 to .4
ONE_LABEL = 0.95  # warn if one action has more than this share: then always choosing it looks like success
NOT_HELD_OUT = 0.5  # warn if more than this share of val episodes are training episodes
LOOK_AT_INPUTS = (
    "encoder=mlp embeds codes instead of reading them as numbers, and policy.encoder.ignore helps to find the input that "
    "causes it"
)
NAMES = 8  # of parameters in one sentence


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


def before_training(
    policy: Policy, batch: Batch, data: Windows, validation: Windows, floor: Floor | None, seed: int, trained: bool = False
) -> Report:
    """Run all checks on one batch and on the data, without changing the policy. `floor` is None for continuous actions.
    `trained`: the weights come from another run, so checks for an untrained policy do not apply."""
    report = Report({"chance_loss": policy.chance_loss(batch)})
    action = data.dataset.spaces.action
    num_actions = int(action.n) if isinstance(action, spaces.Discrete) else None

    def probe() -> Probe:
        return Probe(policy, batch, seed, num_actions)

    _parameters(report, policy)
    _batch(report, batch)
    first = probe().first_pass()
    counted = probe().counts_padding()
    _spread(report, first, trained, policy.remedies())
    _first_loss(report, first.loss, trained, counted)
    _padding(report, data, counted)
    _gradients(report, policy, probe().without_gradient())
    if floor:
        _labels(report, data, floor)
    if isinstance(data.cut, HistoryCut) and floor:
        audit.histories(report, data)
        audit.targets(report, data, data.cut, floor)
        if isinstance(policy, HistoryPolicy):
            audit.compressions(report, policy, data, data.cut)
            audit.dropout(report, policy)
            audit.smoothing_floor(report, policy)
    _held_out(report, data, validation)
    return report


def _parameters(report: Report, policy: Policy) -> None:
    total = report.facts["parameters"] = sum(parameter.numel() for parameter in policy.parameters())
    largest, weight = max(policy.named_parameters(), key=lambda pair: pair[1].numel())
    share, shape = weight.numel() / total, "x".join(map(str, weight.shape))
    measured, warning = f"{largest} ({shape}) holds {share:.0%} of {total:,} parameters", None
    if total > SMALL_MODEL and share > LARGEST_LAYER:
        if largest.startswith("encoder."):
            advice = "most often a flattened feature map in front of a linear layer; try encoder=mlp"
        else:
            advice = "too wide, or fed all frames at once; try a smaller policy.hidden_dim or fewer policy.frames"
        warning = f"{measured}: {advice}"
    report.add("largest layer", measured, warning)


def _batch(report: Report, batch: Batch) -> None:
    bad, warning = ", ".join(not_finite(batch)), None
    if bad:
        warning = (
            f"the first batch holds values that are not finite in {bad}, and every step on such a batch is skipped; the episodes "
            "were recorded that way, so record others (env.data.seed), or leave that part out (policy.encoder.ignore)"
        )
    report.add("finite data", bad or "every value of the first batch is finite", warning)


def _spread(report: Report, first: FirstPass, trained: bool, remedies: Sequence[str] = ()) -> None:
    if not first.spreads:
        report.add("spread of outputs", "not measured: no layer returns a single tensor")
        return
    output = first.spreads[-1]
    report.facts |= {"output_layer": output.layer, "output_spread": output.deviation}
    wide = next((spread for spread in first.spreads if spread.deviation > INNER_SPREAD), None)
    shown = output if output.deviation > OUTPUT_SPREAD or not wide else wide
    measured, warning = f"{shown.layer} has a standard deviation of {shown.deviation:.2g}", None
    if not shown.deviation:
        measured += ": it starts at zero"
    if trained:
        measured += ", with the weights of init_from"
    elif wide or output.deviation > OUTPUT_SPREAD:
        begins = f" (it begins in {wide.layer})" if wide and wide != shown else ""
        advice = f"try {' '.join(remedies)}" if remedies else LOOK_AT_INPUTS
        warning = (
            f"untrained, the {'output' if shown == output else 'inner'} layer {shown.layer} has outputs with a standard "
            f"deviation of {shown.deviation:.1f}{begins}; about 1 is healthy. Inputs or conditioning are not normalised, or the "
            f"output layer does not start near zero; {advice}"
        )
    report.add("spread of outputs", measured, warning)


def _first_loss(report: Report, loss: float, trained: bool, counts_padding: bool) -> None:
    chance = report.facts["chance_loss"]
    report.facts["first_loss"] = loss
    measured, warning = f"{loss:.3f}, chance is {chance:.3f}", None
    if not math.isfinite(loss):
        warning = (
            "the first loss is not finite: a division by an empty mask, or inputs that are not; encoder=mlp and "
            "policy.encoder.ignore tell whether it is the inputs"
        )
    elif trained:
        measured += ", with the weights of init_from"
    elif abs(loss - chance) > OFF_CHANCE * chance:
        padding = ", or the loss counts padding (policy.padding=end)" if counts_padding else ""
        warning = (
            f"the first loss is {loss:.3f}, but a policy that knows nothing has {chance:.3f}: the output layer does not start "
            f"near zero{padding}; debug=overfit shows whether it learns anyway"
        )
    report.add("first loss", measured, warning)


def _padding(report: Report, data: Windows, counted: bool) -> None:
    behind, cut = (round(share, 4) for share in _empty_slots(data))
    report.facts |= {"behind_the_end": behind, "behind_a_deviation": cut}
    measured, warning = f"{behind:.0%} of the action slots lie behind the end", None
    if cut:
        measured += f", {cut:.0%} behind a step that was not the label (env.data.noise, env.data.detours)"
    measured += ", and the loss counts such slots" if counted else ", none counted"
    if counted:
        warning = (
            f"{behind + cut:.0%} of the action slots hold no label, but the loss depends on their contents: repeating one action "
            "then looks like success (write-up 001 had a low loss and solved nothing); try policy.padding=end"
        )
    elif behind > BEHIND_THE_END and isinstance(data.cut, HistoryCut):
        warning = (
            f"{behind:.0%} of the slots lie behind the end of their history: the samples are longer than the histories, and most "
            "of the computation is wasted; try a smaller policy.length, or a larger env.data.episodes_per_history"
        )
    elif behind > BEHIND_THE_END:
        warning = (
            f"{behind:.0%} of the action slots lie behind their episode's end: the plans are longer than the episodes, and most "
            "of the computation is wasted; try a smaller policy.horizon (policy.chunk_size)"
        )
    report.add("padding", measured, warning)


def _empty_slots(data: Windows) -> tuple[float, float]:
    """The shares of action slots behind the end of their episode, and behind an earlier step that deviated from the plan."""
    now = data.fixed_subset(COUNTED_SAMPLES)
    if isinstance(data.cut, HistoryCut):
        return 1 - data.batch(now)["action_mask"].float().mean().item(), 0.0
    taken = now[:, None] + data.cut.action_offsets  # [samples, Ta]
    end = data.dataset.ends[np.searchsorted(data.dataset.ends, now, side="right")]
    behind = (taken >= end[:, None]).mean()
    return float(behind), float((taken > data.cut.bounds[now, 1:]).mean() - behind)


def _gradients(report: Report, policy: Policy, silent: list[str]) -> None:
    measured, warning = "they reach every parameter", None
    if silent:
        measured = f"none reaches {_few(silent)}"
        warning = (
            f"no gradient reaches {_few(silent)}: these parameters are unused with this configuration (policy.encoder.ignore, "
            "policy.frames), or cut off by a detach or a mask; debug=overfit shows whether the others are enough"
        )
    if frozen := [name for name, parameter in policy.named_parameters() if not parameter.requires_grad]:
        measured += f"; frozen, as they do not require any: {_few(frozen)}"
    report.add("gradients", measured, warning)


def _few(names: list[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")


def _labels(report: Report, data: Windows, floor: Floor) -> None:
    shares = label_shares(data.dataset.columns["action"])
    report.facts |= {
        "label_entropy": label_entropy(data.dataset.columns["action"]),
        "label_shares": shares,
        "action_floor": floor.entropy if floor.known else None,
        "action_chance": floor.chance,
        "repeated_samples": floor.repeated,
    }
    common = max(shares)
    warning = None
    if common > ONE_LABEL:
        warning = (
            f"{common:.1%} of the labels are action {shares.index(common)}: always choosing it looks like success; judge by the "
            "return, and record episodes that need the other actions (env.data.noise, another env.id)"
        )
    report.add("label balance", f"the most frequent action, {shares.index(common)}, is {common:.0%} of the labels", warning)
    if isinstance(data.cut, HistoryCut):
        return  # their floor is the entropy of the source, which `audit` checks
    warning = None
    if floor.known and floor.entropy > audit.NEAR_CHANCE * floor.chance:
        warning = (
            f"the policy's observations say almost nothing about the actions: the best possible loss of an action is "
            f"{floor.entropy:.3f}, chance is {floor.chance:.3f}, and no hyper-parameter can get below that; let the policy see "
            "more (policy.encoder.ignore, policy.frames), and check how the episodes were recorded (env.id, env.data.seed)"
        )
    report.add("entropy floor", f"the next action's is {floor} (chance {floor.chance:.3f})", warning)


def _held_out(report: Report, data: Windows, validation: Windows) -> None:
    share = report.facts["val_in_training"] = repeated_episodes(data.dataset, validation.dataset)
    measured, warning = f"{share:.0%} of the val episodes are training episodes, step for step", None
    if share > NOT_HELD_OUT:
        warning = (
            f"{measured}: this environment has too few layouts to hold some out, so val and test scores show memory, not skill; "
            "try an env.id with more layouts"
        )
    elif share:
        measured += "; the final evaluation shows its unseen episodes by themselves too"
    report.add("held-out data", measured, warning)


def clipping(report: Report, grad_clip: float) -> None:
    """Check that gradients are clipped if the first loss is far above chance."""
    far = report.facts["first_loss"] > FAR_ABOVE_CHANCE * report.facts["chance_loss"]
    if not grad_clip and far:
        report.add(
            "clipping",
            "gradients are not clipped",
            "the first loss is far above chance and gradients are not clipped, so the first steps can be so large that training "
            "never recovers: set trainer.grad_clip=1",
        )


def schedule(report: Report, config: ScheduleConfig, max_steps: int, eval_every: int) -> None:
    """Check that the learning-rate schedule can take effect within the budget."""
    usable = (max_steps - 1) // eval_every if eval_every else 0  # validations that are followed by further steps
    warning = None
    if config.warmup >= max_steps:
        warning = (
            f"the warm-up of {config.warmup} steps is no shorter than the whole run of {max_steps}, so the full rate is never "
            "reached: lower trainer.schedule.warmup or raise trainer.max_steps"
        )
    elif config.name == "plateau" and usable <= config.patience + 1:
        warning = (
            f"the plateau schedule waits for more than {config.patience} validations without improvement, but only {usable} come "
            "before the last step: it can never cut the rate; lower trainer.schedule.patience or trainer.eval_every, or use "
            "trainer.schedule.name=cosine"
        )
    report.add("schedule", f"{config.name} over {max_steps} steps, {usable} validations before the last", warning)
