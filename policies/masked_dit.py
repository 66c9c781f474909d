"""Masked diffusion over action tokens with a DiT: plan `horizon` actions by unmasking them, execute a few, plan again.

Training hides a random share of the plan behind [MASK] and predicts the hidden tokens (MaskGIT, Chang et al. 2022; MDLM,
Sahoo et al. 2024); the network is a DiT (Peebles & Xie 2022) that attends to the state's tokens. Acting starts with every
slot masked and fills the plan in `denoise_steps` rounds, in the order `order` (policies/unmasking.py).

Tokens: the actions, then END (the episode is over in this slot), PAD (after END) and MASK. Only actions and END are ever
predicted. Not to be confused with Gaussian diffusion over continuous actions: no noise is added to tokens.

The options `corruption`, `conditioning`, `padding` and `weighting` offer the choices of write-up 001, from which this policy
grew (experiment=seed_001), each beside the one that measured better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.base import Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import Tokens, refuse
from policies.actions.tokens import check_bins, check_spread
from policies.base import Batch, Loss, check_dropout, check_temperature
from policies.nets import DiTBlock, sinusoidal_embedding
from policies.noise import Noise
from policies.plans import PlanningPolicy, check_plan
from policies.unmasking import Order, Unmasking, mask_ratio

LARGEST_WEIGHT = 20.0  # of `weighting: elbo`, whose weights have no bound as fewer slots are hidden


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    hidden_dim: int = 64  # width of every token
    layers: int = 2  # DiT blocks; two beat four at equal time on MiniGrid
    heads: int = 2  # with feedforward=2 it trains faster than four heads with feedforward=4, and no worse
    feedforward: int = 2  # width of the blocks' MLPs, in multiples of hidden_dim
    reader_dim: int = 512  # width of the MLP that reads the features where encoder.join=concat; else there is none
    dropout: float = 0.0  # of each block's output
    corruptions: int = 1  # random masks per plan in a training step; they share one encoding of the state
    frames: list[int] = field(default_factory=lambda: [0])  # observed frames, in steps back from the present (0)
    horizon: int = 8  # slots of a plan; expert plans rarely need more before the view changes
    execute: int = 4  # actions executed before the next plan
    bins: int = 32  # per dimension of a continuous action
    label_spread: float = 0.0  # standard deviation, in bins, of a continuous action's label over the bins around it; 0: one bin
    denoise_steps: int = 8  # rounds of unmasking; each commits at least one slot, so there are at most `horizon`
    order: Order = "confident"  # of unmasking: the most certain slots first; "random" samples the learned distribution
    temperature: float = 1.0  # of sampled acting
    corruption: Literal["mask", "noise"] = "mask"  # a hidden slot is a learned [MASK] or Gaussian noise (write-up 001)
    conditioning: Literal["cross_attention", "pooled"] = "cross_attention"  # pooled: the state as one mean vector (write-up 001)
    padding: Literal["end", "repeat_last"] = "end"  # repeat_last: slots after the end repeat the last action (write-up 001)
    weighting: Literal["none", "elbo"] = "none"  # elbo: hidden slots count more if fewer are hidden (MDLM); worse for control

    def __post_init__(self) -> None:
        check_plan(self.frames, self.horizon, self.execute)
        for name in ("hidden_dim", "layers", "heads", "feedforward", "reader_dim", "denoise_steps", "corruptions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim must be a multiple of 2 * heads = {2 * self.heads}, got {self.hidden_dim}")
        check_bins(self.bins)
        check_spread(self.label_spread)
        check_dropout(self.dropout)
        check_temperature(self.temperature)


class Context(NamedTuple):
    """The encoded state, computed once for all rounds of unmasking."""

    pooled: Tensor  # [B, d]
    keys_values: list[tuple[Tensor, Tensor]] | None  # per block [B, heads, To*S, d/heads]; None: pooled state only
    mask: Tensor | None  # [B, 1, 1, To*S] which tokens exist; None: all


class MaskedDiT(PlanningPolicy):
    starts_from: ClassVar[tuple[str, ...]] = ("policies.bc_mlp.BCMLP",)

    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        return refuse("masked_dit", spaces.action) or encoders.Encoder.accepts(config.encoder, spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(spaces, config.frames, config.horizon, config.execute)
        self.config = config
        self.tokens = Tokens(spaces.action, config.bins)
        self.END, self.PAD, self.MASK = self.tokens.END, self.tokens.PAD, self.tokens.PAD + 1
        self.slots = config.horizon * self.tokens.per_action
        self.unmasking = Unmasking(
            config.order,
            self.slots,
            config.denoise_steps,
            config.temperature,
            end=self.END,
            mask=self.MASK,
            per_action=self.tokens.per_action,
        )
        width, attends = config.hidden_dim, config.conditioning == "cross_attention"
        self.classes = self.tokens.values + (config.padding == "end")
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, width)
        self.modalities = tuple(self.encoder.parts)
        self.read: nn.Module = nn.Identity()
        if config.encoder.join == "concat":  # the features as they are, in one token of another width
            inner = config.reader_dim
            layers = [
                nn.Linear(self.encoder.width, inner),
                nn.GELU(),
                nn.Linear(inner, inner),
                nn.GELU(),
                nn.Linear(inner, width),
            ]
            self.read = nn.Sequential(*layers)
        self.frame = nn.Parameter(torch.randn(len(config.frames), width) * 0.02) if len(config.frames) > 1 else None
        self.pool = nn.Linear(width, width)
        self.token = nn.Embedding(self.MASK + (config.corruption == "mask"), width)
        # As in the write-up: a projection that can make tokens differ from the noise around them.
        self.project = nn.Identity() if config.corruption == "mask" else nn.Linear(width, width)
        self.slot = nn.Parameter(torch.randn(self.slots, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        shape = (config.heads, config.feedforward * width, attends, config.dropout)
        self.blocks = nn.ModuleList(DiTBlock(width, *shape) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, self.classes)
        for layer in (self.modulation, self.head):  # zero: the first loss is ln(classes) to the last digit
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def fit(self, statistics: Statistics) -> None:
        self.encoder.fit(statistics)
        self.tokens.fit(statistics)

    # --- the network -------------------------------------------------------------------------------------------------

    def encode(self, seen: dict[str, Tensor], known: Tensor, noise: Noise | None = None) -> Context:
        """Frames `seen` {name: [B, To, ...]}; `known` [B, To] marks those that belong to the episode."""
        tokens, mask = self.read(self.encoder(seen, known, noise)), None  # [B, To, S, d]
        if self.frame is None:
            tokens = tokens.flatten(1, 2)
            mean = tokens.mean(1)
        else:
            tokens = (tokens + self.frame[:, None]).flatten(1, 2)
            there = known.repeat_interleave(self.encoder.tokens, dim=1)  # [B, To*S]
            mean = (tokens * there[..., None]).sum(1) / there.sum(1, keepdim=True)
            mask = there[:, None, None]
        attends = self.config.conditioning == "cross_attention"
        keys_values = [block.keys_values(tokens) for block in self.blocks] if attends else None  # type: ignore[operator]
        return Context(self.pool(mean), keys_values, mask)

    def denoise(self, context: Context, tokens: Tensor, time: Tensor, noise: Noise) -> Tensor:
        """Logits [B, H, classes] for partly masked plans [B, H] at diffusion times [B] (1: all masked). Each row of the context
        may serve several plans."""
        pooled = context.pooled.repeat_interleave(len(tokens) // len(context.pooled), dim=0)
        condition = pooled + self.time(sinusoidal_embedding(time, pooled.shape[-1]))
        x = self.corrupted(tokens, noise) + self.slot
        for index, block in enumerate(self.blocks):
            x = block(x, condition, context.keys_values and context.keys_values[index], context.mask)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.head(self.norm(x) * (1 + scale) + shift).float()

    def corrupted(self, tokens: Tensor, noise: Noise) -> Tensor:
        """The plan as the network's input [B, H, d]."""
        if self.config.corruption == "mask":
            return self.token(tokens)
        hidden, ways = tokens == self.MASK, len(tokens) // len(noise.rows)
        drawn = noise.normal(ways, tokens.shape[1], self.config.hidden_dim).flatten(0, 1)
        return torch.where(hidden[..., None], drawn, self.project(self.token(tokens.masked_fill(hidden, 0))))

    # --- training ----------------------------------------------------------------------------------------------------

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The tokens of the recorded plan [B, slots], and which of them are targets."""
        if self.config.padding == "repeat_last":  # a window repeats its last action after its end
            shown = (batch["action_mask"] | batch["ended"]).repeat_interleave(self.tokens.per_action, dim=1)
            return self.tokens.encode(batch["action"]).flatten(1), shown
        return self.tokens.targets(batch)

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        plan, counted = self.targets(batch)  # [B, H]
        ways, slots = self.config.corruptions, plan.shape[1]
        ended = batch["ended"].repeat_interleave(self.tokens.per_action, dim=1)
        plan, counted, ended = (x.repeat_interleave(ways, dim=0) for x in (plan, counted, ended))  # [B * ways, slots]
        # One draw for the time, the slots that it hides, and the choice of one slot: a GPU counts kernels.
        drawn = noise.uniform(ways * (1 + 2 * slots)).split((ways, ways * slots, ways * slots), dim=1)
        time, hides, chooses = drawn[0].flatten(), *(x.reshape(-1, slots) for x in drawn[1:])  # [B * ways], [B * ways, slots]
        hidden = hides < mask_ratio(time)[:, None]
        # A plan with nothing hidden has no target (alone, its loss would be 0/0): hide one of its slots.
        idle = ~(hidden & counted).any(1)
        one = torch.where(counted, chooses, -1.0).argmax(1, keepdim=True)
        hidden = hidden.scatter(1, one, hidden.gather(1, one) | idle[:, None])
        # PAD reveals where the plan ends, so it is shown only together with END. Slots after a truncation are always hidden.
        shows_end = ((plan == self.END) & ~hidden).any(1, keepdim=True)
        tokens = plan.masked_fill(torch.where(counted, hidden, ~(ended & shows_end)), self.MASK)

        context = self.encode(batch["observation"], batch["observation_mask"], noise)
        logits = self.denoise(context, tokens, time, noise)
        asked = hidden & counted
        spread = 0.0 if self.tokens.discrete else self.config.label_spread
        loss = self.tokens.cross_entropy(logits, plan, asked, spread)  # [B, slots]
        weight = self.weight(time, idle)[:, None] * asked  # [B, H]
        metrics = {
            "accuracy": (((logits.argmax(-1) == plan) & asked).sum(), asked.sum()),
            "mask_ratio": (hidden.sum(), torch.ones_like(hidden).sum()),
        }
        if spread:  # then the loss is not comparable with others'
            plain = self.tokens.cross_entropy(logits.detach(), plan, asked)
            metrics["cross_entropy"] = ((plain * weight).sum(), weight.sum())
        if not self.training:
            metrics |= self.first_action(context, batch, noise)
        return Loss((loss * weight).sum(), weight.sum(), metrics)

    def weight(self, time: Tensor, idle: Tensor) -> Tensor:
        """The weight of a hidden slot [B]: 1, or p'/p of the mask ratio p, as in the likelihood's bound. The bound does not cover
        slots that are hidden only to give an idle plan a target. The loss is the mean with these weights."""
        if self.config.weighting == "none":
            return torch.ones_like(time)
        weight = math.pi / 2 / torch.tan(math.pi / 2 * time).clamp(min=1e-6)
        return weight.clamp(max=LARGEST_WEIGHT).masked_fill(idle, 0.0)

    def first_action(self, context: Context, batch: Batch, noise: Noise) -> dict[str, tuple[Tensor, Tensor]]:
        """The loss of the next action with the whole plan hidden. Unlike the training loss, it can be compared with other
        policies' losses and with the data's entropy floor."""
        first, values = slice(0, self.tokens.per_action), self.tokens.values
        label = self.tokens.encode(batch["action"])[:, 0]  # [B, per_action]
        tokens = torch.full((len(label), self.slots), self.MASK, device=label.device)
        time = torch.ones(len(label), device=label.device)
        logits = self.denoise(context, tokens, time, noise)[:, first, :values]
        counted = batch["action_mask"][:, :1]
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label) * counted
        correct = (logits.argmax(-1) == label).all(1) & counted[:, 0]
        count = counted.sum()
        return {"first_action_loss": (loss.sum(), count), "first_action_accuracy": (correct.sum(), count)}

    def chance_loss(self, batch: Batch) -> float:
        return math.log(self.classes)

    # --- acting ------------------------------------------------------------------------------------------------------

    def plan(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> tuple[Tensor, Tensor]:
        return self.tokens.actions(self.unmasked(seen, known, noise, greedy))

    def unmasked(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool = False) -> Tensor:
        """The tokens of a plan [N, slots]."""
        *_, plan = self.unmask(seen, known, noise, greedy)
        return plan

    def rounds(self, observation: dict[str, Tensor], noise: Noise, greedy: bool = False) -> Tensor | None:
        if not self.tokens.discrete:
            return None
        lanes, device = len(next(iter(observation.values()))), self.slot.device
        memory = self.start(lanes, device)
        self.remember(observation, memory)
        seen, known = self.look(observation, memory, torch.arange(lanes, device=device))
        hidden = torch.full((lanes, self.slots), self.MASK, device=device)
        return torch.stack([hidden, *self.unmask(seen, known, noise, greedy)])

    def unmask(self, seen: dict[str, Tensor], known: Tensor, noise: Noise, greedy: bool) -> Iterator[Tensor]:
        """The plan [N, H] after each round."""
        if greedy:  # the same draw for every state, or `corruption: noise` would make greedy plans random
            noise = Noise(0, 0, torch.zeros_like(noise.rows))
        context = self.encode(seen, known)
        lanes = len(context.pooled)
        tokens = torch.full((lanes, self.slots), self.MASK, device=context.pooled.device)
        for index, time in enumerate(self.unmasking.times):
            logits = self.denoise(context, tokens, context.pooled.new_full((lanes,), time), noise)
            tokens = self.unmasking.commit(tokens, logits, index, noise, greedy)
            yield tokens
