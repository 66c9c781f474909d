"""How much sooner BabyAI's bot has recorded its episodes with two worker processes than with none.

python tests/benchmarks/babyai.py --id BabyAI-GoToLocal-v0 --episodes 2000

Two ratios: of the time that passed, which other work on the machine falsifies, and of CPU time. For the second, the workers are
taken to share their work equally, and the parent to wait while they work.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from envs.data import record
from envs.minigrid import Config, MiniGrid
from envs.minigrid.family import MiniGridData


def seconds(id: str, episodes: int, workers: int) -> tuple[float, float]:
    """Passed, and of CPU on the longest way."""
    data = MiniGridData(episodes=episodes)
    family = MiniGrid(Config(id=id, num_workers=workers, data=data))
    began, here, there = time.perf_counter(), time.process_time(), children()
    with tempfile.TemporaryDirectory() as root:
        record.dataset(family, data, "train", Path(root))
    return time.perf_counter() - began, time.process_time() - here + (children() - there) / max(1, workers)


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", default="BabyAI-GoToLocal-v0")
    parser.add_argument("--episodes", type=int, default=2000)
    asked = parser.parse_args()
    alone, two = (seconds(asked.id, asked.episodes, workers) for workers in (0, 2))
    print(f"{asked.id}, {asked.episodes} episodes: {asked.episodes / alone[1]:.0f} episodes/s of CPU in one process")
    passed, used = alone[0] / two[0], alone[1] / two[1]
    print(f"two workers against none, ratio of time passed {passed:.2f}, ratio of CPU time {used:.2f}")
