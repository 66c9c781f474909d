"""Cost of the loop: a step of the real trainer, compared with the same computation on one fixed batch in memory.

    python tests/benchmarks/training_step.py [--steps 300]

`bare` is forward, backward and optimiser; `update` adds the clipping and averaging that the configuration asks for, as any
hand-written loop would; `loop` is the trainer's own step: fetching, checks for non-finite values and metrics as well. All three
take turns step by step in one process, so that other processes slow all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from conf.check import typed
from envs.data import record
from envs.data.windows import Windows
from policies.base import Policy
from policies.noise import Noise
from trainers.base import Run
from trainers.loop.optim import Average, make_optimizer, precise
from trainers.offline import Offline
from trainers.record.boards import Config as Logger
from trainers.record.records import Records

ROOT = Path(__file__).parents[2]
WARM = 20  # steps that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["masked_dit", "bc_mlp"])
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, batch 256, DoorKey-8x8; milliseconds a step")
    print(f"{'policy':12} {'bare':>8} {'update':>8} {'loop':>8}   loop's efficiency against bare, against update")
    for name in arguments.policies:
        steps = {"bare": bare(name, whole=False), "update": bare(name, whole=True), "loop": loop(name)}
        took: dict[str, list[float]] = {kind: [] for kind in steps}
        for number in range(arguments.steps + WARM):
            for kind, step in steps.items():
                began = time.perf_counter()
                step(number)
                took[kind].append(1000 * (time.perf_counter() - began))
        middle = {kind: statistics.median(times[WARM:]) for kind, times in took.items()}
        ratios = f"{middle['bare'] / middle['loop']:.3f}, {middle['update'] / middle['loop']:.3f}"
        print(f"{name:12} {middle['bare']:8.2f} {middle['update']:8.2f} {middle['loop']:8.2f}   {ratios}")


def prepared(name: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        request = typed(
            compose("config", [f"policy={name}", "trainer.eval_every=0", "trainer.save_every=0"], return_hydra_config=True)
        )
    family = request.targets["env"](request.env)
    data = record.dataset(family, request.env.data, "train", Path(request.data_dir))
    torch.manual_seed(0)
    policy: Policy = request.targets["policy"](request.policy, family.spaces)
    return request, policy, Windows(data, policy.window)


def bare(name: str, whole: bool) -> Callable[[int], None]:
    request, policy, windows = prepared(name)
    size = request.trainer.batch_size
    batch, rows = windows.batch(torch.arange(size).numpy()), torch.arange(size)
    optimizer, average = make_optimizer(request.trainer.optimizer, [*policy.parameters()]), Average(policy, request.trainer.ema)

    def step(number: int) -> None:
        loss = policy(batch, Noise(0, number, rows))
        optimizer.zero_grad(set_to_none=True)
        (loss.total / loss.count).backward()
        if whole:
            torch.nn.utils.clip_grad_norm_(policy.parameters(), request.trainer.grad_clip)
        optimizer.step()
        if whole:
            average.update(torch.ones((), dtype=precise(torch.device("cpu"))))

    return step


def loop(name: str) -> Callable[[int], object]:
    request, policy, windows = prepared(name)
    folder = Path(tempfile.mkdtemp())
    trainer = Offline(
        request.trainer,
        policy,
        windows,
        windows,
        Run(
            folder,
            seed=0,
            device=torch.device("cpu"),
            save_policy=lambda into, acting: None,
            make_records=lambda offset, step, digest: Records(folder, Logger(), offset, step, digest),
        ),
    )
    trainer.begin()
    return lambda number: trainer.advance()


if __name__ == "__main__":
    main()
