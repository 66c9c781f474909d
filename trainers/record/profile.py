"""`debug=profile`: where the time of a training step goes, as a table of its parts, a table of operators and a trace.

After a warm-up there are three stages: normal steps, for the true speed; steps whose parts are timed; and steps under PyTorch's
profiler, which gives the most detail and slows most. The loop has no code for this, since that would cost every step
microseconds. Instead, the functions that it calls are wrapped here, and unwrapped afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function

from trainers.base import Trainer
from trainers.loop.config import PROFILED_TRACE as TRACED
from trainers.loop.config import PROFILED_WARM_UP as WARM_UP
from trainers.record.records import bar, console, say, write_json

OPERATORS = 10  # lines of their table
REST = "the rest"


def profile(trainer: Trainer) -> None:
    """Run all of the trainer's steps and measure them, then show and write where the time went. The steps compute the same as
    in `fit`."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's library prints two lines
    wait = torch.get_device_module(trainer.run.device).synchronize
    steps = (trainer.max_steps - WARM_UP - TRACED) // 2
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (trainer.run.device.type == "cuda")
    trainer.begin()
    try:
        with bar("profile", trainer.max_steps) as progress:

            def run(count: int) -> float:
                """Milliseconds per step."""
                wait()
                began = time.perf_counter()
                for _ in range(count):
                    trainer.advance()
                    progress(trainer.state.step, note=trainer.journal.words)
                wait()
                return 1000 * (time.perf_counter() - began) / count

            run(trainer.max_steps - TRACED - 2 * steps)
            speeds = {"plain": run(steps)}
            watch = Stopwatch(wait)
            with wrapped(trainer, watch.timed):
                speeds["timed"] = run(steps)
                watch.turn()
            with torch.profiler.profile(activities=activities) as profiler, wrapped(trainer, labelled):
                speeds["traced"] = run(TRACED)
    finally:
        trainer.journal.records.close()

    parts = shares({name: 1000 * seconds / steps for name, seconds in watch.seconds.items()})
    operators = operators_by_time(profiler, trainer.run.device)
    busy = sum(operator["milliseconds"] for operator in operators)
    trace = trainer.run.folder / "profile" / "trace.json.gz"
    trace.parent.mkdir(exist_ok=True)
    profiler.export_chrome_trace(str(trace))
    facts = {"device": str(trainer.run.device), "threads": trainer.state.threads, "steps": steps, "traced_steps": TRACED}
    report = {**facts, "milliseconds_per_step": speeds, "parts": parts, "operators": operators}
    write_json(trace.with_name("profile.json"), report)

    console.print(table("part of a step", parts))
    console.print(table(f"operator, by its own {trainer.run.device.type.upper()} time", operators[:OPERATORS]))
    say(
        f"a step takes {speeds['plain']:.2f} ms ({1000 / speeds['plain']:,.1f} steps/s, over {steps} steps)\n"
        f"{speeds['timed']:.2f} ms while its parts are timed (over {steps} more): that is the first table, and its named parts "
        f"cover {1 - parts[-1]['share']:.1%} of it" + waits(trainer.run.device) + "\n"
        f"{speeds['traced']:.2f} ms under PyTorch's profiler (over {TRACED} more), {busy:.2f} ms of it in operators: that is the "
        f"second table, and the trace\n"
        f"trace        {trace}\n             open it at https://ui.perfetto.dev, or in Chrome at chrome://tracing"
    )


def parts_of(trainer: Trainer) -> list[tuple[str, Any, str]]:
    """The functions that a step calls, in order: (part, owner, method). A part's time excludes the parts that it calls."""
    step = trainer.step
    parts: list[tuple[str, Any, str]] = [
        ("fetch the batch", trainer.source, "inputs"),
        ("to device", step, "place"),
        ("to device", trainer.source, "cut"),
        ("forward", step, "loss"),
        ("backward", step, "backward"),
        ("gradient norm and clipping", step, "clip"),
        ("optimiser", step.optimizer, "zero_grad"),
        ("optimiser", step.optimizer, "step"),
        ("records", trainer.journal, "add"),
        ("records", trainer.journal, "log"),
    ]
    return parts + ([("averaging", step.average, "update")] if step.average else [])


@contextmanager
def wrapped(trainer: Trainer, wrap: Callable[[str, Callable], Callable]) -> Iterator[None]:
    parts = parts_of(trainer)
    for name, owner, method in parts:
        setattr(owner, method, wrap(name, getattr(owner, method)))
    try:
        yield
    finally:
        for _, owner, method in parts:
            delattr(owner, method)  # reveals the class's method again


def labelled(name: str, function: Callable) -> Callable:
    return record_function(name)(function)


class Stopwatch:
    """The seconds of each part, and of the rest. They add up to the time from the start to the last `turn`."""

    def __init__(self, wait: Callable[[], None]):
        self.wait = wait  # for the device, so that work counts for the part that started it
        self.running = [REST]
        self.seconds: dict[str, float] = {}
        self.since = time.perf_counter()

    def turn(self) -> None:
        """Add the time since the last call to the part that is running."""
        self.wait()
        now = time.perf_counter()
        part = self.running[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.since
        self.since = now

    def timed(self, name: str, function: Callable) -> Callable:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self.running.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self.running.pop()

        return call


def shares(milliseconds: dict[str, float]) -> list[dict[str, Any]]:
    """The parts with their shares, from the longest to the shortest, then the rest."""
    total = sum(milliseconds.values())
    names = sorted(milliseconds, key=lambda name: (name == REST, -milliseconds[name]))
    return [{"name": name, "milliseconds": milliseconds[name], "share": milliseconds[name] / total} for name in names]


def operators_by_time(profiler: torch.profiler.profile, device: torch.device) -> list[dict[str, Any]]:
    """Operators by their own time: on a GPU that of their kernels, on a CPU without the operators that they call."""
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = {
        event.key: event
        for event in profiler.key_averages()
        if event.device_type == DeviceType.CPU and not event.is_user_annotation and getattr(event, own) > 0
    }
    found = shares({name: getattr(event, own) / 1000 / TRACED for name, event in events.items()})
    return [{**operator, "calls": events[operator["name"]].count / TRACED} for operator in found]


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    shown = Table()
    shown.add_column(title, overflow="fold")
    for column in ("ms per step", "share", *(["calls per step"] if "calls" in rows[0] else [])):
        shown.add_column(column, justify="right")
    for row in rows:
        calls = [f"{row['calls']:g}"] if "calls" in row else []
        shown.add_row(row["name"], f"{row['milliseconds']:.3f}", f"{row['share']:.1%}", *calls)
    return shown


def waits(device: torch.device) -> str:
    return "" if device.type == "cpu" else " (each part waits for the device, so host and device do not overlap)"
