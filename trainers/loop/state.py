"""The numbers of a run that its checkpoints hold (state.json), besides the tensors."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class State:
    data: str  # fingerprint of the training data
    threads: int  # number of CPU threads: convolutions and GRUs round differently with another number
    step: int = 0  # optimiser steps taken
    best_step: int | None = None  # the latest step that is as good as the best (loop/validation.py)
    best: list[float] | None = None  # the highest scores of a validation, the most important first
    bad_in_row: int = 0  # number of last steps that were not finite
    skipped: int = 0  # number of all steps that were not finite
    said: dict[str, str] = field(default_factory=dict)  # the findings of Watch
    loss: float | None = None  # the loss in the last row of metrics
    sums: dict[str, list[float]] = field(default_factory=dict)  # name -> [sum, count] since the last row of metrics
    metrics_offset: int = 0  # length of metrics.jsonl
    metrics_digest: str = ""  # hash of metrics.jsonl
    seconds: float = 0.0  # of training with validations, summed over the run's processes
    step_seconds: float = 0.0  # the part of `seconds` spent in training steps, which samples/s refers to
