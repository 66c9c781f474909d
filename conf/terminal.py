"""Standard output and error in any state: closed, in an ASCII locale, or with a reader that leaves early."""

from __future__ import annotations

import os
import sys


def prepare() -> None:
    """Replace characters that cannot be shown, and open a closed stream on /dev/null: a run never fails for want of output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # `>&-`; this takes the free descriptor, so that no file of the run gets it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open as long as the process)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def nobody_reads() -> None:
    """The reader of standard output has gone (`| head -1`): discard further output, without an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
