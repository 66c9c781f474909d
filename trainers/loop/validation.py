"""Loss and scores of the acting weights on the val split. They choose the best checkpoint.

The highest of several measured success rates is partly luck. So the best step is the latest one whose success is within one
standard error of the highest, as Breiman et al. (1984) choose the size of a tree.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from conf.ranks import here
from envs.base import Score
from envs.data.windows import Windows
from policies.base import Policy
from policies.noise import Noise
from trainers.loop.batches import to_device
from trainers.loop.processes import gathered
from trainers.record.records import means

SAMPLES = 4096  # windows used for a validation loss
TARGETS = 65_536  # if a window has a target at each step: as many windows as have this many targets


@dataclass
class Validation:
    windows: Windows
    play: Callable[[Policy], Score] | None  # lets a policy play the val episodes
    judged_by: tuple[str, ...]  # the scores that choose the best, the most important first; then the loss
    batch_size: int
    seed: int  # the random numbers are the same at every validation, so the loss changes only with the weights
    device: torch.device
    error: float | None = None  # the standard error of the last success, if success is what judges

    @torch.no_grad()
    def measure(self, policy: Policy) -> dict[str, float]:
        """Means and scores of a policy in evaluation mode."""
        window = self.windows.window
        sums: dict[str, tuple[float, float]] = {}
        most = TARGETS // window.actions if window.align == "each" else SAMPLES
        samples = self.windows.fixed_subset(max(most, 1))
        for start in range(here().rank * self.batch_size, len(samples), here().count * self.batch_size):
            part = samples[start : start + self.batch_size]
            batch = to_device(self.windows.batch(part), self.device)
            loss = policy(batch, Noise(self.seed, 0, torch.from_numpy(part).to(self.device)))
            for name, (total, count) in {"loss": (loss.total, loss.count), **loss.metrics}.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + float(total), before[1] + float(count))
        parts, sums = gathered(sums), {}
        for found in parts:
            for name, (total, count) in found.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + total, before[1] + count)
        values = means("val", sums)
        if self.play:
            played = self.play(policy)
            values["val/return"] = float(played.returns.mean())
            if played.success is not None:
                values["val/success"] = float(played.success.mean())
                if self.judged_by[:1] == ("success",):
                    self.error = float(played.success.std()) / math.sqrt(len(played.success))
        return values

    def score(self, values: Mapping[str, float]) -> list[float]:
        """What is compared to find the best: higher is better, and the first number that differs decides."""
        loss = values["val/loss"]
        return [
            *(values.get(f"val/{name}", 0.0) for name in self.judged_by),
            -loss if math.isfinite(loss) else -sys.float_info.max,
        ]

    def as_good(self, score: list[float], best: list[float]) -> bool:
        """Whether `score`, of the last measurement, is as good as the best one, as far as its episodes can tell."""
        return score >= best or (self.error is not None and score[0] >= best[0] - self.error)
