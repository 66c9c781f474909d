"""Behaviour cloning with a multilayer perceptron (Pomerleau 1989): the next action from the present observation.

With `horizon` above 1 it predicts a chunk of actions at once, each slot independently: the baseline for `masked_dit`, whose slots
depend on each other. Without earlier `frames` it has no memory: if the expert uses what it saw earlier, this policy averages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from envs.base import Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import HeadConfig, make_head, refuse, refuse_head
from policies.base import Batch, Loss, check_dropout, check_temperature
from policies.nets import mlp
from policies.noise import Noise
from policies.plans import PlanningPolicy, check_plan


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    head: HeadConfig = field(default_factory=HeadConfig)  # how a continuous action is predicted
    hidden_dim: int = 256  # width of the MLP
    layers: int = 2  # hidden layers
    token_dim: int = 64  # width of the encoder's tokens
    activation: str = "gelu"  # gelu | relu
    dropout: float = 0.0  # after each hidden layer
    frames: list[int] = field(default_factory=lambda: [0])  # observed frames, in steps back from the present (0)
    horizon: int = 1  # actions predicted at once, independently of each other
    execute: int = 1  # actions executed before the next chunk
    temperature: float = 1.0  # of sampled acting, where actions are classes

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "layers", "token_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation}")
        check_dropout(self.dropout)
        check_temperature(self.temperature)
        check_plan(self.frames, self.horizon, self.execute)


ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class BCMLP(PlanningPolicy):
    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        sentence = refuse("bc_mlp", spaces.action) or refuse_head(config.head, spaces.action)
        return sentence or encoders.Encoder.accepts(config.encoder, spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(spaces, config.frames, config.horizon, config.execute)
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, config.token_dim)
        self.modalities = tuple(self.encoder.parts)
        self.head = make_head(config.head, spaces.action, config.horizon, config.temperature)
        self.samples = self.head.classes > 0
        seen = len(config.frames) * self.encoder.tokens * self.encoder.width
        widths = [seen] + [config.hidden_dim] * config.layers
        self.mlp = mlp([*widths, config.horizon * self.head.size], ACTIVATIONS[config.activation], config.dropout)

    def fit(self, statistics: Statistics) -> None:
        self.encoder.fit(statistics)
        self.head.fit(statistics)

    def output(self, seen: dict[str, Tensor], known: Tensor, noise: Noise) -> Tensor:
        """[B, H, head.size] from frames {name: [B, To, ...]}; frames before the episode are zeros."""
        tokens = self.encoder(seen, known, noise) * known[:, :, None, None]  # [B, To, S, d]
        return self.mlp(tokens.flatten(1)).unflatten(-1, (-1, self.head.size))

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        output = self.output(batch["observation"], batch["observation_mask"], noise)
        return self.head.loss(output, batch, self.training)

    def chance_loss(self, batch: Batch) -> float:
        return self.head.chance(batch)

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.head.decode(self.output(seen, known, noise), noise, greedy)
