"""What a loss is held against: what knowing nothing costs, and below which nobody gets."""

from __future__ import annotations

import math
from collections.abc import Container

from envs.data.statistics import Floor
from policies.base import Window


class Bounds:
    """Chance and floor of a policy's losses, by their names."""

    def __init__(self, window: Window, floor: Floor | None):
        self.window = window
        self.floor = floor  # the entropy of the next action given a window, where it can be counted
        self.chance = math.nan  # of the plain loss
        self.plain = "loss"  # the metric that is the mean of -log p alone, and can be held against both

    def look(self, prefix: str, names: Container[str]) -> None:
        """Which metric of a row is the plain loss: where a loss has other terms in it, `cross_entropy` is it without them."""
        self.plain = "cross_entropy" if f"{prefix}/cross_entropy" in names else "loss"

    def floor_of(self, name: str) -> float | None:
        """Below which a loss cannot fall: known of those that are about the next action alone, and of nothing but its chance."""
        if self.floor is None or not self.floor.known:
            return None
        each = self.window.align == "each" and self.floor.repeated == 1  # the mean over a window's steps, if known of every one
        about_it = name == "first_action_loss" or (name == self.plain and (self.window.actions == 1 or each))
        return self.floor.entropy if about_it else None

    def beside(self, name: str) -> str:
        """The words behind a loss."""
        chances = {self.plain: self.chance, "first_action_loss": self.floor and self.floor.chance}
        bounds = {"chance": chances.get(name), "floor": self.floor_of(name)}
        words = ", ".join(f"{bound} {value:.3f}" for bound, value in bounds.items() if value is not None)
        return f" ({words})" if words else ""
