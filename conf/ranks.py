"""Which of the processes that train one run this is: torchrun says it in the environment, and sweeps/job.py for SLURM."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.errors import BadRequest

if TYPE_CHECKING:
    from conf.check import Request


@dataclass(frozen=True)
class Ranks:
    rank: int = 0  # of this process; 0 writes, the others compute their share
    count: int = 1
    local: int = 0  # rank on this machine

    @property
    def alone(self) -> bool:
        return self.count == 1

    def share(self, size: int) -> slice:
        """This process's part of a batch."""
        part = size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)


def here() -> Ranks:
    number = {name: int(os.environ.get(name) or value) for name, value in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))}
    return Ranks(number["RANK"], number["WORLD_SIZE"], number["LOCAL_RANK"])


def refuse(request: Request, count: int) -> None:
    """BadRequest if `count` processes cannot carry out this request."""
    if count == 1:
        return
    if request.mode not in ("train", "eval") or request.trainer.profile:
        what = "a profile" if request.mode == "train" else f"mode={request.mode}"
        raise BadRequest(f"{what} is for one process, and this run has {count}; start it without torchrun")
    size, parts = request.trainer.batch_size, request.trainer.accumulate
    if size % (count * parts):
        among = f"{count} processes" + (f" and trainer.accumulate={parts}" if parts > 1 else "")
        raise BadRequest(f"trainer.batch_size={size} cannot be divided by {among}; choose a multiple of {count * parts}")
