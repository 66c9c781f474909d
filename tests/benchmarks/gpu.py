"""All measurements on a GPU, in one run of at most `--seconds`.

    python tests/benchmarks/gpu.py [--seconds 470] [--policies masked_dit ad]

speed       a step of the real trainer: as Python asks for it (`eager`), as one CUDA graph (`captured`), and captured with the
            data on the device (`auto`, the default); ratios against `eager`, and against the loop before there was any of it
equal       weights after some steps: eager and captured, two runs of one seed (bf16 too), a run and one resumed in its middle
whole       `python launch.py device=cuda`, start to end
together    a step of sixteen stacked runs against a step of one, and stacked runs against single ones (goal: 2.5x)
precision   bf16 against fp32 at batches that fill the card, and what deterministic kernels cost
large       image encoders and the large U-Net in Push, fp32 against bf16, and the memory they take
acting      episodes played as they are, and with acting captured
compile     torch.compile under the captured step

Rows are printed as they are measured. A row that fails says why, and no row starts after the time is up.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as launch.py: read when CUDA starts

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from conf.check import Request, typed  # noqa: E402
from envs.base import Family  # noqa: E402
from envs.data import record, statistics  # noqa: E402
from envs.data.windows import Windows  # noqa: E402
from envs.play import play  # noqa: E402
from policies.base import Policy  # noqa: E402
from policies.store import write_tensors  # noqa: E402
from trainers.base import Run, Trainer  # noqa: E402
from trainers.evaluate.rollout import PolicyPlayer  # noqa: E402
from trainers.record.boards import Config as Logger  # noqa: E402
from trainers.record.records import Records  # noqa: E402
from trainers.run import choose_kernels  # noqa: E402

HISTORIES = ("ad", "compressed_ad")  # these learn in Dark Room, the others in MiniGrid
ALONE = ("bc_gru", "compressed_ad")  # cannot be stacked
TIMED = ["masked_dit", "bc_mlp", "ad", "compressed_ad", "bc_gru", "act"]
# Samples per second on one H200 with the old loop, uncaptured and waiting in every step (batch 256, or 16 histories).
BEFORE = {"masked_dit": 17_000, "bc_mlp": 45_800, "ad": 1_000, "compressed_ad": 205}
GOAL = {"masked_dit": 8, "bc_mlp": 6, "ad": 8, "compressed_ad": 10}
BIG = {"masked_dit": 8192, "bc_mlp": 16384, "ad": 256, "compressed_ad": 128}
WARM = 25  # steps that are not counted: three of each variant come before its capture
STACKED = 16  # runs that are trained together
MOST_WARM = 10.0  # seconds of them at most
MEASURED = 2.0  # seconds of each row
EAGER, CAPTURED, AUTO = ("off", "host"), ("auto", "host"), ("auto", "auto")


def save_acting_weights(into: Path, acting: Policy) -> None:
    write_tensors(into / "policy.safetensors", acting.state_dict())
    (into / "policy.json").write_text("{}")  # every checkpoint has one


class Bench:
    def __init__(self, device: str, seconds: float, folder: Path):
        self.device, self.ends, self.folder = torch.device(device), time.monotonic() + seconds, folder
        self.count = itertools.count()

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def row(self, title: str, measure: Callable[[], str], needs: float = 5) -> None:
        """Print one line, even if the measurement fails."""
        if self.left < needs:
            print(f"{title:40} not measured: the time is up", flush=True)
            return
        try:
            print(f"{title:40} {measure()}", flush=True)
        except Exception as error:
            print(f"{title:40} FAILED: {type(error).__name__}: {str(error)[:400]}", flush=True)
            traceback.print_exc(limit=-3, file=sys.stdout)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def trainer(self, policy: str, *words: str, how: tuple[str, str] = AUTO, folder: Path | None = None) -> Trainer:
        request = self.request(policy, f"trainer.capture={how[0]}", f"trainer.data_on={how[1]}", *words)
        family = request.targets["env"](request.env)
        data = record.dataset(family, request.env.data, "train", self.folder / "data")
        torch.manual_seed(0)
        made = request.targets["policy"](request.policy, family.spaces)
        made.fit(statistics.summarise(data))
        windows = Windows(data, made.window)
        place = folder or self.folder / f"run-{next(self.count)}"
        place.mkdir(parents=True, exist_ok=True)
        run = Run(
            place,
            seed=0,
            device=self.device,
            save_policy=save_acting_weights,
            make_records=lambda offset, step, digest: Records(place, Logger("none"), offset, step, digest),
        )
        trainer: Trainer = request.targets["trainer"](request.trainer, made.to(self.device), windows, windows, run)
        return trainer

    def family(self, policy: str) -> Family:
        request = self.request(policy)
        return request.targets["env"](request.env)

    def request(self, policy: str, *words: str) -> Request:
        where = ("env=minigrid", "env.data.episodes=3000")
        if policy in HISTORIES:
            where = ("env=darkroom", "env.data.episodes=40000", "env.data.val_episodes=400")
        if "env=push" in words:
            where = ("env.data.episodes=40", "env.data.val_episodes=4")
        plain = ("trainer.eval_every=0", "trainer.save_every=0", "logger=none")
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return typed(compose("config", [f"policy={policy}", *where, *plain, *words], return_hydra_config=True))

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def speed(self, policy: str, *words: str, how: tuple[str, str] = AUTO) -> tuple[float, float, str]:
        """Milliseconds per step, samples per second, and a remark."""
        trainer = self.trainer(policy, *words, "trainer.max_steps=100000", how=how)
        trainer.begin()
        began = time.perf_counter()
        while trainer.state.step < WARM and time.perf_counter() - began < MOST_WARM:
            trainer.advance()
        trainer.catch_up()
        steps, began = 0, time.perf_counter()
        while not steps or (time.perf_counter() - began < MEASURED and steps < 2000):
            for _ in range(5):
                trainer.advance()
            steps += 5
        self.wait()
        took = (time.perf_counter() - began) / steps
        trainer.journal.records.close()
        remark = ""
        if trainer.step.captured:
            found = trainer.step.captured
            remark = " (NOT captured)" if found.failed else f" ({len(found.graphs)} graph{'s' * (len(found.graphs) != 1)})"
        if trainer.source.placed:
            remark += " (data on the device)"
        return 1000 * took, trainer.config.batch_size / took, remark

    def trained(self, policy: str, *words: str, steps: int = 30, how: tuple[str, str] = AUTO) -> dict[str, torch.Tensor]:
        trainer = self.trainer(policy, *words, f"trainer.max_steps={steps}", how=how)
        trainer.begin()
        for _ in range(steps):
            trainer.advance()
        trainer.journal.records.close()
        return weights(trainer)

    def resumed(self, policy: str, steps: int = 30) -> dict[str, torch.Tensor]:
        """Interrupted after half of the steps, and continued by another trainer from the checkpoint."""
        folder = self.folder / f"resumed-{policy}-{next(self.count)}"
        first = self.trainer(policy, f"trainer.max_steps={steps}", folder=folder)
        first.begin()
        for _ in range(steps // 2):
            first.advance()
        (folder / "checkpoints").mkdir(exist_ok=True)
        first.save()
        first.journal.records.close()
        again = self.trainer(policy, f"trainer.max_steps={steps}", folder=folder)
        again.begin()
        assert again.state.step == steps // 2
        while again.state.step < steps:
            again.advance()
        again.journal.records.close()
        return weights(again)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    found = {name: value.detach().cpu().clone() for name, value in trainer.policy.state_dict().items()}
    return found | {f"average.{name}": value.cpu().clone() for name, value in trainer.step.acting.state_dict().items()}


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> str:
    bad = [name for name in one if not torch.equal(one[name], other[name])]
    if not bad:
        return "equal"
    most = max((one[name].double() - other[name].double()).abs().max().item() for name in bad)
    return f"DIFFERENT ({len(bad)} of {len(one)} tensors, by up to {most:.1e}, first {bad[0]})"


def speeds(bench: Bench, policies: list[str]) -> None:
    print("\n-- speed of a step: ms, samples/s, ratio to eager, ratio to the loop before (goal)")
    for policy in policies:
        eager: list[float] = []
        for name, how in (("eager", EAGER), ("captured", CAPTURED), ("auto", AUTO)):

            def measure(policy: str = policy, how: tuple[str, str] = how, eager: list[float] = eager) -> str:
                ms, rate, remark = bench.speed(policy, how=how)
                eager.append(ms)
                before = ""
                if policy in BEFORE:
                    before = f", {rate / BEFORE[policy]:.1f}x before (goal {GOAL[policy]}x)"
                return f"{ms:8.2f} ms {rate:10,.0f}/s  ratio {eager[0] / ms:5.2f}{before}{remark}"

            bench.row(f"{policy}, {name}", measure)


def equalities(bench: Bench, policies: list[str]) -> None:
    print("\n-- equal weights after 30 steps")
    for policy in policies:
        once: list[dict[str, torch.Tensor]] = []

        def again(policy: str = policy, once: list = once) -> str:
            once.append(bench.trained(policy))
            return differ(once[0], bench.trained(policy))

        bench.row(f"{policy}, two runs of one seed", again, 8)
        bench.row(f"{policy}, resumed in the middle", lambda p=policy, o=once: differ(o[0], bench.resumed(p)), 8)
        bench.row(f"{policy}, eager", lambda p=policy, o=once: differ(o[0], bench.trained(p, how=EAGER)), 8)

        def narrow(policy: str = policy) -> str:
            return differ(*(bench.trained(policy, "trainer.precision=bf16") for _ in range(2)))

        bench.row(f"{policy}, two runs in bf16", narrow, 8)


def together(bench: Bench, policies: list[str]) -> None:
    from together import Together, show  # which builds on this file

    print(
        f"\n-- {STACKED} runs as one stack: ms a step (ratio: by a single run's, goal 2.5x), and their difference to single runs"
    )
    stacks = Together(str(bench.device), bench.left, bench.folder / "together")
    show(stacks, [policy for policy in policies if policy not in ALONE], [STACKED])


def acting(bench: Bench, policies: list[str]) -> None:
    print("\n-- acting: 256 episodes of an untrained policy in 256 lanes, plain and captured (ratio: plain by captured)")
    for policy in policies:
        if policy in HISTORIES:
            continue
        took: list[float] = []

        def measure(capture: bool, policy: str = policy, took: list[float] = took) -> str:
            made, family = bench.trainer(policy).policy.eval(), bench.family(policy)
            player = PolicyPlayer(made, False, 0, bench.device, capture)
            began = time.perf_counter()
            score = play(player, family, family.seeds("test", 256), 256).score
            took.append(time.perf_counter() - began)
            failed = " (NOT captured)" if player.captured and player.captured.failed else ""
            return f"{took[-1]:8.2f} s  return {score.returns.mean():.4f}  ratio {took[0] / took[-1]:.2f}{failed}"

        bench.row(f"{policy}, plain", lambda m=measure: m(False), 15)
        bench.row(f"{policy}, captured", lambda m=measure: m(True), 15)


def precisions(bench: Bench, policies: list[str]) -> None:
    print("\n-- batches that fill the card: fp32, bf16 (ratio: fp32's time by bf16's), and without deterministic kernels")
    for policy in policies:
        size = f"trainer.batch_size={BIG.get(policy, 1024)}"
        plain: list[float] = []

        def fp32(policy: str = policy, size: str = size, plain: list[float] = plain) -> str:
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            ms, rate, remark = bench.speed(policy, size)
            plain.append(ms)
            memory = torch.cuda.max_memory_allocated() / 1e9 if bench.device.type == "cuda" else 0
            return f"{ms:8.2f} ms {rate:10,.0f}/s  {memory:.1f} GB{remark}"

        def other(word: str, free: bool, policy: str = policy, size: str = size, plain: list[float] = plain) -> str:
            if bench.device.type == "cuda":
                choose_kernels(deterministic=not free)
            try:
                ms, rate, remark = bench.speed(policy, size, word)
            finally:
                if bench.device.type == "cuda":
                    choose_kernels(deterministic=True)
            return f"{ms:8.2f} ms {rate:10,.0f}/s  ratio {plain[0] / ms:.2f}{remark}"

        bench.row(f"{policy}, {size.split('=')[1]}, fp32", fp32, 8)
        bench.row(f"{policy}, {size.split('=')[1]}, bf16", lambda o=other: o("trainer.precision=bf16", False), 8)
        bench.row(f"{policy}, {size.split('=')[1]}, not deterministic", lambda o=other: o("trainer.deterministic=false", True), 8)


def large(bench: Bench) -> None:
    print("\n-- large models in Push: fp32 and bf16 (ratio: fp32's time by bf16's), memory at its peak")
    models = {
        "ACT, ResNet-18, batch 128": ("act", "encoder=resnet18", "trainer.batch_size=128"),
        "bc_mlp, ViT-B/16, batch 64": ("bc_mlp", "encoder=vit_b16", "trainer.batch_size=64"),
        "diffusion_unet, large, batch 128": ("diffusion_unet", "policy.size=large", "trainer.batch_size=128"),
    }
    for name, (policy, *words) in models.items():
        plain: list[float] = []

        def measure(precision: str, policy: str = policy, words: list[str] = words, plain: list[float] = plain) -> str:
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            pretrained = ["policy.encoder.image_pretrained=false"] if words[0].startswith("encoder") else []
            ms, rate, remark = bench.speed(policy, "env=push", *words, *pretrained, f"trainer.precision={precision}")
            plain.append(ms)
            memory = torch.cuda.max_memory_allocated() / 1e9 if bench.device.type == "cuda" else 0
            return f"{ms:8.2f} ms {rate:10,.0f}/s  ratio {plain[0] / ms:.2f}  {memory:.1f} GB{remark}"

        for precision in ("fp32", "bf16"):
            bench.row(f"{name}, {precision}", lambda p=precision, m=measure: m(p), 10)


def compiled(bench: Bench, policies: list[str]) -> None:
    print("\n-- torch.compile under the captured step")
    for policy in policies:

        def measure(policy: str = policy) -> str:
            began = time.perf_counter()
            ms, rate, remark = bench.speed(policy, "trainer.compile=true")
            return f"{ms:8.2f} ms {rate:10,.0f}/s, {time.perf_counter() - began:.0f} s with compiling{remark}"

        bench.row(f"{policy}, compile", measure, 45)


def whole(bench: Bench, words: list[str]) -> None:
    print("\n-- a whole run: `python launch.py`, data recorded before (goal 25 s)")

    def measure(limit: float = 150) -> str:
        command = [sys.executable, str(ROOT / "launch.py"), *words, f"device={bench.device.type}"]
        command += [f"data_dir={bench.folder / 'data-whole'}", "logger=none"]
        subprocess.run([*command, "mode=collect"], check=True, capture_output=True, cwd=bench.folder, timeout=bench.left)
        began = time.perf_counter()
        command.append(f"hydra.run.dir={bench.folder / 'whole'}")
        done = subprocess.run(command, capture_output=True, text=True, cwd=bench.folder, timeout=min(bench.left, limit))
        took = time.perf_counter() - began
        told = [line for line in done.stdout.splitlines() if "trained for" in line or "sampled" in line or "captured" in line]
        if done.returncode:
            return f"exit code {done.returncode}: {done.stderr[-600:]}"
        return f"{took:.1f} s\n    " + "\n    ".join(told[-4:])

    bench.row("launch.py " + " ".join(words), measure, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=470)
    parser.add_argument("--policies", nargs="+", default=[], help=f"by default {', '.join(TIMED)}; of equal, every policy")
    parser.add_argument("--only", nargs="+", default=[], help="sections; by default all")
    parser.add_argument("--device", default="cuda", help="cpu: try the program, not the GPU")
    parser.add_argument("--whole", nargs="*", default=[], help="more words for the whole run")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here, so no ratio was measured")
        return
    card = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    if arguments.device == "cuda":
        choose_kernels(deterministic=True)
    print(f"{card}, torch {torch.__version__}, Python {sys.version.split()[0]}, at most {arguments.seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.device, arguments.seconds, Path(folder))
        policies = arguments.policies or TIMED
        sections = {
            "speed": lambda: speeds(bench, policies),
            "equal": lambda: equalities(bench, arguments.policies or [*TIMED, "diffusion_unet"]),
            "whole": lambda: whole(bench, arguments.whole),
            "together": lambda: together(bench, policies[:3]),
            "precision": lambda: precisions(bench, policies),
            "large": lambda: large(bench),
            "acting": lambda: acting(bench, policies),
            "compile": lambda: compiled(bench, policies),
        }
        for name in arguments.only or sections:
            began = time.monotonic()
            sections[name]()
            print(f"   ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
