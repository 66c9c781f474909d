"""Behaviour cloning with a GRU (Cho et al. 2014): the next action from everything seen since the episode began.

Trained on windows of the last `length` steps, each with its own target; steps before the episode are skipped, not read as zeros.
When acting, the state is carried from step to step, and the rollout clears it when an episode begins.

`length=1` is write-up 004's GRU: its sequences have one step, so it is a gated linear layer and remembers nothing. It never gets
a state in training, so it gets none when acting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from envs.base import Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import HeadConfig, make_head, refuse, refuse_head
from policies.base import Batch, Loss, Memory, Policy, Window, check_dropout, check_temperature
from policies.nets import mlp
from policies.noise import Noise


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    head: HeadConfig = field(default_factory=HeadConfig)  # how a continuous action is predicted
    length: int = 16  # steps of a training window; 1: write-up 004's, without memory
    gru_dim: int = 128  # size of the state
    hidden_dim: int = 256  # width of the MLP behind the GRU
    layers: int = 1  # its hidden layers
    token_dim: int = 64  # width of the encoder's tokens
    dropout: float = 0.0  # after each hidden layer
    temperature: float = 1.0  # of sampled acting, where actions are classes

    def __post_init__(self) -> None:
        for name in ("length", "gru_dim", "hidden_dim", "layers", "token_dim"):
            if not 1 <= getattr(self, name) <= 100_000:
                raise ValueError(f"{name} must be between 1 and 100000, got {getattr(self, name)}")
        check_dropout(self.dropout)
        check_temperature(self.temperature)


class BCGRU(Policy):
    alone = "PyTorch's GRU has no stacked form"

    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        sentence = refuse("bc_gru", spaces.action) or refuse_head(config.head, spaces.action)
        return sentence or encoders.Encoder.accepts(config.encoder, spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__()
        self.config = config
        self.window = Window(config.length, config.length, align="each")
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, config.token_dim)
        self.modalities = tuple(self.encoder.parts)
        self.head = make_head(config.head, spaces.action, 1, config.temperature)
        self.samples = self.head.classes > 0
        self.gru = nn.GRU(self.encoder.tokens * self.encoder.width, config.gru_dim, batch_first=True)
        self.mlp = mlp([config.gru_dim, *[config.hidden_dim] * config.layers, self.head.size], nn.ReLU, config.dropout)

    def fit(self, statistics: Statistics) -> None:
        self.encoder.fit(statistics)
        self.head.fit(statistics)

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        known = batch["observation_mask"]  # [B, T], False only at the front
        tokens = self.encoder(batch["observation"], known, noise).flatten(2)  # [B, T, S * d]
        # Each row's real steps move to the front, where the state is empty; their outputs move back afterwards.
        missing = (~known).sum(1, keepdim=True)
        slots = torch.arange(known.shape[1], device=known.device)
        front = (slots + missing) % len(slots)  # [B, T]
        hidden, _ = self.gru(tokens.gather(1, front[..., None].expand_as(tokens)))
        back = ((slots - missing) % len(slots))[..., None].expand_as(hidden)
        return self.head.loss(self.mlp(hidden.gather(1, back)), batch, self.training)

    def chance_loss(self, batch: Batch) -> float:
        return self.head.chance(batch)

    def start(self, num_envs: int, device: torch.device) -> Memory:
        return {"hidden": torch.zeros(num_envs, self.config.gru_dim, device=device)}

    @torch.no_grad()
    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        tokens = self.encoder({name: observation[name][:, None] for name in self.encoder.parts}).flatten(2)  # T = 1
        hidden, state = self.gru(tokens, None if self.config.length == 1 else memory["hidden"][None])
        action, _ = self.head.decode(self.mlp(hidden), noise, greedy)
        return action[:, 0], {"hidden": state[0]}
