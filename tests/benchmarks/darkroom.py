"""Speed of Dark Room's steps, of recording its learners' histories, and of cutting windows from them.

    python tests/benchmarks/darkroom.py [--histories 7300] [--episodes 50] [--repeats 3]

A step is the whole of `VectorEnv.step`, with observation and autoreset; the ratio is relative to one lane. Histories are timed
while they are played (7300 of 50 episodes are the published 73 x 100 x 1000 steps), and as a dataset on disc. The best of the
repeats counts.
"""
# ruff: noqa: E402  (the number of threads must be set before NumPy is imported)

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from envs.darkroom import Config, DarkRoom
from envs.darkroom.family import Data
from envs.data.histories import play
from envs.data.record import dataset
from envs.data.windows import Window, Windows

SECONDS = 0.3  # of each measurement of the environment


def stepping_rate(family: DarkRoom, lanes: int, random: np.random.Generator) -> float:
    vector = family.vector(lanes)
    vector.stack_final_obs = True
    vector.reset()
    actions = random.integers(0, 5, (100, lanes))
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for action in actions:
            vector.step(action)
        steps += actions.size
    return steps / (time.perf_counter() - start)


def play_all(family: DarkRoom, source: str, histories: int, episodes: int) -> None:
    """In blocks, as the recorder does."""
    pool = family.lanes_per_learner(source)
    tasks = family.seeds("train", histories)[np.arange(histories) // pool]
    block = max(1, family.record_batch // episodes // pool) * pool
    for start in range(0, histories, block):
        play(family, source, tasks[start : start + block], episodes, np.random.default_rng(start))


def best(repeats: int, work: Callable[[], object]) -> float:
    """Seconds."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 64, 512, 4096])
    parser.add_argument("--histories", type=int, default=7300)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)

    family, random = DarkRoom(Config()), np.random.default_rng(0)
    rates = dict.fromkeys(args.lanes, 0.0)
    for _ in range(args.repeats):  # in turns, so that a busy machine slows all of them
        for lanes in args.lanes:
            rates[lanes] = max(rates[lanes], stepping_rate(family, lanes, random))
    print(f"{'environment':>16} {'steps/s':>12} {'ratio':>7}")
    for lanes, rate in rates.items():
        print(f"{f'N={lanes}':>16} {rate:>12,.0f} {rate / rates[args.lanes[0]]:>7.1f}")

    steps = args.histories * args.episodes * family.max_steps
    print(f"{'histories':>16} {'steps/s':>12} seconds for {args.histories} x {args.episodes} episodes")
    for source in Data.SOURCES:
        seconds = best(args.repeats, lambda source=source: play_all(family, source, args.histories, args.episodes))
        print(f"{source:>16} {steps / seconds:>12,.0f} {seconds:>7.1f}")

    with tempfile.TemporaryDirectory() as folder:
        asked = Data(episodes=args.histories * args.episodes, episodes_per_history=args.episodes)
        start = time.perf_counter()
        data = dataset(family, asked, "train", Path(folder))
        print(f"{'on disc':>16} {steps / (time.perf_counter() - start):>12,.0f} {time.perf_counter() - start:>7.1f} (explorer)")
        for every in (1, 3):
            windows = Windows(data, Window(320, 320, "each", "history", every))
            samples = random.integers(len(windows), size=16)
            seconds = best(50 * args.repeats, lambda windows=windows, samples=samples: windows.batch(samples))
            print(f"16 windows of 320 steps, every={every}: {1000 * seconds:.2f} ms")


if __name__ == "__main__":
    main()
