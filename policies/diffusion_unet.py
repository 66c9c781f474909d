"""Diffusion over chunks of continuous actions: the action head of TinyVLA (Wen et al. 2024), which is Diffusion Policy's
conditional U-Net (Chi et al. 2023) behind the features of what is seen. Write-up 002.

Not to be confused with `masked_dit`, whose diffusion hides discrete tokens. Discrete actions are one-hot vectors here.

Write-up 002's first training had a loss of 1400. Its four fixes are the defaults: an output layer that starts at zero and
conditioning that is normalised (it blamed the initial weights alone), gradients clipped instead of the loss, a cosine schedule;
its learning rate of 1e-4 is in `experiment=seed_002`, for batches of 4. Each fault remains as an option:
`experiment=seed_002_broken`, `study=diffusion_fixes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from envs.base import Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import Vectors, refuse
from policies.base import Batch, Loss
from policies.diffusion import mean_square_of_target, noised, sampled
from policies.nets import sinusoidal_embedding
from policies.noise import Noise
from policies.plans import PlanningPolicy, check_plan
from policies.unet import UNet1d

# size -> channels of each stage, width of the condition, kernel. `large` is in the class of write-up 002's 73 million.
SIZES = {"small": ((64, 128), 128, 3), "base": ((128, 256, 512), 256, 5), "large": ((256, 512, 1024), 1024, 5)}


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    token_dim: int = 64  # width of the encoder's tokens
    frames: list[int] = field(default_factory=lambda: [0])  # observed frames, in steps back from the present (0)
    size: Literal["small", "base", "large"] = "small"  # of the U-Net: about 1, 17 and 73 million parameters
    join_first: bool = False  # join the features of the way down before the chunk grows, as Chi et al. and write-up 002 do
    condition_dim: int = 0  # width of the condition that steers each block; 0: as the size has it (128, 256, 1024)
    horizon: int = 8  # actions in a chunk
    execute: int = 4  # actions executed before the next chunk
    prediction: Literal["epsilon", "v", "sample", "flow"] = "sample"  # what the network predicts (policies/diffusion.py)
    draws: int = 4  # noisy chunks per encoded observation in training: the encoder costs most
    denoise_steps: int = 4  # network passes for one chunk when acting
    ancestral: bool = False  # draw fresh noise at every step of acting (DDPM) instead of none (DDIM); not for flow
    zero_head: bool = True  # the output layer starts at zero, so that the first loss is that of predicting nothing
    normalise: bool = True  # the condition and the U-Net's features
    condition_spread: float = 1.0  # standard deviation of a condition that is not normalised; a language model's can be tens
    clip_loss_above: float = 0.0  # a loss above it is multiplied by 0.1, as in write-up 002; 0: never

    def __post_init__(self) -> None:
        check_plan(self.frames, self.horizon, self.execute)
        for name, most in (("token_dim", 4096), ("draws", 64), ("denoise_steps", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between 1 and {most}, got {getattr(self, name)}")
        if (self.condition_dim and not 4 <= self.condition_dim <= 65536) or self.condition_dim % 2:
            raise ValueError(
                f"condition_dim must be an even number between 4 and 65536, or 0 for that of the size, got {self.condition_dim}"
            )
        if not 0 < self.condition_spread <= 1000:
            raise ValueError(f"condition_spread must be above 0 and at most 1000, got {self.condition_spread}")
        if not 0 <= self.clip_loss_above <= 1e6:
            raise ValueError(f"clip_loss_above must be between 0 (never) and 1e6, got {self.clip_loss_above}")
        if self.ancestral and self.prediction == "flow":
            raise ValueError("ancestral=true draws noise along the way, which flow matching does not: choose another prediction")


class DiffusionUNet(PlanningPolicy):
    starts_from: ClassVar[tuple[str, ...]] = ("policies.bc_mlp.BCMLP",)
    spread: Tensor

    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        return refuse("diffusion_unet", spaces.action) or encoders.Encoder.accepts(config.encoder, spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(spaces, config.frames, config.horizon, config.execute)
        self.config = config
        channels, width, kernel = SIZES[config.size]
        width = config.condition_dim or width
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, config.token_dim)
        self.modalities = tuple(self.encoder.parts)
        self.vectors = Vectors(spaces.action)
        self.register_buffer("spread", torch.ones(self.vectors.size))  # standard deviation of each number of an action
        seen = len(config.frames) * self.encoder.tokens * self.encoder.width
        self.norm = nn.LayerNorm(seen) if config.normalise else nn.Identity()
        self.condition = nn.Sequential(nn.Linear(seen, width), nn.Mish(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.Mish(), nn.Linear(width, width))
        self.unet = UNet1d(self.vectors.size, channels, width, kernel, config.normalise, config.join_first)
        if config.zero_head:
            for parameter in self.unet.head.parameters():
                nn.init.zeros_(parameter)

    def fit(self, statistics: Statistics) -> None:
        self.encoder.fit(statistics)
        self.vectors.fit(statistics)
        if not self.vectors.discrete:  # the numbers of a one-hot are -1 and 1 already
            deviation = torch.from_numpy(statistics.action.std).flatten().float()
            self.spread.copy_((deviation / self.vectors.scale).clamp(min=1e-3))

    # --- the network -------------------------------------------------------------------------------------------------

    def look_at(self, seen: dict[str, Tensor], known: Tensor, noise: Noise) -> Tensor:
        """The condition [B, width] of frames {name: [B, To, ...]}; frames before the episode are zeros."""
        tokens = self.encoder(seen, known, noise) * known[:, :, None, None]  # [B, To, S, d]
        return self.condition(self.norm(tokens.flatten(1) * self.config.condition_spread))

    def predict(self, condition: Tensor, chunk: Tensor, time: Tensor) -> Tensor:
        """[B, H, A] for noisy chunks [B, H, A] at times [B]."""
        steered = condition + self.time(sinusoidal_embedding(time, condition.shape[1]))
        return self.unet(chunk, steered).float()

    # --- training ----------------------------------------------------------------------------------------------------

    def data(self, batch: Batch) -> Tensor:
        """The recorded chunk [B, H, A], each number with a standard deviation of 1; zeros in slots without a label."""
        vectors = self.vectors.encode(batch["action"]) / self.spread
        return torch.where(batch["action_mask"][..., None], vectors, torch.zeros_like(vectors))

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        draws, counted = self.config.draws, batch["action_mask"]
        data = self.data(batch).repeat_interleave(draws, dim=0)  # [B * draws, H, A]
        time = noise.uniform(draws).flatten()  # [B * draws]
        drawn = noise.normal(draws, *data.shape[1:]).flatten(0, 1)
        condition = self.look_at(batch["observation"], batch["observation_mask"], noise).repeat_interleave(draws, dim=0)
        seen, asked = noised(self.config.prediction, data, drawn, time[:, None, None])
        error = (self.predict(condition, seen, time) - asked).square().mean(-1)  # [B * draws, H]
        total = (error * counted.repeat_interleave(draws, dim=0)).sum()
        count = counted.sum() * draws
        if self.config.clip_loss_above and self.training:
            total = torch.where(total > self.config.clip_loss_above * count, 0.1 * total, total)
        return Loss(total, count, {})

    def chance_loss(self, batch: Batch) -> float:
        """The loss of a network that always predicts 0."""
        numbers = batch["action_mask"].sum() * self.vectors.size
        return mean_square_of_target(self.config.prediction, float(self.data(batch).square().sum() / numbers.clamp(min=1)))

    def remedies(self) -> list[str]:
        calm = Config()
        values = {name: getattr(calm, name) for name in ("normalise", "zero_head", "condition_spread")}
        return [f"policy.{name}={value}".lower() for name, value in values.items() if getattr(self.config, name) != value]

    # --- acting ------------------------------------------------------------------------------------------------------

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> tuple[Tensor, Tensor]:
        *_, data = self.denoise(self.look_at(seen, known, noise), noise, greedy)
        action = self.vectors.decode(data * self.spread)
        return action, torch.ones(action.shape[:2], dtype=torch.bool, device=action.device)

    def denoise(self, condition: Tensor, noise: Noise, greedy: bool) -> Iterator[Tensor]:
        """The estimated chunk [N, H, A] after each step. Greedy acting starts from zeros, so it is deterministic."""
        shape = (self.config.horizon, self.vectors.size)
        start = condition.new_zeros(len(condition), *shape) if greedy else noise.normal(*shape).to(condition.dtype)

        def network(chunk: Tensor, time: Tensor) -> Tensor:
            return self.predict(condition, chunk, time)

        fresh = noise if self.config.ancestral and not greedy else None
        yield from sampled(self.config.prediction, network, start, self.config.denoise_steps, 1 / self.spread, fresh)
