"""`trainer.*`: the values that every trainer has."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainers.loop.optim import OptimizerConfig, ScheduleConfig

MOST_THREADS = 1024  # more than the cores of any machine; each thread takes memory
PROFILED_WARM_UP = 5  # first steps of a profile, not counted: they allocate memory, choose kernels, and may compile
PROFILED_TRACE = 5  # steps in a profile's trace: enough to see what repeats, few enough to open quickly
PROFILED_LEAST = PROFILED_WARM_UP + 1 + 1 + PROFILED_TRACE  # steps of a whole profile


@dataclass
class Config:
    max_steps: int = 2000  # the budget in optimiser steps
    max_epochs: int = 0  # if above 0: the budget in passes over the data, instead of max_steps
    batch_size: int = 256  # samples of one optimiser step
    accumulate: int = 1  # split the batch into this many parts to save memory; the result is the same except for rounding
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    grad_clip: float = 1.0  # largest gradient norm; 0 for no clipping. Losses are never clipped
    ema: float = 0.999  # decay of the averaged weights, which are the ones that act; 0 for none
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    recompute: bool = False  # keep only the inputs of a network's blocks for the backward pass: less memory, slower steps
    compile: bool = False  # torch.compile; on a CPU it takes about a minute and makes steps some 15 % faster
    capture: str = "auto"  # run a step as one CUDA graph, with the same results: auto (if possible) | on (fail if not) | off
    data_on: str = "auto"  # where the dataset lies in memory: auto (on a GPU, if it fits) | host | device
    deterministic: bool = True  # on a GPU: use kernels that always give the same result; false is faster
    cache_features: bool = False  # freeze the image backbone of init_from, and train on its features, computed once
    # Steps after which the averaged weights go on, the image backbone stays as it is, and the rest trains on its features, which
    # are computed once: further steps cost little. The schedule starts again. 0: never
    freeze_after: int = 0
    threads: int = 0  # CPU threads; 0 leaves PyTorch's choice. It is recorded, because the last bits of results depend on it
    log_every: int = 50  # steps between rows of metrics.jsonl
    eval_every: int = 500  # steps between validations (loss, and success on the val split); 0: only at the end
    eval_episodes: int = 100  # episodes of a validation; 0: loss only
    save_every: int = 500  # steps between checkpoints, besides the one at every validation; 0: only those
    keep_checkpoints: int = 2  # newest checkpoints that stay, besides the best one; 0: all
    bad_steps: int = 5  # non-finite steps in a row that end the run
    overfit: bool = False  # train on one fixed batch and fail unless it is learned (debug=overfit)
    profile: bool = False  # train for max_steps, show where the time goes, and stop (debug=profile)

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "max_steps",
            "max_epochs",
            "threads",
            "eval_every",
            "eval_episodes",
            "save_every",
            "keep_checkpoints",
            "grad_clip",
            "freeze_after",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.max_steps and not self.max_epochs:
            raise ValueError("max_steps and max_epochs are both 0: set one of them")
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads must be at most {MOST_THREADS}, got {self.threads}")
        if self.freeze_after and self.cache_features:
            raise ValueError("cache_features freezes the image backbone from the start: leave it out, or freeze_after")
        if self.eval_episodes > 100_000:
            raise ValueError(f"eval_episodes cannot exceed 100000, got {self.eval_episodes}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size={self.batch_size}, got {self.accumulate}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        if self.capture not in ("auto", "on", "off"):
            raise ValueError(f"capture must be auto, on or off, got {self.capture}")
        if self.data_on not in ("auto", "host", "device"):
            raise ValueError(f"data_on must be auto, host or device, got {self.data_on}")
        if self.recompute and self.compile:
            raise ValueError("recompute cannot be combined with compile: torch.compile decides by itself what it keeps in memory")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision}")
        if self.profile and (self.max_epochs or self.max_steps < PROFILED_LEAST):
            raise ValueError(
                f"max_steps must be at least {PROFILED_LEAST} for a profile, and max_epochs 0, got {self.max_steps} and "
                f"{self.max_epochs}: it takes {PROFILED_WARM_UP} steps to warm up, {PROFILED_TRACE} to trace, and some to time"
            )
