"""What `cluster.together` costs: a step of several stacked runs against a step of one, and whether they are the same runs.

    python tests/benchmarks/together.py [--device cuda] [--policies masked_dit bc_mlp ad] [--runs 1 4 16]

Prints milliseconds per step, the ratio to a single run's step (captured on a GPU, in both), the peak of the GPU's memory, and the
difference to single runs after 20 steps, as a share of the way that the weights went.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from gpu import ROOT, Bench  # sets up what CUDA reads when it starts

sys.path.insert(0, str(ROOT))

from trainers.base import Trainer
from trainers.loop.stacked import Stack
from trainers.run import choose_kernels

COMPARED = 20  # steps


class Together(Bench):
    measured = 2.0  # seconds of each row

    def group(self, policy: str, runs: int) -> list[Trainer]:
        trainers: list[Trainer] = []
        for seed in range(runs):
            trainer = self.trainer(policy, f"seed={seed}", "trainer.max_steps=100000")
            trainer.policy.train()
            if trainers:
                trainer.source = trainer.step.source = trainers[0].source.__class__(
                    trainers[0].data, trainer.config.batch_size, seed, self.device, trainer.config.data_on
                )
            trainer.step.seed, trainer.step.noise_seed = seed, trainer.step.noise_seed + seed
            trainers.append(trainer)
        return trainers

    def timed(self, policy: str, runs: int) -> tuple[float, float, str]:
        """Milliseconds per step, GB at most, and whether it was captured. `runs` 0: a single run without a stack."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        steps = [trainer.step for trainer in self.group(policy, max(runs, 1))]
        stack = Stack(steps) if runs else None
        began, taken = 0.0, 0
        for number in range(100_000):
            if number == 8:  # compiled, warmed up and captured
                self.wait()
                began = time.perf_counter()
            if stack:
                stack.take(number, [True] * runs)
            else:
                steps[0].take(steps[0].source.inputs(number), number)
            taken += 1
            if taken % steps[0].most_pending == 0:
                for step in steps:
                    step.fetch()
            if number > 8 and time.perf_counter() - began > self.measured:
                break
        self.wait()
        took = 1000 * (time.perf_counter() - began) / (taken - 8)
        captured = stack.captured if stack else steps[0].captured
        how = "" if captured is None else "captured" if captured.graphs and not captured.failed else "NOT captured"
        return took, torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else 0.0, how

    def difference(self, policy: str, runs: int = 3) -> str:
        alone, members = (self.group(policy, runs) for _ in range(2))
        stack = Stack([trainer.step for trainer in members])
        worst = 0.0
        begun = [_flat(trainer) for trainer in members]
        for number in range(COMPARED):
            stack.take(number, [True] * runs)
        for one, other, start in zip(alone, members, begun, strict=True):
            for number in range(COMPARED):
                one.step.take(one.source.inputs(number), number)
            worst = max(worst, float((_flat(one) - _flat(other)).norm() / (_flat(one) - start).norm()))
        return f"{worst:.1e} of the way after {COMPARED} steps"


def _flat(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.policy.parameters()])


def show(bench: Together, policies: list[str], stacked: list[int]) -> None:
    for policy in policies:
        bench.row(f"{policy}, against single runs", lambda policy=policy: bench.difference(policy))  # type: ignore[misc]
        single: list[float] = []
        for runs in [0, *stacked]:

            def measure(policy: str = policy, runs: int = runs, single: list[float] = single) -> str:
                took, memory, how = bench.timed(policy, runs)
                single.append(took)
                return f"{took:8.2f} ms  (ratio {took / single[0]:.2f}x)  {memory:.2f} GB  {how}"

            bench.row(f"{policy}, {f'{runs} together' if runs else 'alone'}", measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--policies", nargs="+", default=["masked_dit", "bc_mlp", "ad"])
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--measured", type=float, default=2.0, help="seconds of each row")
    parser.add_argument("--seconds", type=float, default=400)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        choose_kernels(deterministic=True)
        print(torch.cuda.get_device_name(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Together(arguments.device, arguments.seconds, Path(folder))
        bench.measured = arguments.measured
        show(bench, arguments.policies, arguments.runs)


if __name__ == "__main__":
    main()
