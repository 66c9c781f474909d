"""Masked diffusion over action tokens with a DiT: plan `horizon` actions by unmasking them, execute a few, plan again.

Training hides a random share of the plan behind [MASK] and asks for the hidden tokens (MaskGIT, Chang et al. 2022; MDLM,
Sahoo et al. 2024); the network is a DiT (Peebles & Xie 2022) that attends to the state's tokens. Acting starts with every
slot masked and commits the most certain tokens first, in `denoise_steps` rounds.

Tokens: the actions, then END (the episode is over in this slot), PAD (after END) and MASK. Only actions and END are ever
predicted. Not to be confused with Gaussian diffusion over continuous actions: nothing is ever added to a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.base import Spaces
from policies import encoders
from policies.actions import choose, only_discrete
from policies.base import Batch, Loss, Memory, Policy, Window
from policies.nets import DiTBlock, sinusoidal_embedding
from policies.noise import Noise


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    hidden_dim: int = 64  # width of every token
    layers: int = 2  # DiT blocks; two beat four at equal time on MiniGrid
    heads: int = 4
    horizon: int = 8  # slots of a plan; expert plans rarely need more before the view changes
    execute: int = 4  # actions carried out before the next plan
    denoise_steps: int = 8  # rounds of unmasking; more than `horizon` cannot help, one commits all slots at once
    temperature: float = 1.0  # of sampled acting

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "layers", "heads", "horizon", "execute", "denoise_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim must be a multiple of 2 * heads = {2 * self.heads}, got {self.hidden_dim}")
        for name in ("execute", "denoise_steps"):
            if getattr(self, name) > self.horizon:
                raise ValueError(f"{name} cannot exceed horizon={self.horizon}, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature} (eval.decode=greedy takes the best token)")


# What the network needs to know of the state, computed once for all rounds of unmasking.
Context = tuple[Tensor, list[tuple[Tensor, Tensor]]]  # pooled [B, d], keys and values for each block


class MaskedDiT(Policy):
    @classmethod
    def accepts(cls, config: Config, spaces: Spaces) -> str | None:
        return only_discrete("masked_dit", spaces.action) or encoders.Encoder.accepts(spaces.observation)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__()
        self.config = config
        self.window = Window(actions=config.horizon)
        self.num_actions = int(spaces.action.n)  # type: ignore[attr-defined]
        self.END, self.PAD, self.MASK = range(self.num_actions, self.num_actions + 3)
        # Of each round of unmasking: the slots that it leaves hidden, by the cosine schedule, and the time that training pairs
        # with the share of slots that it finds hidden.
        horizon, rounds = config.horizon, config.denoise_steps
        cosine = [round(horizon * math.cos(math.pi / 2 * k / rounds)) for k in range(1, rounds + 1)]
        self.left = [min(left, horizon - k) for k, left in enumerate(cosine, start=1)]
        self.moments = [1 - 2 / math.pi * math.acos(left / horizon) for left in (horizon, *self.left[:-1])]
        width = config.hidden_dim
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, width)
        self.pool = nn.Linear(width, width)
        self.token = nn.Embedding(self.num_actions + 3, width)
        self.slot = nn.Parameter(torch.randn(config.horizon, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.blocks = nn.ModuleList(DiTBlock(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, self.num_actions + 1)
        for layer in (self.modulation, self.head):  # zero: the first loss is ln(actions + 1) to the last digit
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    # --- the network -------------------------------------------------------------------------------------------------

    def encode(self, observation: dict[str, Tensor]) -> Context:
        tokens = self.encoder(observation).flatten(1, 2)  # [B, To*S, d]
        return self.pool(tokens.mean(1)), [block.keys_values(tokens) for block in self.blocks]  # type: ignore[operator]

    def denoise(self, context: Context, tokens: Tensor, time: Tensor) -> Tensor:
        """Logits [B, H, actions + END] for a partly masked plan [B, H] at diffusion time [B] (1: all masked)."""
        pooled, keys_values = context
        condition = pooled + self.time(sinusoidal_embedding(time, pooled.shape[-1]))
        x = self.token(tokens) + self.slot
        for block, key_value in zip(self.blocks, keys_values, strict=True):
            x = block(x, condition, key_value)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.head(self.norm(x) * (1 + scale) + shift)

    # --- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        known, ended = batch["action_mask"], batch["ended"]  # [B, H]
        is_end = ended & (ended.cumsum(1) == 1)
        plan = torch.where(known, batch["action"], self.PAD).masked_fill(is_end, self.END)
        counted = known | is_end

        time = noise.uniform()  # [B]
        hidden = noise.uniform(plan.shape[1]) < mask_ratio(time)[:, None]
        # A plan with nothing hidden teaches nothing (and would be 0/0 alone): hide one of its slots.
        one = torch.where(counted, noise.uniform(plan.shape[1]), -1.0).argmax(1, keepdim=True)
        hidden = hidden.scatter(1, one, hidden.gather(1, one) | ~(hidden & counted).any(1, keepdim=True))
        # PAD says where the plan ends, so it shows only together with END. Slots after a truncation hold nothing to show.
        shows_end = (is_end & ~hidden).any(1, keepdim=True)
        tokens = plan.masked_fill(torch.where(counted, hidden, ~(ended & shows_end)), self.MASK)

        logits = self.denoise(self.encode(batch["observation"]), tokens, time).float()
        asked = hidden & counted
        label = plan.masked_fill(~asked, -100)  # cross_entropy's "ignore"
        loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="sum")
        correct = (logits.argmax(-1) == plan) & asked
        mask = (hidden.sum(), torch.tensor(hidden.numel(), device=hidden.device))
        return Loss(loss, asked.sum(), {"accuracy": (correct.sum(), asked.sum()), "mask_ratio": mask})

    def chance_loss(self, batch: Batch) -> float:
        return math.log(self.num_actions + 1)

    # --- acting ------------------------------------------------------------------------------------------------------

    def plan(self, observation: dict[str, Tensor], noise: Noise, greedy: bool = False) -> Tensor:
        """Unmask a whole plan [N, H] for observations {name: [N, To, ...]}."""
        context = self.encode(observation)
        pooled = context[0]
        tokens = pooled.new_full((len(pooled), self.config.horizon), self.MASK, dtype=torch.long)
        for moment, left in zip(self.moments, self.left, strict=True):
            logits = self.denoise(context, tokens, pooled.new_full((len(pooled),), moment)).float()
            logits[:, 0, self.END] = -torch.inf  # whoever is asked for a plan has not finished
            proposal = choose(logits / self.config.temperature, noise, greedy)  # [N, H]
            chance = logits.softmax(-1)
            # A slot exists only if the plan has not ended before it: without this factor, slots far behind the end, which
            # nothing in training ever asked about, would be committed first.
            masked = tokens == self.MASK
            end_here = torch.where(masked, chance[..., self.END], (tokens >= self.END).float())
            reached = (1 - end_here).cumprod(1).roll(1, dims=1)
            reached[:, 0] = 1
            certainty = chance.gather(-1, proposal[..., None])[..., 0] * reached
            order = certainty.masked_fill(~masked, -1.0).argsort(dim=1, descending=True, stable=True)
            rank = order.argsort(1)  # 0: the most certain of the masked slots
            hidden = masked.sum(1, keepdim=True)
            commit = rank < (hidden - left).clamp(min=1)  # at least one a round, so that no round is wasted
            tokens = torch.where(commit & masked, proposal, tokens)
            after_end = (tokens == self.END).cumsum(1) - (tokens == self.END).long() > 0
            tokens = tokens.masked_fill(after_end, self.PAD)
        return tokens

    def start(self, num_envs: int, device: torch.device) -> Memory:
        plan = torch.full((num_envs, self.config.horizon), self.PAD, device=device)  # nothing left to execute
        return {"plan": plan, "next": torch.zeros(num_envs, dtype=torch.long, device=device)}

    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        plan, slot = memory["plan"], memory["next"]
        used_up = slot >= self.config.execute
        over = plan.gather(1, slot.clamp(max=self.config.horizon - 1)[:, None])[:, 0] >= self.END
        lanes = (used_up | over).nonzero()[:, 0]
        if len(lanes):
            now = {name: value[lanes, None] for name, value in observation.items()}  # To = 1
            plan = plan.index_copy(0, lanes, self.plan(now, noise[lanes], greedy))
            slot = slot.index_fill(0, lanes, 0)
        return plan.gather(1, slot[:, None])[:, 0], {"plan": plan, "next": slot + 1}


def mask_ratio(time: Tensor) -> Tensor:
    """Share of hidden slots at time t: none at 0, all at 1 (the cosine schedule)."""
    return torch.cos(math.pi / 2 * (1 - time))
