"""The output of a run: metrics.jsonl, timing.jsonl, a board, log.txt, and a progress display.

`metrics.jsonl` holds only numbers that depend on the configuration alone. So two runs, or an interrupted and an uninterrupted
one, can be compared with `cmp`. Speeds go to `timing.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from conf import status
from conf.folder import leaves
from trainers.record import boards

FINAL = ("success", "return")  # the scores of each player that a board shows
log = logging.getLogger("iolaus")


class Screen(Console):
    speaker = ""  # before each message, where several runs share a process

    def on_broken_pipe(self) -> None:
        """The reader of the output is gone (`| head`): stop the output, not the run."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = Screen(width=None if sys.stdout.isatty() else 110)
NOTED = {"train/loss": "loss", "val/success": "success"}  # metrics that status.json shows during a run
SECONDS_BETWEEN_LINES = 5.0  # between progress lines, if the output is not a terminal


def say(text: str) -> None:
    """Print a message, and write it to log.txt."""
    console.print(f"{console.speaker}{text}", markup=False, highlight=False, soft_wrap=True)
    log.info(text)


class Records:
    """The files of one run. With `offset`, `metrics.jsonl` is truncated to its length at a checkpoint, and a warning is shown if
    its hash is not `digest`."""

    def __init__(self, folder: Path, logger: boards.Config, offset: int | None = None, step: int = 0, digest: str = ""):
        self.folder = folder
        place = folder / "metrics.jsonl"
        if offset is not None:
            self.hash = _hash(place, offset)
            if digest and self.hash.hexdigest() != digest:
                kept = _put_aside(place)
                say(
                    f"warning: metrics.jsonl is not what was written up to step {step}; "
                    + (f"it is renamed to {kept.name}, and a new file starts" if kept else "a new file starts")
                )
                self.hash, offset = hashlib.sha256(), 0
        else:
            self.hash = hashlib.sha256()
        self.metrics = open(place, "ab")  # noqa: SIM115  (closed by `close`)
        if offset is not None:
            self.metrics.truncate(offset)
            self.metrics.seek(offset)
        self.timing = open(folder / "timing.jsonl", "a")  # noqa: SIM115
        self.board = boards.opened(logger, folder, purge_step=None if offset is None else step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON knows no NaN
        row = (json.dumps({"step": step, **plain}) + "\n").encode()
        self.metrics.write(row)
        self.metrics.flush()  # so that the run can be followed
        self.hash.update(row)
        self.board.scalars(step, values)
        status.note(**{name: plain[key] for key, name in NOTED.items() if key in plain})

    def speeds(self, step: int, values: dict[str, float]) -> None:
        self.timing.write(json.dumps({"step": step, **values}) + "\n")
        self.timing.flush()
        self.board.scalars(step, values)

    def health(self, markdown: str, values: dict[str, float]) -> None:
        """Show the health report on the board; health.json holds it too."""
        self.board.text("health", markdown)
        self.board.scalars(0, {f"health/{name}": value for name, value in values.items()})

    def final(self, split: str, headline: str, scores: Mapping[str, Mapping[str, Any]], config: str, step: int) -> None:
        """Show the final scores of the headline and of all players on the board, and `config`, the text of config.yaml."""
        shown = {f"{split}/{name}": scores[headline][name] for name in FINAL}
        shown |= {f"{split}/{player}/{name}": score.get(name) for player, score in scores.items() for name in FINAL}
        known = {name: float(value) for name, value in shown.items() if value is not None}
        self.board.text("config", f"```yaml\n{config}```")
        self.board.hyperparameters(dict(leaves(yaml.safe_load(config))), known, step)

    def curve(self, name: str, values: list[float]) -> None:
        """Show a score by episode on the board; evaluation.json holds it too."""
        for episode, value in enumerate(values, start=1):
            self.board.scalars(episode, {name: value})

    def media(self, name: str, encoded: bytes, shape: tuple[int, int], step: int) -> None:
        self.board.media(name, encoded, shape, step)

    def flush(self) -> int:
        """Sync everything to disc. Returns the length of metrics.jsonl; checkpoints store it, together with `digest`."""
        self.metrics.flush()
        os.fsync(self.metrics.fileno())
        self.board.flush()
        return self.metrics.tell()

    @property
    def digest(self) -> str:
        """The hash of metrics.jsonl so far."""
        return self.hash.hexdigest()

    def close(self) -> None:
        if self.metrics.closed:
            return
        self.flush()
        self.metrics.close()
        self.timing.close()
        self.board.close()


class NoRecords(Records):
    """Of a process that helps another one with its run: nothing is written."""

    def __init__(self) -> None:
        self.hash, self.board = hashlib.sha256(), boards.Board()
        self.metrics, self.timing = open(os.devnull, "ab"), open(os.devnull, "a")  # noqa: SIM115

    def flush(self) -> int:
        return 0


def _hash(path: Path, length: int) -> Any:
    """The hash of the first `length` bytes of a file, or of all its bytes if it is shorter."""
    found = hashlib.sha256()
    with suppress(FileNotFoundError), open(path, "rb") as file:
        while length > 0 and (part := file.read(min(length, 1 << 20))):
            found.update(part)
            length -= len(part)
    return found


def _put_aside(path: Path) -> Path | None:
    if not path.exists():
        return None
    aside = next(other for i in range(1, 1000) if not (other := path.with_name(f"damaged-{i}-{path.name}")).exists())
    os.rename(path, aside)
    return aside


class Bar:
    """Progress of one activity: a line of the live display, or without one a printed line every few seconds."""

    def __init__(self, title: str, total: int, display: Progress | None):
        self.title, self.total, self.display, self.shown = title, total, display, time.monotonic()
        if display:
            self.task = display.add_task(title, total=total, note="")
        self.began: tuple[float, int] | None = None  # the time of the first call, and how much was done then

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        self.total = total or self.total
        self.began = self.began or (time.monotonic(), done)
        seconds, more = time.monotonic() - self.began[0], done - self.began[1]
        left = seconds / more * (self.total - done) if more > 0 else None
        status.note(doing=self.title, step=done, steps=self.total, left=left)
        if self.display:
            self.display.update(self.task, completed=done, total=self.total, note=note)
        elif time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = time.monotonic()
            say(f"{self.title} {done}/{self.total}  {note}".rstrip())


@contextmanager
def bar(title: str, total: int) -> Iterator[Bar]:
    """Show the progress of what is done inside. Bars can be nested, such as a validation in a training."""
    with _display() as display:
        shown = Bar(title, total, display)
        try:
            yield shown
        finally:
            if display:
                display.remove_task(shown.task)


_current: Progress | None = None


@contextmanager
def _display() -> Iterator[Progress | None]:
    """The live display, None off a terminal. Rich has one at a time, so a nested bar is a line of the outer one's."""
    global _current
    if _current or not console.is_terminal:
        yield _current
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    fields = TextColumn("{task.description}"), *columns, TextColumn("{task.fields[note]}")
    with Progress(*fields, console=console, transient=True) as _current:
        try:
            yield _current
        finally:
            _current = None


def means(prefix: str, sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Sums divided by counts. Metrics without a count (such as the excess over an unknown floor) are left out."""
    return {f"{prefix}/{name}": total / max(count, 1e-12) for name, (total, count) in sums.items() if count or name == "loss"}


def write_json(path: Path, value: Any) -> None:
    """Replace a file in one step, so a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w") as file:
        json.dump(value, file, indent=2, default=_plain)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
