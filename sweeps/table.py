"""The table of a running sweep: one row per run, live on a terminal; otherwise one line for every run that ends."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.state import FAILED, State

WIDTH = 110  # where there is no terminal
SECONDS_BETWEEN_LINES = 60.0
REFRESH = 0.5  # seconds
COLOURS = {"running": "cyan", "queued": "blue", "done": "green", "pending": "dim", "preempted": "yellow", "interrupted": "yellow"}
ORDER = ("running", "queued", *FAILED, "preempted", "interrupted", "pending", "done")


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def table(states: Sequence[State], rows: int | None = None) -> Table:
    """With `rows`, show at most that many: running and failed runs first, then waiting and finished ones."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "state", "doing", "step", "loss", "val success", "left"):
        shown.add_column(name, justify="right" if name in ("step", "loss", "val success", "left") else "left", overflow="fold")
    kept = list(states)
    if rows is not None and len(kept) > rows:
        kept = sorted(kept, key=lambda state: ORDER.index(state.status) if state.status in ORDER else 0)[: max(1, rows - 1)]
    for state in kept:
        values, going = state.values, state.status == "running"
        steps = f"{values['step']:,}/{values['steps']:,}" if "steps" in values and state.status != "done" else ""
        shown.add_row(
            Text(state.label),
            Text(state.status, style=COLOURS.get(state.status, "red")),
            Text(str(values.get("doing", "")) if going else state.reason[:60]),
            steps,
            _number(values.get("loss")),
            _number(values.get("success")),
            duration(values["left"]) if going and values.get("left") is not None else "",
        )
    if len(kept) < len(states):
        rest = Counter(state.status for state in states) - Counter(state.status for state in kept)
        shown.add_row(Text("and " + ", ".join(f"{n} {status}" for status, n in rest.items()), style="dim"))
    return shown


def headline(states: Sequence[State], left: float | None = None) -> str:
    counts = Counter(state.status for state in states)
    others = ", ".join(f"{n} {status}" for status, n in counts.items() if status != "done")
    words = f"{counts['done']} of {len(states)} done" + (f", {others}" if others else "")
    return words + (f", about {duration(left)} left" if left else "")


class Board:
    """Shows the sweep while it runs. `look` returns the states of all its runs, and the estimated seconds left or None."""

    def __init__(self, look: Callable[[], tuple[list[State], float | None]]):
        self.look, self.console = look, console()
        self.live: Live | None = None
        self.shown = time.monotonic()

    def __enter__(self) -> Board:
        if self.console.is_terminal:  # refreshed by hand, since forking is not safe with a second thread
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def refresh(self) -> None:
        now = time.monotonic()
        if self.live and now - self.shown >= REFRESH:
            states, left = self.look()
            shown = table(states, rows=self.console.height - 6)
            shown.title, shown.title_justify = headline(states, left), "left"
            self.live.update(shown, refresh=True)
        elif not self.live and now - self.shown >= SECONDS_BETWEEN_LINES:
            states, left = self.look()
            self.say(headline(states, left))
        else:
            return
        self.shown = now

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
