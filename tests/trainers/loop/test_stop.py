"""Signals that come more than once, as SLURM's and a launcher's do."""

from __future__ import annotations

import os
import signal

import pytest

from trainers.loop.stop import SIGNALS, StopRequest, handlers_restored, interruptible


def test_a_second_signal_does_not_kill_a_run_that_writes_how_it_ended():
    before = [signal.getsignal(number) for number in SIGNALS]
    with handlers_restored():
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
        for number in SIGNALS:
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_the_training_loop_only_a_second_ctrl_c_interrupts():
    with handlers_restored(), interruptible(), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
