"""Training on recorded episodes or learning histories. All data exist before the first step."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.base import Trainer
from trainers.loop import config
from trainers.loop.source import Source


@dataclass
class Config(config.Config):
    """`trainer.*`: the values that every trainer has; none are added."""


class Offline(Trainer):
    recorded = True

    def make_source(self) -> Source:
        return Source(self.data, self.config.batch_size, self.run.seed, self.run.device, self.config.data_on)
