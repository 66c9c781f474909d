"""Where a trainer's batches come from."""

from __future__ import annotations

import torch

from envs.data.windows import Windows
from policies.base import Batch, Policy
from trainers.loop.batches import Batches, to_device


class Source:
    """Batches of recorded samples. A batch is a pure function of the step, so a resumed run has nothing to restore.

    A trainer whose data grow derives its own: `prepare` makes the data that step `step` needs (or finds them on disc).
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, device: torch.device):
        self.windows, self.device = windows, device
        self.batches = Batches(len(windows), batch_size, seed)

    @property
    def fingerprint(self) -> str:
        """Identifies the data: a run does not go on with others."""
        return self.windows.dataset.fingerprint

    def prepare(self, step: int, acting: Policy) -> None:
        """Called before each step, with the policy that acts. Recorded data are complete."""

    def batch(self, step: int) -> Batch:
        return to_device(self.windows.batch(self.batches.samples(step)), self.device)
