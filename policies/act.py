"""ACT, action chunking with transformers (Zhao et al. 2023, arXiv 2304.13705): a chunk of actions from a few observations.

A transformer encoder reads the tokens of the observations. A decoder with one learned query per action of the chunk attends to
its output, and a head turns each query's output into an action. Slots after the episode's end, or after a step that executed
another action than the label, count neither in the loss nor in its mean.

`latent_dim` above 0 adds the original's conditional VAE: training encodes the target chunk into a latent, acting uses the prior's
mean, zero. `ensemble` averages all predictions for the present step with weights exp(-c * i), where i = 0 is the oldest. The
original's positive coefficient favours the oldest, which on Push cost a third of the successes (58 % where replanning had 98 %);
a negative one favours the newest.

The encoder may start from that of a `bc_mlp` (`init_from=RUN`), which makes more updates in the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from envs.base import Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import HeadConfig, Vectors, make_head, refuse, refuse_head
from policies.base import Batch, Loss, Memory, check_dropout, check_temperature
from policies.nets import mlp, sinusoidal_embedding
from policies.noise import Noise
from policies.plans import PlanningPolicy, check_plan


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    head: HeadConfig = field(default_factory=HeadConfig)  # how a continuous action is predicted
    hidden_dim: int = 128  # width of every token
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    feedforward: int = 256  # width of the blocks' MLPs
    head_dims: list[int] = field(default_factory=list)  # hidden layers between a query's output and its action
    norm_first: bool = True  # normalise before attention and MLP; false: after them (the original, write-up 004)
    dropout: float = 0.0
    frames: list[int] = field(default_factory=lambda: [0])  # observed frames, in steps back from the present (0)
    chunk_size: int = 8  # actions predicted at once
    execute: int = 2  # actions executed before the next chunk
    ensemble: bool = False  # average all chunks' predictions for the present step; predicts at every step
    ensemble_coefficient: float = 0.1  # above 0: the oldest prediction weighs most (the original); below 0: the newest
    latent_dim: int = 0  # size of the VAE's latent (the original: 32); 0: no VAE
    kl_weight: float = 10.0  # weight of the VAE's loss; that of the actions has 1
    temperature: float = 1.0  # of sampled acting, where actions are classes

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "encoder_layers", "decoder_layers", "heads", "feedforward"):
            if not 1 <= getattr(self, name) <= 100_000:
                raise ValueError(f"{name} must be between 1 and 100000, got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim must be a multiple of 2 * heads = {2 * self.heads}, got {self.hidden_dim}")
        if self.head_dims and min(self.head_dims) < 1:
            raise ValueError(f"head_dims must be a list of widths, each at least 1, got {self.head_dims}")
        if not 0 <= self.latent_dim <= 4096:
            raise ValueError(f"latent_dim must be between 0 and 4096, got {self.latent_dim}")
        if not 0 <= self.kl_weight <= 1e6:
            raise ValueError(f"kl_weight must be between 0 and 1000000, got {self.kl_weight}")
        if not -10 <= self.ensemble_coefficient <= 10:
            raise ValueError(f"ensemble_coefficient must be between -10 and 10, got {self.ensemble_coefficient}")
        if abs(self.ensemble_coefficient) * self.chunk_size > 80:  # the exponential of more is no number in float32
            raise ValueError(
                f"ensemble_coefficient={self.ensemble_coefficient} is too large for chunk_size={self.chunk_size}: their product "
                "must be between -80 and 80"
            )
        if self.ensemble and self.execute != 1:
            raise ValueError(f"execute must be 1 with ensemble=true, which looks again at every step, got {self.execute}")
        check_dropout(self.dropout)
        check_temperature(self.temperature)
        check_plan(self.frames, self.chunk_size, self.execute)


class ACT(PlanningPolicy):
    starts_from: ClassVar[tuple[str, ...]] = ("policies.bc_mlp.BCMLP", "policies.bc_gru.BCGRU")

    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        sentence = refuse("act", spaces.action) or refuse_head(config.head, spaces.action)
        if sentence := sentence or encoders.Encoder.accepts(config.encoder, spaces.observation):
            return sentence
        if config.ensemble and make_head(config.head, spaces.action, 1).classes:
            return "policy.ensemble=true averages continuous actions; where actions are classes, leave it out"
        return None

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(spaces, config.frames, config.chunk_size, config.execute)
        self.config = config
        width = config.hidden_dim
        shape = (width, config.heads, config.feedforward, config.dropout)
        options: dict[str, Any] = {"batch_first": True, "norm_first": config.norm_first}

        def norm() -> nn.Module | None:
            return nn.LayerNorm(width) if config.norm_first else None

        def transformer(layers: int) -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(*shape, **options)
            return nn.TransformerEncoder(layer, layers, norm(), enable_nested_tensor=False)

        self.encoder = encoders.Encoder(config.encoder, spaces.observation, width)
        self.modalities = tuple(self.encoder.parts)
        self.project = nn.Identity() if self.encoder.width == width else nn.Linear(self.encoder.width, width)
        self.head = make_head(config.head, spaces.action, config.chunk_size, config.temperature)
        self.samples = self.head.classes > 0
        self.reader = transformer(config.encoder_layers)
        self.query = nn.Parameter(torch.randn(config.chunk_size, width) * 0.02)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*shape, **options), config.decoder_layers, norm())
        self.output = mlp([width, *config.head_dims, self.head.size], nn.ReLU, config.dropout)
        when = torch.tensor(config.frames, dtype=torch.float32) / 1000  # steps ago; the embedding counts in thousands
        self.register_buffer("when", sinusoidal_embedding(when, width)[:, None], persistent=False)  # [To, 1, d]
        if config.latent_dim:
            self.vectors = Vectors(spaces.action)
            self.read_action = nn.Linear(self.vectors.size, width)
            slots = torch.arange(1, config.chunk_size + 1) / 1000
            self.register_buffer("slots", sinusoidal_embedding(slots, width), persistent=False)  # [H, d]
            self.summary = nn.Parameter(torch.randn(1, width) * 0.02)
            self.posterior = transformer(config.encoder_layers)
            self.moments = mlp([width, 2 * config.latent_dim], nn.ReLU)
            self.latent = nn.Linear(config.latent_dim, width)

    when: Tensor
    slots: Tensor

    def fit(self, statistics: Statistics) -> None:
        self.encoder.fit(statistics)
        self.head.fit(statistics)
        if self.config.latent_dim:
            self.vectors.fit(statistics)

    def predict(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, latent: Tensor | None = None) -> Tensor:
        """[B, H, head.size] from frames {name: [B, To, ...]}; `latent` [B, d]: None for the prior's mean."""
        tokens = self.project(self.encoder(seen, known, noise)) + self.when  # [B, To, S, d]
        missing = (~known).repeat_interleave(tokens.shape[2], dim=1) if len(self.frames) > 1 else None  # [B, To*S]
        tokens = tokens.flatten(1, 2)
        if self.config.latent_dim:
            zero = torch.zeros(len(tokens), self.config.latent_dim, device=tokens.device)
            tokens = torch.cat([tokens, self.latent(zero if latent is None else latent)[:, None]], dim=1)
            missing = None if missing is None else nn.functional.pad(missing, (0, 1))
        memory = self.reader(tokens, src_key_padding_mask=missing)
        query = self.query.expand(len(tokens), -1, -1)
        return self.output(self.decoder(query, memory, memory_key_padding_mask=missing))

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        latent, divergence = self.encoded_chunk(batch, noise) if self.config.latent_dim and self.training else (None, None)
        output = self.predict(batch["observation"], batch["observation_mask"], noise, latent)
        loss = self.head.loss(output, batch, self.training)
        if divergence is None:
            return loss
        count = batch["action_mask"].sum(1)  # [B] a row's weight: the loss stays a sum over targets
        plain = {
            "cross_entropy": (loss.total.detach(), loss.count),
            "divergence": ((divergence.detach() * count).sum(), count.sum()),
        }
        return Loss(loss.total + self.config.kl_weight * (divergence * count).sum(), loss.count, plain | loss.metrics)

    def encoded_chunk(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """A latent [B, latent_dim] drawn from the posterior given the recorded chunk, and its KL divergence [B] in nats."""
        known = batch["action_mask"]
        action = self.read_action(self.vectors.encode(batch["action"])) + self.slots
        tokens = torch.cat([self.summary.expand(len(action), 1, -1), action], dim=1)
        read = self.posterior(tokens, src_key_padding_mask=nn.functional.pad(~known, (1, 0)))[:, 0]
        mean, log_variance = self.moments(read).float().chunk(2, dim=-1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return mean + (0.5 * log_variance).exp() * noise.normal(self.config.latent_dim), divergence

    def chance_loss(self, batch: Batch) -> float:
        return self.head.chance(batch)

    # --- acting ------------------------------------------------------------------------------------------------------

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.head.decode(self.predict(seen, known, noise), noise, greedy)

    def start(self, num_envs: int, device: torch.device) -> Memory:
        memory = super().start(num_envs, device)
        if self.config.ensemble:
            memory["mean"] = torch.zeros_like(memory["plan"])  # mean prediction for each of the next steps
            memory["weight"] = torch.zeros(num_envs, self.config.chunk_size, device=device)  # their total weight
            memory["count"] = torch.zeros(num_envs, self.config.chunk_size, device=device)  # their number
        return memory

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        action, memory = super().act(observation, memory, noise, greedy)
        if not self.config.ensemble:
            return action, memory
        new = torch.exp(-self.config.ensemble_coefficient * memory["count"])  # [N, H] weight of the prediction just made
        weight = memory["weight"] + new
        share = (new / weight)[..., None]
        mean = memory["mean"] * (1 - share) + memory["plan"] * share
        # Shift by one step: the second slot becomes the first.
        memory["mean"] = nn.functional.pad(mean[:, 1:], (0, 0, 0, 1))
        memory["weight"] = nn.functional.pad(weight[:, 1:], (0, 1))
        memory["count"] = nn.functional.pad(memory["count"][:, 1:] + 1, (0, 1))
        return mean[:, 0], memory
