"""Findings during training: one sentence each, said once, that names the likely cause and the override to try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

STILL_AT_CHANCE = 0.98
CHANCE_AFTER = (200, 1000)  # steps after which a loss at chance is no longer a slow start: a tenth of the run, within these
VANISHED = 1e-6  # gradient norm
EXPLODED = 100.0  # times trainer.grad_clip; without clipping: the gradient norm itself


@dataclass
class Watch:
    """Looks at every row of training metrics. `said` holds what was said already; it belongs into the checkpoint."""

    chance: float
    floor: float | None  # of the loss, where it is that of the next action alone and can be counted
    max_steps: int
    grad_clip: float
    said: dict[str, str] = field(default_factory=dict)  # finding -> sentence

    def look(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """New findings in the row `values` of means since the row before."""
        if "train/loss" not in values:  # every step since then was skipped
            return
        for name, sentence in (
            ("chance", self._still_at_chance(step, values.get("train/cross_entropy", values["train/loss"]))),
            ("vanished", self._vanished(step, values["train/grad_norm"])),
            ("exploded", self._exploded(step, values["train/grad_norm"])),
        ):
            if sentence and name not in self.said:
                self.said[name] = sentence
                yield sentence

    def skipped(self, step: int, what: str) -> str | None:
        """The first step whose loss or gradient is not finite; each of them is counted in `train/skipped`."""
        if "skipped" in self.said:
            return None
        self.said["skipped"] = (
            f"at step {step} the {what} was not finite, and the step was skipped: the steps before it were too large "
            "(trainer.optimizer.lr, trainer.schedule.warmup), or the data have holes (debug=health looks for them)"
        )
        return self.said["skipped"]

    def _still_at_chance(self, step: int, loss: float) -> str | None:
        least, most = CHANCE_AFTER
        if step < min(max(least, self.max_steps // 10), most) or loss < STILL_AT_CHANCE * self.chance:
            return None
        if self.floor is not None and self.floor > STILL_AT_CHANCE * self.chance:
            return None  # nothing is there to be learned, and that was said before training
        known = "" if self.floor is None else f", while the data's own floor is about {self.floor:.3f}"
        return (
            f"after {step} steps the loss is {loss:.3f}, still at chance ({self.chance:.3f}){known}: the learning rate is too "
            "low or too high (trainer.optimizer.lr), or the policy does not see what the actions depend on; debug=overfit tells"
        )

    def _vanished(self, step: int, norm: float) -> str | None:
        if not norm < VANISHED:
            return None
        return (
            f"at step {step} the gradient's norm is {norm:.1e}: nothing is being learned any more; either everything is learned "
            "(trainer.max_steps is more than enough), or a saturated layer holds the gradients back (trainer.optimizer.lr)"
        )

    def _exploded(self, step: int, norm: float) -> str | None:
        if not norm > EXPLODED * (self.grad_clip or 1):
            return None
        if not self.grad_clip:
            return (
                f"at step {step} the gradient's norm is {norm:.1e}, and nothing clips it: one such step can undo all before it; "
                "set trainer.grad_clip=1, or lower trainer.optimizer.lr"
            )
        return (
            f"at step {step} the gradient's norm is {norm:.1e}, {norm / self.grad_clip:.0f} times trainer.grad_clip: each step "
            "keeps its direction alone; lower trainer.optimizer.lr, or look for inputs that are not normalised (debug=health)"
        )
