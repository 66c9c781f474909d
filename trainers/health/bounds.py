"""The bounds of a loss: chance, which a policy that knows nothing has, and the floor, below which it cannot fall."""

from __future__ import annotations

import math
from collections.abc import Container

from envs.data.statistics import Floor
from policies.base import Window


class Bounds:
    """Chance and floor of a policy's losses, by the losses' names."""

    def __init__(self, window: Window, floor: Floor | None):
        self.window = window
        self.floor = floor  # the entropy of the next action given a window, where it is known
        self.chance = math.nan  # chance of the plain loss
        self.plain = "loss"  # the metric that is the mean of -log p alone, so that both bounds apply to it

    def look(self, prefix: str, names: Container[str]) -> None:
        """Choose the metric of a row that is the plain loss. If the loss has other terms, that is `cross_entropy`."""
        self.plain = "cross_entropy" if f"{prefix}/cross_entropy" in names else "loss"

    def floor_of(self, name: str) -> float | None:
        """The floor of a loss, or None if unknown. It is known only for losses on the next action alone."""
        if self.floor is None or not self.floor.known:
            return None
        each = self.window.align == "each" and self.floor.repeated == 1  # a mean over a window's steps, known for all of them
        about_it = name == "first_action_loss" or (name == self.plain and (self.window.actions == 1 or each))
        return self.floor.entropy if about_it else None

    def beside(self, name: str) -> str:
        """The bounds to print behind a loss, in parentheses."""
        chances = {self.plain: self.chance, "first_action_loss": self.floor and self.floor.chance}
        bounds = {"chance": chances.get(name), "floor": self.floor_of(name)}
        words = ", ".join(f"{bound} {value:.3f}" for bound, value in bounds.items() if value is not None)
        return f" ({words})" if words else ""
