"""The source of a trainer's batches, from data on the host or on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from conf.errors import BadRequest
from conf.ranks import here
from envs.data.placed import PlacedWindows
from envs.data.windows import Windows
from policies.base import Batch, Policy
from trainers.loop.batches import Batches, pinned, to_device

SHARE = 0.4  # share of a GPU's free memory that `data_on=auto` may use for the data


class Source:
    """Batches of recorded samples. A batch depends on the step alone, so a resumed run has nothing to restore.

    A batch is made in two parts: the host makes its `inputs`, and `cut` turns them into the batch on the device. If the data lie
    on the device, the inputs are just sample indices.

    A trainer whose data grow derives its own class, whose `prepare` makes the data that a step needs, or finds them on disc.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, device: torch.device, data_on: str = "host"):
        self.windows, self.device = windows, device
        self.batches = Batches(len(windows), batch_size, seed)
        self.placed = PlacedWindows.of(windows, device) if _lie_on_device(windows, device, data_on) else None

    @property
    def fingerprint(self) -> str:
        """Identifies the data: a run cannot be resumed with other data."""
        return self.windows.dataset.fingerprint

    def prepare(self, step: int, acting: Policy) -> dict[str, float]:
        """Called before each step, with the policy that acts. Recorded data are complete. A trainer that adds data here returns
        metrics about them, which become a row of metrics.jsonl."""
        return {}

    def inputs(self, step: int) -> Batch:
        """Of this process's share of the batch."""
        return self.inputs_of([self.batches.samples(step)[here().share(self.batches.batch_size)]])

    def inputs_of(self, parts: Sequence[np.ndarray]) -> Batch:
        """The inputs on the host, for samples of one run, or of several one after the other; pinned if the device is a GPU, so
        that copying them does not block."""
        samples = np.concatenate(parts) if len(parts) > 1 else parts[0]
        inputs = {"samples": torch.from_numpy(samples)} if self.placed else self.windows.batch(samples)
        return pinned(inputs) if self.device.type == "cuda" else inputs

    def cut(self, inputs: Batch) -> Batch:
        """Turn inputs on the device into the batch. Shapes are static and nothing waits, so this can be captured."""
        return self.placed.batch(inputs["samples"]) if self.placed else inputs

    def batch(self, step: int) -> Batch:
        return self.cut(to_device(self.inputs(step), self.device))


def _lie_on_device(windows: Windows, device: torch.device, data_on: str) -> bool:
    if data_on == "host" or (data_on == "auto" and device.type != "cuda"):
        return False
    size = PlacedWindows.size(windows)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else size
    if data_on == "device" and size > free:
        raise BadRequest(
            f"trainer.data_on=device needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of {device} are free; leave it out"
        )
    return data_on == "device" or size < SHARE * free
