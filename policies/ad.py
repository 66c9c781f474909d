"""Algorithm distillation (Laskin et al. 2022, arXiv 2210.14215): imitate a learner, not a policy.

A causal transformer predicts the actions of whole learning histories, across episodes of one task. It imitates improvement, so
with frozen weights it improves from episode to episode of a task it never saw. Every step has a target (published code often
trains on one action per sequence, here policy.targets=one: hundreds of times fewer targets at the same cost).

Not to be confused with behaviour cloning of the experts at the end of the histories: only the beginnings show how to learn. The
policy explores as its source does, so sample its actions and never take the most likely one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.base import DataConfig, Spaces
from policies import histories
from policies.base import Batch, Loss, Memory
from policies.histories import HistoryPolicy
from policies.noise import Noise
from policies.transformer import Transformer


@dataclass
class Config(histories.Config):
    context: int = 200  # steps that each layer attends to: ten episodes of Dark Room

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context < 1:
            raise ValueError(f"context must be at least 1, got {self.context}")


class AD(HistoryPolicy):
    config: Config

    @classmethod
    def accepts_data(cls, config: Config, data: DataConfig | None, max_steps: int) -> str | None:
        if config.context >= max_steps:
            return super().accepts_data(config, data, max_steps)
        return super().accepts_data(config, data, max_steps) or (
            f"policy.context={config.context} is shorter than one episode of up to {max_steps} steps, and whatever is to be "
            "learned lies in earlier ones: raise policy.context, or lower env.max_steps"
        )

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(config, spaces)
        width = config.hidden_dim
        self.decoder = Transformer(width, config.layers, config.heads, config.feedforward * width, config.dropout)

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        return self.loss(self.decoder(self.token(batch), self.config.context), batch, noise)

    def start(self, num_envs: int, device: torch.device) -> Memory:
        cache = self.decoder.start(num_envs, self.config.context, device)
        return {"position": torch.zeros(num_envs, dtype=torch.long, device=device), **cache}

    def step(self, token: Tensor, memory: Memory) -> Tensor:
        hidden = self.decoder.step(token, memory, memory["position"])
        memory["position"] += 1
        return hidden
