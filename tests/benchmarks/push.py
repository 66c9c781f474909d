"""Speed of recording Push: steps with an 84x84 image, with resets and the expert's actions, with one worker and with two.

    OMP_NUM_THREADS=1 python tests/benchmarks/push.py

Wall time depends on other processes; CPU time, summed over the workers, depends on them less. Also prints the expert's success.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from envs.play import ExpertPlayer, play
from envs.push import Config, Push


def cpu() -> float:
    """CPU seconds of the finished worker processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rates(workers: int, lanes: int, steps: int, image: bool) -> tuple[float, float]:
    """Steps per second of wall time, without start-up, and per second of the workers' CPU time, with start-up."""
    family = Push(Config(image=image, num_workers=workers))
    before = cpu()
    vector, expert = family.vector(lanes), family.expert()
    vector.reset()
    began = time.perf_counter()
    for _ in range(steps):
        vector.step(expert.act(vector))
    seconds = time.perf_counter() - began
    vector.close()
    return steps * lanes / seconds, steps * lanes / (cpu() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=150, help="of the expert")
    arguments = parser.parse_args()
    wall = {}
    for image in (True, False):
        for workers in (1, 2):
            wall[image, workers], busy = rates(workers, arguments.lanes, arguments.steps, image)
            what = "with an image" if image else "without images"
            print(f"{what}, {workers} worker(s): {wall[image, workers]:.0f} steps/s, {busy:.0f} per second of CPU")
    print(f"ratio of two workers to one, with images: {wall[True, 2] / wall[True, 1]:.2f}x")
    for task in ("push", "language"):
        family = Push(Config(task=task, image=False))
        score = play(ExpertPlayer(family), family, family.seeds("test", arguments.episodes), 32).score
        assert score.success is not None
        inside = float(np.mean(score.success & (score.lengths <= 50)))
        print(f"expert, task={task}: {score.success.mean():.3f} of {arguments.episodes}, {inside:.3f} within 50 steps")


if __name__ == "__main__":
    main()
