"""Speed of the batched engine's steps relative to one real MiniGrid, both measured in one run.

    python tests/benchmarks/engine.py [--id MiniGrid-DoorKey-8x8-v0] [--repeats 5]

A step is everything the caller waits for: `VectorEnv.step` with its observation and autoreset, and `env.step` of `gym.make(id)`
with its reset. Actions are random. Layouts are made beforehand; one line shows the time that takes. The best of the repeats
counts.
"""
# ruff: noqa: E402  (the number of threads must be set before NumPy is imported)

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import time
import warnings

import gymnasium
import numpy as np

from envs.minigrid import Config, MiniGrid
from envs.minigrid.bank import bank

SECONDS = 0.5  # of each measurement


def minigrid_rate(id: str, rng: np.random.Generator) -> float:
    """Steps a second of one real environment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gymnasium.make(id)
    env.reset(seed=0)
    actions = rng.integers(0, 7, 100).tolist()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        steps += len(actions)
    return steps / (time.perf_counter() - start)


def engine_rate(family: MiniGrid, lanes: int, layouts: int, rng: np.random.Generator) -> float:
    """Steps per second of all lanes together, over episodes that started at different times."""
    vector = family.vector(lanes, seeds=np.resize(family.seeds("train", layouts), 100 * lanes))
    vector.stack_final_obs = True
    vector.reset()
    vector.engine.steps[:] = rng.integers(0, vector.engine.max_steps)  # so that truncations are spread out, as in a long run
    actions = rng.integers(0, 7, (100, lanes))
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for action in actions:
            vector.step(action)
        steps += actions.size
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--id", default="MiniGrid-DoorKey-8x8-v0")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layouts", type=int, default=2000)
    args = parser.parse_args()

    family, rng = MiniGrid(Config(id=args.id)), np.random.default_rng(0)
    start = time.perf_counter()
    bank(args.id, 0).layouts(family.seeds("train", args.layouts))
    print(f"{args.id}: {args.layouts} layouts made in {time.perf_counter() - start:.2f} s")

    real, ours = 0.0, dict.fromkeys(args.lanes, 0.0)
    for _ in range(args.repeats):  # in turns, so that a busy machine slows both
        real = max(real, minigrid_rate(args.id, rng))
        for lanes in args.lanes:
            ours[lanes] = max(ours[lanes], engine_rate(family, lanes, args.layouts, rng))
    print(f"{'':>12} {'steps/s':>12} {'ratio':>7}\n{'MiniGrid':>12} {real:>12,.0f} {1:>7.1f}")
    for lanes, rate in ours.items():
        print(f"{f'N={lanes}':>12} {rate:>12,.0f} {rate / real:>7.1f}")


if __name__ == "__main__":
    main()
