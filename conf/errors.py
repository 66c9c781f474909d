"""The exceptions that are printed without a traceback, and what the command's exit codes mean."""

from enum import IntEnum


class BadRequest(Exception):
    """A request that cannot be carried out; the text is one or two sentences that say what to do instead.

    `launch.py` prints the text alone and exits with 2. Anything else that escapes is a fault of ours and keeps its traceback.
    """


class RunFailed(Exception):
    """A run of a sweep failed in a process of its own; the text says why, and the run's folder holds its traceback."""


class Exit(IntEnum):
    DONE = 0
    FAILED = 1  # while running
    BAD_REQUEST = 2  # before anything ran
    DIVERGED = 3  # loss or gradients became non-finite
    PREEMPTED = 4  # stopped from outside, with a checkpoint to resume from
