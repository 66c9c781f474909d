"""Behaviour cloning with a multilayer perceptron (Pomerleau 1989): the next action from what is seen now.

With `horizon` above 1 it predicts a chunk of actions at once, each slot by itself: the baseline for `masked_dit`, whose slots
know of each other. Without earlier `frames` it has no memory: where the expert acts on what it saw earlier, it averages.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.base import Spaces
from policies import encoders
from policies.actions import choose, only_discrete
from policies.base import Batch, Loss
from policies.noise import Noise
from policies.plans import PlanningPolicy, check_plan


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    hidden_dim: int = 256  # width of the MLP
    layers: int = 2  # hidden layers
    token_dim: int = 64  # width of the encoder's tokens
    frames: list[int] = field(default_factory=lambda: [0])  # what it sees: each number a frame so many steps ago, 0 the present
    horizon: int = 1  # actions predicted at once, independently of each other
    execute: int = 1  # of these, carried out before it looks again

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "layers", "token_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_plan(self.frames, self.horizon, self.execute)


class BCMLP(PlanningPolicy):
    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        return only_discrete("bc_mlp", spaces.action) or encoders.Encoder.accepts(config.encoder, spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(spaces, config.frames, config.horizon, config.execute)
        self.classes = self.num_actions + (config.horizon > 1)  # a chunk can reach the end of its episode, an action cannot
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, config.token_dim)
        self.modalities = tuple(self.encoder.parts)
        seen = len(config.frames) * self.encoder.tokens * config.token_dim
        widths = [seen] + [config.hidden_dim] * config.layers
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.GELU())]
        head = nn.Linear(widths[-1], config.horizon * self.classes)
        nn.init.zeros_(head.weight)  # the first loss is ln(classes) to the last digit: anything else is a fault
        nn.init.zeros_(head.bias)
        self.mlp = nn.Sequential(*hidden, head)

    def logits(self, seen: dict[str, Tensor], known: Tensor) -> Tensor:
        """[B, H, classes] from frames {name: [B, To, ...]}; those before the episode are left blank."""
        tokens = self.encoder(seen, known) * known[:, :, None, None]  # [B, To, S, d]
        return self.mlp(tokens.flatten(1)).unflatten(-1, (-1, self.classes)).float()

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        plan, counted = self.targets(batch)  # [B, H]
        logits = self.logits(batch["observation"], batch["observation_mask"])
        label = plan.masked_fill(~counted, -100)  # cross_entropy's "ignore"
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="sum")
        correct = (logits.argmax(-1) == plan) & counted
        metrics = {"accuracy": (correct.sum(), counted.sum())}
        if self.window.actions > 1 and not self.training:
            first = F.cross_entropy(logits[:, 0, : self.num_actions], label[:, 0], reduction="sum")
            metrics["first_action_loss"] = (first, counted[:, 0].sum())
        return Loss(loss, counted.sum(), metrics)

    def chance_loss(self, batch: Batch) -> float:
        return math.log(self.classes)

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> Tensor:
        logits = self.logits(seen, known)
        logits[:, 0, self.END :] = -torch.inf  # whoever is asked for a plan has not finished
        return choose(logits, noise, greedy)  # a slot after END is never carried out
