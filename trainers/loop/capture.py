"""Repeated work as a CUDA graph: training steps, and acting. A GPU computes small networks faster than Python can launch their
kernels; a graph launches all of them at once.

The first calls of each variant run uncaptured, on a separate stream as PyTorch requires. Then the work is captured, and replayed
from then on. All calls take effect and compute the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conf.errors import BadRequest
from conf.ranks import here
from policies.base import Batch
from trainers.loop.batches import copy_into, to_device
from trainers.loop.config import Config
from trainers.record.records import say

WARM_UP = 3  # calls of each variant before its capture, in which kernels are chosen and the optimiser makes its tensors


def obstacle(config: Config, device: torch.device) -> str | None:
    """Why steps cannot be captured, or None."""
    if config.capture == "off":
        return "trainer.capture is off"
    if device.type != "cuda":
        return "CUDA graphs need device=cuda"
    if not here().alone:
        return "several processes train this run"
    if config.freeze_after:
        return "trainer.freeze_after changes what a step computes"
    if config.profile:
        return "a profile times the parts of a step, and a captured step runs as a whole"
    return None


def remark(config: Config, device: torch.device) -> str | None:
    """What a run on a GPU that does not capture its steps says at its start."""
    if device.type != "cuda" or config.capture != "auto" or (why := obstacle(config, device)) is None:
        return None
    return f"steps are not captured in a CUDA graph, because {why}: they are slower, and compute the same"


class Graph(NamedTuple):
    graph: Any
    inputs: Batch  # read by the graph; written before each replay
    output: Tensor  # written by the graph


class Captured:
    """`work(inputs on the device, number)`, captured once for each variant. The variant must decide all shapes. Replays do not
    see the number."""

    def __init__(self, work: Callable[[Batch, int], Tensor], name: str, required: bool = False):
        self.work, self.name, self.required = work, name, required
        self.stream = torch.cuda.Stream()
        self.done: Counter[int] = Counter()  # calls of each variant before its capture
        self.graphs: dict[int, Graph] = {}
        self.pool: Any = None  # memory that all graphs share, since they never run at the same time
        self.failed = False

    def run(self, variant: int, inputs: Batch, number: int = 0) -> Tensor:
        if variant not in self.graphs and not self.failed and self.done[variant] >= WARM_UP:
            self._capture(variant, inputs, number)
        if found := self.graphs.get(variant):
            copy_into(found.inputs, inputs)
            found.graph.replay()
            return found.output
        self.done[variant] += 1
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            output = self.work(to_device(inputs, self.stream.device), number)
        current.wait_stream(self.stream)
        return output

    def _capture(self, variant: int, inputs: Batch, number: int) -> None:
        """Record the work without running it."""
        held = to_device(inputs, self.stream.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                output = self.work(held, number)
        except RuntimeError as error:
            self.failed = True
            sentence = f"{self.name} cannot be captured in a CUDA graph ({str(error).splitlines()[0]})"
            if self.required:
                raise BadRequest(f"{sentence}; leave out trainer.capture=on") from error
            say(f"{sentence}; it runs uncaptured, which is slower and computes the same")
            return
        self.pool = graph.pool()
        self.graphs[variant] = Graph(graph, held, output)
