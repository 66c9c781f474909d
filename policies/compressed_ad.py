"""Algorithm distillation over a compressed past: a few latent tokens replace everything before the present block of steps.

The stream is cut into blocks. An encoder makes the next latents from the present ones and the block that follows them; a causal
decoder reads the latents and predicts the actions of the present block. This is a recurrence, trained end to end, so memory is
constant over any length. Latents come first in both, so that blocks of any length keep their positions; each batch draws one
length, because a network trained at a single length fails at others.

`depth` limits the recurrence, as in write-up 003 (experiment=seed_003): latents then hold only the last blocks, encoded again
from the learned initial latents. Its warm start is `init_from=` a run of `policy=ad`; its reconstruction loss is an option.

Plain Dark Room needs none of this: a window of two episodes is enough. Two-goal recall (env.game=recall) needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from envs.base import Spaces
from policies import histories
from policies.base import Batch, Loss, Memory
from policies.histories import HistoryPolicy
from policies.nets import Attention
from policies.noise import Noise
from policies.transformer import Transformer


@dataclass
class Config(histories.Config):
    length: int = 600  # thirty episodes of Dark Room: as many compressions as acting needs
    latents: int = 20  # tokens that hold the past
    encoder_layers: int = 2
    block: int = 40  # steps between two compressions when acting; memory is this and the latents
    blocks: list[int] = field(default_factory=lambda: [20, 30, 40])  # lengths in training; each batch draws one
    recent: int = 0  # blocks before the present one that are kept uncompressed; older ones are compressed
    depth: int = 0  # most compressions of the latents, which then hold the last `depth` blocks; 0: no limit
    reconstruction: float = 0.0  # weight of an auxiliary loss: predict from the latents the block they were made of

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latents", "encoder_layers", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks must be a list of lengths, each at least 1, got {self.blocks}")
        for name in ("recent", "depth", "reconstruction"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if min(self.blocks) * (1 + self.recent) >= self.length:
            whole = f"{1 + self.recent} of " if self.recent else ""
            raise ValueError(f"length must exceed {whole}the shortest of the blocks {self.blocks}, or nothing is compressed")


class CompressedAD(HistoryPolicy):
    alone = "each run draws the shapes of its steps"
    config: Config
    starts_from: ClassVar[tuple[str, ...]] = ("policies.ad.AD",)

    def __init__(self, config: Config, spaces: Spaces):
        super().__init__(config, spaces)
        width = config.hidden_dim
        shape = (config.heads, config.feedforward * width, config.dropout)
        self.decoder = Transformer(width, config.layers, *shape)
        self.compressor = Transformer(width, config.encoder_layers, *shape)
        self.blank = nn.Parameter(torch.randn(config.latents, width) * 0.02)  # latents of an empty past
        self.slot = nn.Parameter(torch.randn(config.latents, width) * 0.5)  # distinguishes latents from each other and from steps
        if config.reconstruction:
            longest = max(config.block, *config.blocks)
            self.place = nn.Parameter(torch.randn(longest, width))
            self.recall = Attention(width, config.heads)

    def compress(self, latents: Tensor, block: Tensor, turn: Tensor | None = None) -> Tensor:
        """The latents [B, L, d] after a block [B, b, d]."""
        read = self.compressor(torch.cat([latents + self.slot, block], dim=1), None, turn)
        return read[:, : self.config.latents]

    def compressions(self, slot: np.ndarray) -> np.ndarray:
        made = np.stack([np.maximum(slot // length - self.config.recent, 0) for length in self.config.blocks])
        return np.minimum(made, self.config.depth) if self.config.depth else made

    # --- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, noise: Noise) -> Loss:
        tokens = self.token(batch)
        blocks = self.cut(tokens, noise)
        latents = self.compressed(blocks)
        loss = self.loss(self.decoded(latents, blocks)[:, : tokens.shape[1]], batch, noise)
        return self.with_reconstruction(loss, latents, blocks, batch) if self.config.reconstruction else loss

    def variant(self, shared_uniform: float) -> int:
        """The length of a training step's blocks."""
        choices = self.config.blocks
        return choices[int(shared_uniform * len(choices))]

    def cut(self, tokens: Tensor, noise: Noise) -> Tensor:
        """[B, K, b, d]; the last block is padded with zeros, which no counted step attends to."""
        length = self.variant(noise.shared_uniform()) if self.training else self.config.block
        missing = -tokens.shape[1] % length
        return nn.functional.pad(tokens, (0, 0, 0, missing)).unflatten(1, (-1, length))

    def compressed(self, blocks: Tensor) -> Tensor:
        """The latents of everything before each block, [B, K, L, d]."""
        count = blocks.shape[1]
        if not self.config.depth:
            latents = [self.blank.expand(len(blocks), -1, -1)]
            turn = self.compressor.turn(self.config.latents + blocks.shape[2])
            for block in blocks[:, :-1].unbind(1):
                latents.append(self.compress(latents[-1], block, turn))
            return torch.stack(latents, dim=1)
        found = self.blank.expand(*blocks.shape[:2], -1, -1)
        for _ in range(min(self.config.depth, count - 1)):  # all blocks at once: each round adds one more block of the past
            read = self.compress(found[:, :-1].flatten(0, 1), blocks[:, :-1].flatten(0, 1)).unflatten(0, (-1, count - 1))
            found = torch.cat([found[:, :1], read], dim=1)
        return found

    def decoded(self, latents: Tensor, blocks: Tensor) -> Tensor:
        """[B, K * b, d], all blocks as one batch. Blocks before the first one are zeros."""
        count, recent = blocks.shape[1], self.config.recent
        before = nn.functional.pad(blocks, (0, 0, 0, 0, recent, 0))  # [B, recent+K, b, d]
        seen = [before[:, first : first + count] for first in range(recent + 1)]
        told = torch.cat([latents[:, :1].expand(-1, recent, -1, -1), latents], dim=1)[:, :count]
        x = torch.cat([told + self.slot, *seen], dim=2).flatten(0, 1)  # [B*K, L + (recent+1)*b, d]
        hidden = self.decoder(x, x.shape[1])[:, -blocks.shape[2] :]
        return hidden.unflatten(0, blocks.shape[:2]).flatten(1, 2)

    def with_reconstruction(self, loss: Loss, latents: Tensor, blocks: Tensor, batch: Batch) -> Loss:
        """Add the error of predicting a block's tokens from the latents made of it."""
        told, asked = latents[:, 1:].flatten(0, 1), blocks[:, :-1].detach()  # [B*(K-1), L, d], [B, K-1, b, d]
        place = self.place[: blocks.shape[2]].expand(len(told), -1, -1)
        error = (self.recall(place, self.recall.keys_values(told)).view_as(asked) - asked).square().mean(-1).flatten(1)
        known = batch["action_mask"][:, : error.shape[1]]
        error, count = (error * known).sum(), known.sum()
        parts = {"cross_entropy": (loss.total.detach(), loss.count), **loss.metrics, "reconstruction": (error.detach(), count)}
        # This has its own mean: the actions may be counted differently (policy.targets, policy.late_weight).
        return Loss(loss.total + self.config.reconstruction * error / count.clamp(min=1) * loss.count, loss.count, parts)

    # --- acting ------------------------------------------------------------------------------------------------------

    def start(self, num_envs: int, device: torch.device) -> Memory:
        config, lanes = self.config, torch.arange(num_envs, device=device)
        steps = (config.recent + 1) * config.block
        memory = self.decoder.start(num_envs, config.latents + steps, device)
        # With a limited depth: latents of the last block, of the last two, and so on.
        memory["latents"] = self.blank.detach().expand(num_envs, max(1, config.depth), -1, -1).clone()
        memory["steps"] = torch.zeros(num_envs, steps, config.hidden_dim, device=device)  # the uncompressed steps
        memory["position"] = torch.full_like(lanes, config.recent * config.block)  # where the next step goes
        memory["blocks"] = torch.zeros_like(lanes)  # number of full blocks
        with torch.no_grad():
            self.reread(memory, lanes)
        return memory

    def step(self, token: Tensor, memory: Memory) -> Tensor:
        full = (memory["position"] == memory["steps"].shape[1]).nonzero()[:, 0]
        if len(full):
            self.move_on(memory, full)
        position = memory["position"]
        memory["steps"][torch.arange(len(token), device=token.device), position] = token
        hidden = self.decoder.step(token, memory, self.config.latents + position)
        memory["position"] += 1
        return hidden

    def move_on(self, memory: Memory, lanes: Tensor) -> None:
        """A block is full: compress the oldest uncompressed block into the latents."""
        block, recent = self.config.block, self.config.recent
        old = lanes[memory["blocks"][lanes] >= recent]  # in other lanes the oldest block is still empty
        if len(old):
            memory["latents"][old] = self.renewed(memory["latents"][old], memory["steps"][old, :block])
        if recent:
            memory["steps"][lanes, : recent * block] = memory["steps"][lanes, block:]
        memory["blocks"][lanes] += 1
        memory["position"][lanes] = recent * block
        self.reread(memory, lanes)

    def reread(self, memory: Memory, lanes: Tensor) -> None:
        """Start the decoder's cache with the latents and the uncompressed blocks."""
        held = memory["steps"][lanes, : self.config.recent * self.config.block]
        self.decoder.prefill(torch.cat([memory["latents"][lanes, -1] + self.slot, held], dim=1), memory, lanes)

    def renewed(self, latents: Tensor, block: Tensor) -> Tensor:
        """All the latents [N, stages, L, d] after one more block [N, b, d]."""
        before = latents
        if self.config.depth:
            before = torch.cat([self.blank.expand(len(latents), 1, -1, -1), latents[:, :-1]], dim=1)
        stages = before.shape[1]
        return self.compress(before.flatten(0, 1), block.repeat_interleave(stages, dim=0)).unflatten(0, (-1, stages))
