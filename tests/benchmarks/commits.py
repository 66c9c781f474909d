"""A training step of this checkout against one of another commit: its speed, and whether the weights are the same, bit for bit.

    OMP_NUM_THREADS=1 python tests/benchmarks/commits.py COMMIT [--policies masked_dit ad] [--steps 120]

Both train at the same time, so that whatever else the machine does slows both. Milliseconds of CPU time per step of the real
trainer; the median of the steps is compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
WARM = 20  # steps that are not counted
HISTORIES = ("ad", "compressed_ad")
PLAIN = (
    *(
        "logger=none",
        "trainer.eval_every=0",
        "trainer.eval_episodes=0",
        "trainer.save_every=0",
        "trainer.threads=1",
        "device=cpu",
    ),
    *("eval.episodes=1", "eval.media=0", "trainer.log_every=50"),
)
# Run in a tree, with the words of its launch.py: prints the CPU time at the start of each step.
DRIVER = """
import atexit, json, runpy, sys, time
tree, times = sys.argv[1], []
sys.path.insert(0, tree)
from trainers.base import Trainer
advance = Trainer.advance
Trainer.advance = lambda trainer: (times.append(time.process_time()), advance(trainer))[1]
atexit.register(lambda: print("TIMES", json.dumps(times)))
sys.argv[:] = [f"{tree}/launch.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="HEAD")
    everything = ["masked_dit", "bc_mlp", "bc_gru", "act", "diffusion_unet", *HISTORIES]
    parser.add_argument("--policies", nargs="+", default=everything)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--words", nargs="*", default=[], help="more of the command line")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "tree"
        other.mkdir()
        packed = subprocess.run(["git", "archive", asked.commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(other)], input=packed, check=True)
        print(f"{'policy':16} {asked.commit[:10]:>10} {'here':>10} ms a step   speed, ratio    weights")
        for policy in asked.policies:
            print(f"{policy:16} {compared(policy, other, Path(folder), asked.steps, asked.words)}", flush=True)


def compared(policy: str, other: Path, folder: Path, steps: int, words: list[str]) -> str:
    where = ("env=darkroom", "env.data.episodes=4000") if policy in HISTORIES else ("env=minigrid", "env.data.episodes=300")
    started = []
    for name, tree in (("there", other), ("here", ROOT)):
        line = [f"policy={policy}", *where, *PLAIN, f"trainer.max_steps={steps + WARM}", *words, f"data_dir={folder / 'data'}"]
        command = [sys.executable, "-c", DRIVER, str(tree), *line, f"hydra.run.dir={folder / f'{policy}-{name}'}"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append((name, process))
    took = {}
    for name, process in started:
        output = process.communicate()[0]
        times = [line.removeprefix("TIMES ") for line in output.splitlines() if line.startswith("TIMES ")]
        if process.returncode or not times:
            return f"FAILED {name}: {output[-500:]}"
        began = json.loads(times[0])[WARM:]
        took[name] = 1000 * statistics.median(after - before for before, after in itertools.pairwise(began))
    last = f"checkpoints/step-{steps + WARM}/policy.safetensors"
    one, two = (load_file(folder / f"{policy}-{name}" / last) for name in ("there", "here"))
    same = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    ratio = took["there"] / took["here"]
    return f"{took['there']:10.2f} {took['here']:10.2f} {'':12} {ratio:12.3f}    {'equal' if same else 'DIFFERENT'}"


if __name__ == "__main__":
    main()
