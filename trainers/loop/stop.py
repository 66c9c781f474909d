"""Signals that ask a run to stop. In the training loop it finishes its step, saves, and prints how to go on.

SLURM sends a signal to every process of a job, and the job's first process passes it on, so a run gets each signal two or three
times. Only a second Ctrl-C therefore has a meaning of its own, since a person presses it on purpose.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """While active, a signal only sets `.signal`; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Outside the training loop there is nothing to save, so the first signal raises KeyboardInterrupt.

    After it signals are ignored, until `handlers_restored` ends: a second one must not kill a run that writes how it ended.
    """
    stopped = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped or number == signal.SIGINT:
            stopped = True
            raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
