"""How a masked plan is filled in, round by round: which slots are committed, and to what.

Every round the network proposes a token for each slot. Some slots keep their proposal, the others stay hidden until a later
round, which sees what was kept. `order` says which slots those are:

- `random`: slots in random order (the ancestral sampler of MDLM, Sahoo et al. 2024). With one slot a round (as many rounds as
  slots, temperature 1) a plan is an exact sample of what the network has learned. With fewer rounds the slots of one round are
  drawn independently of each other, given the rounds before.
- `confident`: the most certain of the drawn tokens first. Likely plans become more likely, as with a temperature below 1: if
70 % of the plans are AAAA and 30 % BBBB, four rounds make hardly any BBBB.
- `annealed`: as `confident`, with Gumbel noise on the logarithm of the certainty, less of it each round and none in the last
  (MaskGIT, Chang et al. 2022). Between the two.

Greedy plans draw nothing: in every `order`, each slot takes its most likely token, the most certain slot first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from policies.actions import choose
from policies.noise import Noise

Order = Literal["random", "confident", "annealed"]
ANNEALING = 4.5  # scale of the Gumbel noise before the first round; MaskGIT's


def mask_ratio(time: Tensor) -> Tensor:
    """Share of hidden slots at time t: none at 0, all at 1 (the cosine schedule)."""
    return torch.cos(math.pi / 2 * (1 - time))


@dataclass(frozen=True)
class Unmasking:
    """Tokens below `end` are actions, `end` ends the plan, `end + 1` pads the slots after it, `mask` is a hidden slot."""

    order: Order
    horizon: int
    rounds: int
    temperature: float
    end: int
    mask: int
    per_action: int = 1  # tokens of one action; no plan ends inside an action

    @property
    def left(self) -> list[int]:
        """How many slots each round leaves hidden: the cosine schedule, with at least one slot fewer each round."""
        rounds = min(self.rounds, self.horizon)
        cosine = [round(self.horizon * math.cos(math.pi / 2 * k / rounds)) for k in range(1, rounds + 1)]
        return [min(left, self.horizon - k) for k, left in enumerate(cosine, start=1)]

    @property
    def times(self) -> list[float]:
        """For each round, the training time with the same share of hidden slots."""
        return [1 - 2 / math.pi * math.acos(hidden / self.horizon) for hidden in (self.horizon, *self.left[:-1])]

    def commit(self, tokens: Tensor, logits: Tensor, index: int, noise: Noise, greedy: bool) -> Tensor:
        """The plans [N, H] after round `index`, from the plans before it and the network's logits [N, H, classes] for them."""
        logits = self._possible(tokens, logits)
        masked = tokens == self.mask
        proposal = choose(logits / self.temperature, noise, greedy)  # [N, H]
        score = self._score(tokens, logits, proposal, index, noise, greedy)
        order = score.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(1)  # 0: the first of the masked slots
        # At least one slot a round, so that no round is wasted.
        chosen = masked & (rank < (masked.sum(1, keepdim=True) - self.left[index]).clamp(min=1))
        if self.order == "random" and not greedy:
            # A slot's prediction assumes that the plan reaches that slot. If the proposals end before a chosen slot, the plan is
            # over there, so that END is committed too.
            ends = masked & (proposal == self.end)
            first = ends & (ends.cumsum(1) == 1)
            chosen |= first & _any_behind(chosen)
        tokens = torch.where(chosen, proposal, tokens)
        ended = tokens == self.end
        return tokens.masked_fill(ended.cumsum(1) - ended.long() > 0, self.end + 1)

    def _possible(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """A plan is never empty, and never ends in the middle of an action or before a slot that has been committed."""
        never_ends = _any_behind(tokens <= self.end)
        never_ends[:, 0].fill_(True)
        never_ends |= torch.arange(logits.shape[1], device=logits.device) % self.per_action > 0
        is_end = torch.arange(logits.shape[-1], device=logits.device) >= self.end
        return logits.masked_fill(never_ends[..., None] & is_end, -torch.inf)

    def _score(self, tokens: Tensor, logits: Tensor, proposal: Tensor, index: int, noise: Noise, greedy: bool) -> Tensor:
        """Scores [N, H]: masked slots with a higher score are committed earlier."""
        if self.order == "random" and not greedy:
            return noise.uniform(self.horizon)
        chance = logits.softmax(-1)
        # A slot exists only if the plan has not ended before it. Without this factor, slots far after the end, which are never
        # targets in training, would be committed first.
        ends_here = torch.where(tokens == self.mask, chance[..., self.end :].sum(-1), (tokens >= self.end).float())
        reached = (1 - ends_here).cumprod(1).roll(1, dims=1)
        reached[:, 0].fill_(1)
        certainty = chance.gather(-1, proposal[..., None])[..., 0] * reached
        if self.order == "annealed" and not greedy:
            scale = ANNEALING * (1 - (index + 1) / len(self.left))
            return certainty.clamp(min=1e-30).log() + scale * noise.gumbel(self.horizon)
        return certainty


def _any_behind(marked: Tensor) -> Tensor:
    """Which slots [N, H] have a marked one after them."""
    return marked.flip(1).cumsum(1).flip(1) - marked.long() > 0
