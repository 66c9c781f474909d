"""Standard output and error as a program finds them: closed, in an ASCII locale, or read by somebody who leaves early."""

from __future__ import annotations

import os
import sys


def prepare() -> None:
    """What cannot be shown is replaced, and a closed stream is opened on nothing: no output is no reason to fail."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # `>&-`; opening takes the lowest free number, so no file of the run ends up there
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open as long as the process)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def nobody_reads() -> None:
    """The reader of standard output has gone (`| head -1`): what still comes goes nowhere, without a complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
