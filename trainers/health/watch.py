"""Findings during training. Each is a sentence, shown once, that names the likely cause and the override to try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

STILL_AT_CHANCE = 0.98
CHANCE_AFTER = (200, 1000)  # a loss at chance is reported after a tenth of the run, but within these limits, in steps
VANISHED = 1e-6  # gradient norm
EXPLODED = 100.0  # in units of trainer.grad_clip; without clipping: gradient norm


@dataclass
class Watch:
    """Checks every row of training metrics. `said` holds the findings that were shown already; checkpoints store it."""

    chance: float
    floor: float | None  # floor of the loss, where it is known
    max_steps: int
    grad_clip: float
    said: dict[str, str] = field(default_factory=dict)  # finding -> sentence

    def look(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """New findings in a row of metrics, which are means since the previous row."""
        if "train/loss" not in values:  # every step since the previous row was skipped
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
        """A finding for the first step whose loss or gradient is not finite. `train/skipped` counts all of them."""
        if "skipped" in self.said:
            return None
        self.said["skipped"] = (
            f"at step {step} the {what} was not finite, and the step was skipped: earlier steps were too large "
            "(trainer.optimizer.lr, trainer.schedule.warmup), or the data hold values that are not finite (debug=health checks)"
        )
        return self.said["skipped"]

    def _still_at_chance(self, step: int, loss: float) -> str | None:
        least, most = CHANCE_AFTER
        if step < min(max(least, self.max_steps // 10), most) or loss < STILL_AT_CHANCE * self.chance:
            return None
        if self.floor is not None and self.floor > STILL_AT_CHANCE * self.chance:
            return None  # there is nothing to learn, as a check before training has reported
        known = "" if self.floor is None else f", while the floor of the data is about {self.floor:.3f}"
        return (
            f"after {step} steps the loss is {loss:.3f}, still at chance ({self.chance:.3f}){known}: the learning rate is too "
            "low or too high (trainer.optimizer.lr), or the policy does not see what the actions depend on; try debug=overfit"
        )

    def _vanished(self, step: int, norm: float) -> str | None:
        if not norm < VANISHED:
            return None
        return (
            f"at step {step} the gradient norm is {norm:.1e}, so learning has stopped: either everything is learned "
            "(trainer.max_steps is more than enough), or a saturated layer blocks the gradients (trainer.optimizer.lr)"
        )

    def _exploded(self, step: int, norm: float) -> str | None:
        if not norm > EXPLODED * (self.grad_clip or 1):
            return None
        if not self.grad_clip:
            return (
                f"at step {step} the gradient norm is {norm:.1e}, and it is not clipped: one such step can undo all earlier "
                "ones; set trainer.grad_clip=1, or lower trainer.optimizer.lr"
            )
        return (
            f"at step {step} the gradient norm is {norm:.1e}, {norm / self.grad_clip:.0f} times trainer.grad_clip, so clipping "
            "sets the size of every step; lower trainer.optimizer.lr, or look for inputs that are not normalised (debug=health)"
        )
