"""How fast a Minari dataset of a million low-dimensional steps is imported, and how much memory that takes.

OMP_NUM_THREADS=1 python tests/benchmarks/minari_import.py --length 1000      (also --length 200: more episodes of fewer steps)

Each dataset has 17 numbers to see and 6 to choose, as in Gymnasium's HalfCheetah. Steps per second of CPU time, for the importing
alone, beside Minari's when it only reads the same episodes. The memory is the most that the process held, beyond what it held
before.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.data.minari import import_episodes
from envs.gym.family import Config, Data, Gym

SEEN, CHOSEN = 17, 6


class Nothing(gymnasium.Env):
    """Its spaces are all that is needed of it."""

    observation_space = spaces.Box(-np.inf, np.inf, (SEEN,), np.float64)
    action_space = spaces.Box(-1, 1, (CHOSEN,), np.float32)


def make(steps: int, length: int) -> str:
    """The id of a dataset of random numbers."""
    import minari
    from minari.data_collector import EpisodeBuffer

    random = np.random.default_rng(0)
    episodes = [
        EpisodeBuffer(
            observations=random.normal(size=(length + 1, SEEN)),
            actions=random.uniform(-1, 1, (length, CHOSEN)).astype(np.float32),
            rewards=random.normal(size=length).tolist(),
            terminations=[False] * length,
            truncations=[False] * (length - 1) + [True],
        )
        for _ in range(steps // length)
    ]
    env = Nothing()
    minari.create_dataset_from_buffers(
        "benchmark/random-v0", episodes, observation_space=env.observation_space, action_space=env.action_space
    )
    return "benchmark/random-v0"


def held() -> float:
    """The most memory that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=1000, help="steps of an episode")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ["MINARI_DATASETS_PATH"] = root
        if (child := os.fork()) == 0:  # making the dataset takes more memory than importing it
            make(asked.steps, asked.length)
            os._exit(0)
        os.waitpid(child, 0)
        gymnasium.register("Nothing-v0", Nothing)
        data = Data(source="benchmark/random-v0", val_episodes=1)
        family, folder = Gym(Config("Nothing-v0", data=data)), Path(root) / "ours"
        folder.mkdir()
        recipe = {"family": {"class": "Gym", **family.signature()}}
        import minari  # before, because its modules are not what is measured

        before, began = held(), time.process_time()
        import_episodes(data, family, "train", recipe, folder, lambda done, total: None)
        used = time.process_time() - began
        memory = held() - before
        storage, count = minari.load_dataset(data.source).storage, asked.steps // asked.length - 1  # the last one is held out
        began = time.process_time()
        for _ in storage.get_episodes(range(count)):
            pass
        steps, alone = count * asked.length, time.process_time() - began
        size = steps * (SEEN * 8 + CHOSEN * 4) / 2**20
        print(f"{steps:,} steps in episodes of {asked.length}, imported: {steps / used:,.0f} steps/s of CPU, {used:.1f} s")
        print(f"only read, by Minari: {steps / alone:,.0f} steps/s; ratio {alone / used:.2f}")
        print(f"{memory:.0f} MB more memory at most; the dataset has {size:.0f} MB")
