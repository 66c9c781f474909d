"""The numbers of a run that its checkpoints hold (state.json), beside the tensors."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class State:
    data: str  # fingerprint of the data that it was trained on
    threads: int  # convolutions and GRUs round differently with another number
    step: int = 0  # optimiser steps taken
    best_step: int | None = None
    best: list[float] | None = None  # the scores of the best validation, the most important first
    bad_in_row: int = 0  # steps at the end that were not finite
    skipped: int = 0  # all steps that were not finite
    said: dict[str, str] = field(default_factory=dict)  # what Watch found
    loss: float | None = None  # of the last row of metrics
    sums: dict[str, list[float]] = field(default_factory=dict)  # name -> [sum, count] since the last row of metrics
    metrics_offset: int = 0  # length of metrics.jsonl
    metrics_digest: str = ""  # its hash
    seconds: float = 0.0  # of training, validations included, over all of the run's processes
    step_seconds: float = 0.0  # of those, in steps: what samples/s is counted in
