"""Checks before the first step for policies that learn from learning histories.

Write-up 003 trained for 150,000 steps on a loss that could not fall: all its targets lay where the source was still random.
"""

from __future__ import annotations

import math

import numpy as np

from envs.data.statistics import Floor
from envs.data.windows import HistoryCut, Windows
from policies.histories import HistoryPolicy
from trainers.health.report import Report

AUDITED = 512  # samples whose targets are checked
FEW = 30  # fewer histories than this are too few to generalise from; recipes have thousands
EARLY = 0.5  # targets that end before this share of the histories cover only their beginning
MOSTLY = 0.5  # warn if more than this share of the targets has no compressed past: then compression is hardly trained
NEAR_CHANCE = 0.95  # a floor above this share of chance leaves nothing to learn


def histories(report: Report, data: Windows) -> None:
    """Too few histories: the model memorises their tasks."""
    dataset = data.dataset
    count, episodes, wanted = len(dataset.history_ends), len(dataset.ends), dataset.meta["recipe"].get("episodes_per_history", 1)
    sources = dataset.meta["recipe"]["source"]
    report.facts |= {"histories": count, "episodes_per_history": episodes / count}
    warning = None
    if count < FEW:
        warning = (
            f"there {'is one history' if count == 1 else f'are {count} histories'}, each of one task: too few to learn what they "
            f"have in common. env.data.episodes counts the episodes of all histories, and each history has {wanted}: raise it"
        )
    report.add("histories", f"{count:,} of {episodes / count:.0f} episodes, by {sources}", warning)


def targets(report: Report, data: Windows, cut: HistoryCut, floor: Floor) -> None:
    """Which parts of the histories the training targets cover, and how predictable the source is there."""
    step, length = cut.ages(data.fixed_subset(AUDITED))
    chance = report.facts["action_chance"]
    reach, whole = int(step.max()) + 1, int(length.max())
    tenths = np.bincount(step * 10 // length, minlength=10) / len(step)
    report.facts |= {"target_floor": floor.entropy, "target_floor_known": floor.repeated, "target_tenths": tenths.tolist()}
    coverage = " ".join(f"{share:.0%}" for share in tenths)
    told = f" on the {floor.repeated:.0%} whose probability the source reports" if floor.repeated < 1 else ""
    known = f"floor {floor.entropy:.3f}{told}" if floor.repeated else "floor unknown: the source reports no probabilities"
    warning = None
    if floor.known and floor.entropy > NEAR_CHANCE * chance:
        if reach < EARLY * whole:
            warning = (
                f"the training targets lie in the first {reach} of {whole} steps of the histories, where the source is still "
                f"random: the best possible loss on them is {floor.entropy:.3f}, chance is {chance:.3f}, and no hyper-parameter "
                "can help. Sample whole histories: policy.from_start=0, a larger policy.length, or policy.every=3"
            )
        else:
            warning = (
                f"the source is as good as random wherever training looks: the best possible loss is {floor.entropy:.3f}, chance "
                f"is {chance:.3f}, and no hyper-parameter can help; record longer histories (env.data.episodes_per_history) or "
                "those of another learner (env.data.source)"
            )
    where = f"they lie in steps 1 to {reach} of {whole}, by tenths of the histories {coverage}"
    report.add("training targets", f"{known}, chance {chance:.3f}; {where}", warning)


def compressions(report: Report, policy: HistoryPolicy, data: Windows, cut: HistoryCut) -> None:
    """How many times the past of the training targets is compressed."""
    slot = np.nonzero(cut.places(data.fixed_subset(AUDITED))[2])[1]
    depth = policy.compressions(slot)  # [ways, targets]
    if not depth.any():
        return
    shares = [float((depth == number).mean()) for number in range(3)]
    report.facts |= {"targets_by_compressions": [*shares, 1 - sum(shares)], "most_compressions": int(depth.max())}
    counts = ", ".join(f"{share:.0%} {word}" for share, word in zip(shares, ("none", "one", "two"), strict=True))
    measured = f"of the targets, {counts} and {1 - sum(shares):.0%} more; at most {depth.max()}"
    warning = None
    if shares[0] > MOSTLY:
        warning = (
            f"{shares[0]:.0%} of the training targets have no compressed past, so compression is hardly trained: use a larger "
            "policy.length, or shorter policy.blocks"
        )
    report.add("compressions", measured, warning)


def dropout(report: Report, policy: HistoryPolicy) -> None:
    if share := policy.config.dropout:
        report.add(
            "dropout",
            f"{share:g} of what each block adds",
            f"policy.dropout={share:g} slows learning down, and it gains nothing where more histories can be recorded in "
            "seconds: set it to 0, and record more histories (env.data.episodes) if val/loss rises above the training loss",
        )


def smoothing_floor(report: Report, policy: HistoryPolicy) -> None:
    smoothing = policy.config.label_smoothing
    if not smoothing:
        return
    rest = smoothing / policy.actions.values  # the probability that smoothing gives to each token
    sure = 1 - smoothing + rest
    floor = policy.actions.per_action * (-sure * math.log(sure) - (smoothing - rest) * math.log(rest))
    report.facts["smoothing_floor"] = floor
    report.add(
        "label smoothing",
        f"{smoothing:g}: the smoothed loss cannot fall below {floor:.3f}, even where the source is certain",
        f"policy.label_smoothing={smoothing:g} puts a floor of {floor:.3f} under the loss even where the source is certain, and "
        f"it trains the policy to act at random in {smoothing:.0%} of the steps; judge by cross_entropy, which is not smoothed, "
        "or set it to 0",
    )
