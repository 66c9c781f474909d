"""Batches per second of `Windows`, compared with torch's DataLoader over the same samples, in one run.

python tests/benchmarks/windows.py [--batches 300]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader, Dataset

from conf.check import typed
from envs.data import record
from envs.data.windows import Window, Windows
from trainers.loop.batches import Batches

ROOT = Path(__file__).parents[2]
BATCH, HORIZON = 256, 8


class OneByOne(Dataset[dict[str, Any]]):
    """The usual way: one sample at a time, collated by the loader."""

    def __init__(self, windows: Windows):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        data, last = self.windows.dataset, int(self.windows.cut.bounds[index, 1])
        taken = np.arange(index, index + HORIZON)
        return {
            "observation": {name: torch.tensor(column[index]) for name, column in data.observations.items()},
            "action": torch.from_numpy(data.columns["action"][np.minimum(taken, last)]),
            "action_mask": torch.from_numpy(taken <= last),
        }


def per_second(batches: Iterable[Any], count: int) -> float:
    iterator = iter(batches)
    for _ in range(5):  # warm, workers started
        next(iterator)
    began = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=300)
    count = parser.parse_args().batches
    torch.set_num_threads(1)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        request = typed(compose("config", [], return_hydra_config=True))
    family = request.targets["env"](request.env)
    data = record.dataset(family, request.env.data, "train", Path(request.data_dir))
    windows = Windows(data, Window(actions=HORIZON))
    order = Batches(len(windows), BATCH, seed=0)
    count = min(count, len(windows) // BATCH - 10)
    ours = per_second((windows.batch(order.samples(step)) for step in range(count + 5)), count)
    print(f"batches of {BATCH} out of {len(windows):,} samples, {HORIZON} actions each")
    print(f"{'Windows':24} {ours:10,.0f} batches/s  {1000 / ours:8.3f} ms")
    for workers in (0, 2):
        loader = DataLoader(OneByOne(windows), BATCH, shuffle=True, num_workers=workers)
        theirs = per_second(loader, count)
        print(f"{f'DataLoader, {workers} workers':24} {theirs:10,.0f} batches/s  {1000 / theirs:8.3f} ms  ({ours / theirs:.0f}x)")


if __name__ == "__main__":
    main()
