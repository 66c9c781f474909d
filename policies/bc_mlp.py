"""Behaviour cloning with a multilayer perceptron (Pomerleau 1989): the next action from what is seen now.

Memoryless: where the expert acts on what it saw earlier, this policy can only average (see `masked_dit` for plans).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.base import Spaces
from policies import encoders
from policies.actions import choose, only_discrete
from policies.base import Batch, Loss, Memory, Policy, Window
from policies.noise import Noise


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    hidden_dim: int = 256  # width of the MLP
    layers: int = 2  # hidden layers
    token_dim: int = 64  # width of the encoder's tokens

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "layers", "token_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class BCMLP(Policy):
    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        return only_discrete("bc_mlp", spaces.action) or encoders.Encoder.accepts(spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__()
        self.window = Window()
        self.num_actions = int(spaces.action.n)  # type: ignore[attr-defined]
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, config.token_dim)
        widths = [self.encoder.tokens * config.token_dim] + [config.hidden_dim] * config.layers
        hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.GELU())]
        head = nn.Linear(widths[-1], self.num_actions)
        nn.init.zeros_(head.weight)  # the first loss is ln(actions) to the last digit: anything else is a fault
        nn.init.zeros_(head.bias)
        self.mlp = nn.Sequential(*hidden, head)

    def logits(self, observation: dict[str, Tensor]) -> Tensor:
        tokens = self.encoder(observation)[:, -1]  # [B, S, d]
        return self.mlp(tokens.flatten(1))  # [B, A]

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        logits, label = self.logits(batch["observation"]).float(), batch["action"][:, 0]
        counted = batch["action_mask"][:, 0]
        loss = F.cross_entropy(logits, label, reduction="none")  # [B]
        correct = (logits.argmax(-1) == label) & counted
        return Loss((loss * counted).sum(), counted.sum(), {"accuracy": (correct.sum(), counted.sum())})

    def chance_loss(self, batch: Batch) -> float:
        return math.log(self.num_actions)

    def start(self, num_envs: int, device: torch.device) -> Memory:
        return {}

    def act(self, observation: dict[str, Any], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        now = {name: value[:, None] for name, value in observation.items()}  # To = 1
        return choose(self.logits(now), noise, greedy), memory
