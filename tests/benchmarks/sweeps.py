"""Cost of launching many runs, compared with Hydra's own launcher.

    python tests/benchmarks/sweeps.py [idle] [trainings] [slurm] [check]

`idle`: 8 runs that do nothing but import PyTorch, a process each. `trainings`: 8 short trainings, all cores against one after the
other in one process (hydra/launcher=basic). `slurm`: seconds of a node that a run costs before it trains, alone in its job and
packed (a cluster is started on this machine). `check`: a 200-run grid composed and checked, against Hydra's composition alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

PACK = 4  # runs in one job: a node of the cluster that the benchmark starts has four cores
TINY = (
    *("policy=bc_mlp", "policy.hidden_dim=16", "logger=none", "env.id=MiniGrid-Empty-5x5-v0", "env.max_steps=20"),
    *("env.data.episodes=20", "env.data.val_episodes=4", "trainer.batch_size=64", "trainer.eval_every=0", "eval.episodes=20"),
    *("trainer.schedule.warmup=0", "eval.media=0", "device=cpu"),
)
IDLE = {
    "their_pkg/__init__.py": "",
    "their_pkg/idle.py": """
        from envs.minigrid import family
        from envs.minigrid.family import Config

        class Idle(family.MiniGrid):
            def signature(self):  # the first thing that a run asks
                raise SystemExit(0)
    """,
    "conf/env/idle.yaml": "defaults: [minigrid, _self_]\n_target_: their_pkg.idle.Idle\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", help="of idle, trainings, slurm, check; all if none is given")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    asked = parser.parse_args()
    for name, measure in (("idle", idle), ("trainings", trainings), ("slurm", slurm), ("check", check)):
        if not asked.which or name in asked.which:
            with tempfile.TemporaryDirectory() as here:
                measure(Path(here), asked.runs, asked.steps)


def idle(here: Path, runs: int, steps: int) -> None:
    for name, text in IDLE.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(textwrap.dedent(text))
    words = ("--config-dir", str(here / "conf"), "env=idle", "trusted_packages=[their_pkg]", "mode=collect", *TINY)
    ours = launch(here, "-m", *words, f"seed=range({runs})", "hydra.sweep.dir=pool", codes=(0, 1))
    each = sum(launch(here, *words, f"seed={seed}", codes=(0, 1)) for seed in range(2)) / 2
    print(
        f"{runs} idle runs: {ours:.1f} s through the pool; as single commands, one after the other, {runs * each:.1f} s ", end=""
    )
    print(f"(ratio {runs * each / ours:.1f})")


def trainings(here: Path, runs: int, steps: int) -> None:
    words = ("-m", *TINY, f"trainer.max_steps={steps}", f"seed=range({runs})")
    launch(here, "mode=collect", *TINY)  # both find the data there
    basic = launch(here, *words, "hydra/launcher=basic", "hydra.sweep.dir=basic", "trainer.threads=1")
    ours = launch(here, *words, "hydra.sweep.dir=pool", "trainer.threads=1")
    print(
        f"{runs} trainings of {steps} steps: hydra/launcher=basic {basic:.1f} s, the pool {ours:.1f} s (ratio {basic / ours:.2f})"
    )


def slurm(here: Path, runs: int, steps: int) -> None:
    import slurm_cluster

    if reason := slurm_cluster.missing():
        print(f"slurm: no ratio; {reason}")
        return
    from conf import status

    cluster = slurm_cluster.Cluster(here / "slurm")
    try:
        cluster.start()
        launch(here, "mode=collect", *TINY)
        cost = {}
        for pack in (1, PACK):
            words = ("cluster=slurm", "cluster.wait=true", f"cluster.pack={pack}", "cluster.memory=300M", "cluster.parallel=1")
            grid = ("-m", "mode=collect", *TINY, f"seed=range({runs})", f"hydra.sweep.dir=p{pack}")
            launch(here, *grid, *words, env=cluster.environment)
            ends = [status.read(path.parent)["heartbeat"] for path in here.glob(f"p{pack}/*/status.json")]
            submitted = min(path.stat().st_mtime for path in here.glob(f"p{pack}/slurm/*_submission.sh"))
            cost[pack] = (max(ends) - submitted) / runs
        print(
            f"SLURM, {runs} idle runs, one job at a time, from submission to the last end: {cost[1]:.1f} s a run alone, ", end=""
        )
        print(f"{cost[PACK]:.1f} s in packs of {PACK} (ratio {cost[1] / cost[PACK]:.1f})")
    finally:
        cluster.stop()


def check(here: Path, runs: int, steps: int) -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from conf.check import typed
    from conf.compose import Composer

    rates, seeds = ("1e-3", "3e-4", "1e-4", "5e-4", "1e-5"), range(20)
    grid = [
        [f"policy={policy}", f"trainer.optimizer.lr={rate}", f"seed={seed}"]
        for policy in ("bc_mlp", "masked_dit")
        for rate in rates
        for seed in seeds
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        typed(Composer(loader, "config")(grid[0]))  # imports
        began, cpu = time.perf_counter(), time.process_time()
        composer = Composer(loader, "config")
        for words in grid:
            typed(composer(words))
        ours, ours_cpu = time.perf_counter() - began, time.process_time() - cpu
        began, cpu = time.perf_counter(), time.process_time()
        for words in grid[::10]:
            loader.load_configuration("config", list(words), RunMode.RUN)
        theirs, theirs_cpu = 10 * (time.perf_counter() - began), 10 * (time.process_time() - cpu)
    n = len(grid)
    print(f"{n} runs: {1000 * ours / n:.1f} ms a run composed and checked ({1000 * ours_cpu / n:.1f} ms of CPU); ", end="")
    print(f"Hydra's composition {1000 * theirs / n:.1f} ms ({1000 * theirs_cpu / n:.1f}) (ratio {theirs / ours:.1f})")


def launch(here: Path, *words: str, codes: tuple[int, ...] = (0,), env: dict[str, str] | None = None) -> float:
    """Seconds that a command takes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here), **(env or {})}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *words], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
