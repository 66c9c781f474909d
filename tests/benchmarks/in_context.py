"""Acting with a cache, against recomputing the whole window in every step, with the same weights on the same steps.

    python tests/benchmarks/in_context.py [--context 100] [--lanes 64 256]

Both are the policy's own transformer; the recomputed one runs its training forward pass on the last `context` steps and reads
off the last. They take turns, CPU time is measured, so that other processes matter little, and medians are compared. The cached
logits are also compared with one banded forward pass over everything: the cache must not change them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from envs.darkroom import Config as DarkRoomConfig
from envs.darkroom import DarkRoom
from policies.ad import AD
from policies.ad import Config as ADConfig
from policies.compressed_ad import CompressedAD
from policies.compressed_ad import Config as CompressedConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=100, help="steps in the window of policy=ad")
    parser.add_argument("--lanes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--repeats", type=int, default=5, help="timings of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spaces = DarkRoom(DarkRoomConfig()).spaces
    for lanes in arguments.lanes:
        ad = AD(ADConfig(context=arguments.context), spaces).eval()
        compare(f"ad, context {arguments.context}", lanes, *of_ad(ad, lanes), arguments.repeats)
        compressed = CompressedAD(CompressedConfig(), spaces).eval()
        compare("compressed_ad, 20 latents + <= 40 steps", lanes, *of_compressed(compressed, lanes), arguments.repeats)


@torch.inference_mode()
def compare(name: str, lanes: int, cached: Callable[[], int], anew: Callable[[], int], difference: float, repeats: int) -> None:
    took: dict[Callable[[], int], list[float]] = {cached: [], anew: []}
    for _ in range(repeats):
        for work, times in took.items():
            began = time.process_time()
            steps = work()
            times.append((time.process_time() - began) / steps)
    fast, slow = (lanes / statistics.median(times) for times in took.values())
    words = f"{fast:8,.0f} steps/s cached, {slow:6,.0f} anew, ratio {fast / slow:5.1f}, logits differ by {difference:.1e}"
    print(f"{name:40} {lanes:4} lanes: {words}")


@torch.inference_mode()
def of_ad(policy: AD, lanes: int) -> tuple[Callable[[], int], Callable[[], int], float]:
    context, device = policy.config.context, torch.device("cpu")
    tokens = torch.randn(lanes, 3 * context, policy.config.hidden_dim)
    memory = policy.start(lanes, device)
    acting = torch.stack([policy.step(tokens[:, t], memory) for t in range(3 * context)], dim=1)
    few = slice(0, 8)
    difference = (acting[few] - policy.decoder(tokens[few], context)).abs().max().item()

    def cached() -> int:
        for t in range(20):
            policy.step(tokens[:, t], memory)
        return 20

    def anew() -> int:
        policy.decoder(tokens[:, :context], context)
        return 1

    return cached, anew, difference


@torch.inference_mode()
def of_compressed(policy: CompressedAD, lanes: int) -> tuple[Callable[[], int], Callable[[], int], float]:
    block, device = policy.config.block, torch.device("cpu")
    tokens = torch.randn(lanes, 5 * block, policy.config.hidden_dim)
    memory = policy.start(lanes, device)
    acting = torch.stack([policy.step(tokens[:, t], memory) for t in range(5 * block)], dim=1)
    blocks = tokens[:8].unflatten(1, (5, block))
    difference = (acting[:8] - policy.decoded(policy.compressed(blocks), blocks)).abs().max().item()
    latents = memory["latents"][:, -1:].clone()

    def cached() -> int:
        for t in range(block):
            policy.step(tokens[:, t], memory)
        return block

    def anew() -> int:
        policy.compress(latents[:, 0], tokens[:, :block])
        for t in range(0, block, 8):  # every eighth of the block's lengths stands for all of them
            policy.decoded(latents, tokens[:, None, : t + 4])
        return block // 8

    return cached, anew, difference


if __name__ == "__main__":
    main()
