"""Policies that learn from learning histories: each step of many episodes of one task is a token, and every token has a target.

They share the token of a step, the loss and its floor, and what is refused. A token holds the observation, whether an episode
begins, and the action and reward of the step before, also across episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.base import DataConfig, Spaces
from envs.data.statistics import Statistics
from policies import encoders
from policies.actions import Tokens, choose, refuse
from policies.actions.tokens import check_bins
from policies.base import Batch, Loss, Memory, Policy, Window, check_temperature
from policies.nets import Table
from policies.noise import Noise

SPREAD = 0.5  # standard deviation of what is added to an observation's token, which has 1


@dataclass
class Config:
    encoder: encoders.Config = field(default_factory=encoders.Config)  # encoder=
    hidden_dim: int = 64  # width of every token
    layers: int = 3  # as good as four on Dark Room, and faster by half
    heads: int = 4
    feedforward: int = 2  # width of the blocks' MLPs, in multiples of hidden_dim
    length: int = 320  # steps of a training sample: long enough for the source to become good within it
    every: int = 1  # use every k-th episode of a history, so that a slow learner's history fits into `length`
    from_start: float = 0.7  # share of samples that begin at the start of a history (1.0: write-up 003's sampler)
    targets: Literal["every", "one"] = "every"  # one: only one random step of a sample has a target (write-up 003)
    label_smoothing: float = 0.0  # makes the policy act at random for ever, and raises the loss floor
    late: int = 0  # from this episode of a history on the loss counts `late_weight` times: for recall
    late_weight: float = 1.0
    dropout: float = 0.0  # of each block's output; it slows learning, and there are plenty of histories
    bins: int = 32  # per dimension of a continuous action
    temperature: float = 1.0  # of sampled acting; greedy acting cannot explore

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "layers", "heads", "feedforward", "length", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim must be a multiple of 2 * heads = {2 * self.heads}, got {self.hidden_dim}")
        for name in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.late < 0 or self.late_weight <= 0:
            raise ValueError(f"late must be at least 0 and late_weight above 0, got {self.late} and {self.late_weight}")
        if not 0 <= self.from_start <= 1:
            raise ValueError(f"from_start is a share between 0 and 1, got {self.from_start}")
        check_bins(self.bins)
        check_temperature(self.temperature)


class StepTokens(nn.Module):
    """One token [B, T, d] for each step: the observation, plus what led to it."""

    def __init__(self, config: Config, spaces: Spaces, actions: Tokens):
        super().__init__()
        width = config.hidden_dim
        self.actions = actions
        self.modalities = tuple(spaces.observation)
        self.encoder = encoders.Encoder(config.encoder, spaces.observation, width)
        joined = self.encoder.tokens * self.encoder.width
        self.merge = nn.Identity() if joined == width else nn.Linear(joined, width)
        self.action = Table(actions.per_action * actions.values, width)  # a table for each token of an action
        self.reward = Table(3, width)  # the reward's sign, because every environment has its own units
        self.first = Table(2, width)
        for table in (self.action, self.reward, self.first):
            nn.init.normal_(table.weight, std=SPREAD)

    def forward(self, batch: Batch) -> Tensor:
        seen = self.merge(self.encoder({name: batch["observation"][name] for name in self.modalities}).flatten(2))
        tables = torch.arange(self.actions.per_action, device=seen.device) * self.actions.values
        action = self.action(self.actions.encode(batch["previous_action"]) + tables).sum(2)
        reward = batch["previous_reward"].sign().long() + 1
        return seen + action + self.reward(reward) + self.first(batch["first"].long())


class HistoryPolicy(Policy):
    """Subclasses write `forward`, which ends in `loss`, and for acting `start` and `step`."""

    memory_scope: ClassVar[str] = "history"

    @classmethod
    def accepts(cls, config: Any, spaces: Spaces) -> str | None:
        name = cls.__module__.rpartition(".")[2]
        if config.encoder.image_shift:
            return f"policy={name} does not shift images: leave out policy.encoder.image_shift"
        return refuse(name, spaces.action) or encoders.Encoder.accepts(config.encoder, spaces.observation)

    @classmethod
    def accepts_data(cls, config: Any, data: DataConfig | None, max_steps: int) -> str | None:
        name = cls.__module__.rpartition(".")[2]
        if data is None:
            return None
        if data.learners:
            return cls.fits(config, data, max_steps)
        sources = ", ".join(f"env.data.source={source}" for source in data.SOURCES)
        return f"policy={name} learns from learning histories, and the expert's single episodes are none: choose {sources}"

    @classmethod
    def fits(cls, config: Any, data: DataConfig, max_steps: int) -> str | None:
        """A sentence if no sample spans more than one episode."""
        if config.length <= max_steps:
            return (
                f"policy.length={config.length} is no longer than one episode of up to {max_steps} steps, so that no sample "
                "shows what came of an earlier one: raise policy.length, or lower env.max_steps"
            )
        if config.every >= data.episodes_per_history > 1:
            return (
                f"policy.every={config.every} leaves one of the {data.episodes_per_history} episodes of a history: lower it, or "
                "raise env.data.episodes_per_history"
            )
        if config.late_weight != 1 and config.late >= data.episodes_per_history:
            return f"policy.late={config.late} comes after all of the {data.episodes_per_history} episodes of a history: lower it"
        return None

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__()
        self.config = config
        steps = config.length
        self.window = Window(steps, steps, align="each", span="history", every=config.every, from_start=config.from_start)
        self.token = StepTokens(config, spaces, Tokens(spaces.action, config.bins))
        self.head = nn.Linear(config.hidden_dim, self.actions.per_action * self.actions.values)
        nn.init.zeros_(self.head.weight)  # the first loss is ln(actions) to the last digit
        nn.init.zeros_(self.head.bias)

    @property
    def actions(self) -> Tokens:
        return self.token.actions

    def fit(self, statistics: Statistics) -> None:
        self.token.encoder.fit(statistics)
        self.actions.fit(statistics)

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, T, per_action, values]: the tokens of an action are predicted independently of each other."""
        return self.head(hidden).unflatten(-1, (self.actions.per_action, self.actions.values)).float()

    def step(self, token: Tensor, memory: Memory) -> Tensor:
        """The features [N, d] that predict the next action; updates `memory` with the token."""
        raise NotImplementedError("step(token [N, d], memory) -> [N, d]")

    def compressions(self, slot: np.ndarray) -> np.ndarray:
        """How often the past of these steps [n] of a sample was compressed: one row per way in which training cuts samples."""
        return np.zeros((1, len(slot)), np.int64)

    # --- training ----------------------------------------------------------------------------------------------------

    def loss(self, hidden: Tensor, batch: Batch, noise: Noise) -> Loss:
        """The loss of all actions of the batch, from features [B, T, d] of each step and the steps before it."""
        logits, action = self.logits(hidden), self.actions.encode(batch["action"])  # [B, T, A, values], [B, T, A]
        counted = batch["action_mask"]
        if self.training and self.config.targets == "one":
            counted = one_of_each(counted, noise)
        label = action.masked_fill(~counted[..., None], -100).flatten()  # cross_entropy's "ignore"

        def cross_entropy(smoothing: float) -> Tensor:
            loss = F.cross_entropy(logits.flatten(0, 2), label, reduction="none", label_smoothing=smoothing)
            return loss.view_as(action).sum(2)  # [B, T]

        plain = cross_entropy(0.0)
        total, count = plain.sum(), counted.sum()
        metrics = {"accuracy": (((logits.argmax(-1) == action).all(2) & counted).sum(), count)}
        smoothing, late_weight = self.config.label_smoothing, self.config.late_weight
        if smoothing or late_weight != 1:  # then the loss is not comparable with others'
            metrics["cross_entropy"] = (total.detach(), count)
            asked = cross_entropy(smoothing)
            weight = counted * torch.where(batch["episode"] >= self.config.late, late_weight, 1.0)
            total, count = (asked * weight).sum(), weight.sum()
        with torch.no_grad():
            told = counted & batch["floor"].isfinite() & self.actions.discrete  # for continuous actions it is that of a density
            metrics["excess"] = ((plain - batch["floor"]).where(told, 0.0).sum(), told.sum())
            if not self.training:
                metrics |= by_age(plain, counted, batch["episode"])
        return Loss(total, count, metrics)

    def chance_loss(self, batch: Batch) -> float:
        return self.actions.per_action * math.log(self.actions.values)

    # --- acting ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, observation: dict[str, Tensor], memory: Memory, noise: Noise, greedy: bool = False) -> tuple[Tensor, Memory]:
        now = {name: value[:, None] for name, value in observation.items()}  # T = 1
        token = self.token({"observation": now, **now})[:, 0]
        logits = self.logits(self.step(token, memory)[:, None])[:, 0]  # [N, A, values]
        chosen = choose(logits / self.config.temperature, noise, greedy)
        return self.actions.decode(chosen[:, None])[:, 0], memory


def one_of_each(counted: Tensor, noise: Noise) -> Tensor:
    """A mask of one random step among the counted ones of each row [B, T]."""
    chosen = torch.where(counted, noise.uniform(counted.shape[1]), -1.0).argmax(1, keepdim=True)
    return torch.zeros_like(counted).scatter(1, chosen, True) & counted


def by_age(loss: Tensor, counted: Tensor, episode: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The loss in each sample's first episode, where the task is still unknown, and in its last."""
    last = episode.where(counted, -1).amax(1, keepdim=True)
    places = {"first": episode == episode[:, :1], "last": episode == last}
    chosen = {name: counted & place for name, place in places.items()}
    return {f"loss_{name}_episode": ((loss * place).sum(), place.sum()) for name, place in chosen.items()}
