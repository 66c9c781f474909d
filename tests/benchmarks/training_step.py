"""What the loop costs: steps/s of the real trainer against the same forward, backward and optimiser step on one fixed batch.

    python tests/benchmarks/training_step.py [--steps 150] [--rounds 5]

The two are run alternately in one process; the ratio of their best rounds is the loop's efficiency.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from conf.check import typed
from envs.data import record
from envs.data.windows import Windows
from policies.base import Policy
from policies.noise import Noise
from trainers.offline import Offline
from trainers.optim import make_optimizer
from trainers.records import Config as Logger
from trainers.records import Records

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["masked_dit", "bc_mlp"])
    parser.add_argument("--steps", type=int, default=150, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, batch 256, DoorKey-8x8\n{'policy':12} {'bare':>12} {'loop':>12} {'ratio':>7}")
    for name in arguments.policies:
        bare, loop = [], []
        for _ in range(arguments.rounds):
            bare.append(bare_steps(name, arguments.steps))
            loop.append(loop_steps(name, arguments.steps))
        print(f"{name:12} {max(bare):8.1f} st/s {max(loop):8.1f} st/s {max(loop) / max(bare):7.3f}")


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


def bare_steps(name: str, steps: int) -> float:
    request, policy, windows = prepared(name)
    size = request.trainer.batch_size
    batch, rows = windows.batch(torch.arange(size).numpy()), torch.arange(size)
    optimizer = make_optimizer(request.trainer.optimizer, policy)
    for step in range(steps + 10):
        if step == 10:  # warm
            began = time.perf_counter()
        loss = policy(batch, Noise(0, step, rows))
        optimizer.zero_grad(set_to_none=True)
        (loss.total / loss.count).backward()
        optimizer.step()
    return steps / (time.perf_counter() - began)


def loop_steps(name: str, steps: int) -> float:
    """Everything a step of a run does: fetching, clipping, averaging, metrics."""
    request, policy, windows = prepared(name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Offline(
            request.trainer,
            policy,
            windows,
            windows,
            folder=Path(folder),
            seed=0,
            device=torch.device("cpu"),
            save_policy=lambda into, acting: None,
            success=None,
            make_records=lambda offset, step: Records(Path(folder), Logger(), offset, step),
        )
        trainer.begin()
        for step in range(steps + 10):
            if step == 10:
                began = time.perf_counter()
            trainer.advance(step)
        elapsed = time.perf_counter() - began
        trainer.records.close()
    return steps / elapsed


if __name__ == "__main__":
    main()
