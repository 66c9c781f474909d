"""Cost of masked diffusion: sequences per second in training, and milliseconds per plan by the number K of unmasking rounds.

    python tests/benchmarks/sampler.py

`ours` is the default of policy=masked_dit; `write-up` is the layout of experiment=seed_001 at the same width (49 slots, four
layers of four heads with MLPs of four widths, a convolutional tokenizer, a pooled state). A training step is fetching a batch,
forward, backward and optimiser; medians are compared, at the same batch of 256 and with the write-up's own of 16. Plans are
made for many states at once, as in an evaluation, with the state encoded once for all rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from conf.check import Request, typed
from envs.data import record
from envs.data.store import Dataset
from envs.data.windows import Windows
from policies.base import Policy
from policies.noise import Noise
from trainers.loop.optim import make_optimizer

ROOT = Path(__file__).parents[2]
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="training steps of each layout; plans, half as many")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--states", type=int, default=200, help="for which a plan is made at once")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, DoorKey-8x8")
    for width in arguments.widths:
        ours, write_up = (request(f"policy.hidden_dim={width}", *more) for more in ((), ("experiment=seed_001",)))
        data = record.dataset(ours.targets["env"](ours.env), ours.env.data, "train", Path(ours.data_dir))
        speeds = {
            "ours": training(ours, data, arguments.steps),
            "write-up": training(write_up, data, arguments.steps),
            "its batch": training(write_up, data, 8 * arguments.steps, write_up.trainer.batch_size),
        }
        print(f"\nwidth {width}: training, sequences/s")
        for name, speed in speeds.items():
            print(f"  {name:10} {speed:8,.0f}")
        print("  ratios     " + ", ".join(f"{speeds['ours'] / speeds[other]:.1f}" for other in ("write-up", "its batch")))
        print(f"width {width}: a plan for {arguments.states} states, ms")
        for name, asked, rounds in (("ours", ours, (1, 2, 4, 8)), ("write-up", write_up, (1, 8, 49))):
            times = [planning(asked, data, k, max(1, arguments.steps // 2), arguments.states) for k in rounds]
            print(f"  {name:10} " + "  ".join(f"K={k} {ms:.1f}" for k, ms in zip(rounds, times, strict=True)))


def request(*overrides: str) -> Request:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return typed(compose("config", ["env.id=MiniGrid-DoorKey-8x8-v0", *overrides], return_hydra_config=True))


def made(asked: Request) -> Policy:
    torch.manual_seed(0)
    return asked.targets["policy"](asked.policy, asked.targets["env"](asked.env).spaces)


def training(asked: Request, data: Dataset, steps: int, size: int = BATCH) -> float:
    """Sequences a second."""
    policy = made(asked)
    windows, optimizer = Windows(data, policy.window), make_optimizer(asked.trainer.optimizer, [*policy.parameters()])
    random, rows = np.random.default_rng(0), torch.arange(size)

    def step(number: int) -> None:
        batch = windows.batch(random.integers(0, len(windows), size))
        loss = policy(batch, Noise(0, number, rows))
        optimizer.zero_grad(set_to_none=True)
        (loss.total / loss.count).backward()
        optimizer.step()

    return size / middle(step, steps)


@torch.inference_mode()
def planning(asked: Request, data: Dataset, rounds: int, times: int, states: int) -> float:
    policy = made(replace(asked, policy=replace(asked.policy, denoise_steps=rounds))).eval()
    batch = Windows(data, policy.window).batch(np.linspace(0, len(data) - 1, states).astype(np.int64))
    seen, known, rows = batch["observation"], batch["observation_mask"], torch.arange(states)
    return 1000 * middle(lambda number: policy.plan(seen, known, Noise(0, number, rows)), times)


def middle(work: Callable[[int], object], times: int) -> float:
    """Median seconds, after one that warms up."""
    took = []
    for number in range(times + 1):
        began = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


if __name__ == "__main__":
    main()
