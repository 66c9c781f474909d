"""Every policy in every environment, through the real command, with every option that changes what runs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Forked
from helpers import NO_EXPERT, PACKAGES, ROOT, missing_extra, options, pair
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = (
    *("trainer.max_steps=2", "trainer.batch_size=16", "trainer.log_every=1", "trainer.eval_every=1", "trainer.eval_episodes=2"),
    *("eval.episodes=3", "eval.episodes_per_task=3", "eval.media=1", "env.data.episodes=20", "env.data.val_episodes=4"),
)
SHORT_EPISODES = {
    "metaworld": ("env.max_steps=10", "env.tasks=[push-v3,reach-v3]"),
    "minigrid": ("env.max_steps=20",),
    "push": ("env.max_steps=10", "env.image_size=32"),
}


def run_folder(here: Path) -> Path:
    (folder,) = here.glob("runs/*/*")
    return folder


EVERYDAY = (("bc_mlp", "minigrid"), ("masked_dit", "minigrid"), ("compressed_ad", "darkroom"))


def pairs() -> Iterator:
    """All pairs. One of each kind of policy is an everyday test: single actions, plans, and histories
    (tests/policies/test_contract.py has all pairs)."""
    for policy in options("policy"):
        for env in options("env"):
            if env in NO_EXPERT or missing_extra(env):
                continue
            yield pytest.param(policy, env, marks=() if (policy, env) in EVERYDAY else pytest.mark.slow)


@pytest.mark.parametrize(("policy", "env"), [*pairs()])
def test_two_steps_of_every_pair(launch: Callable, here: Path, policy: str, env: str):
    # One policy is enough for the worker processes: each imports its simulator anew, which takes seconds.
    processes = ("env.num_workers=0",) if env in PACKAGES and policy != "bc_mlp" else ()
    done = launch(*pair(policy, env), *SHORT_EPISODES.get(env, ()), *processes, *TINY, "trainer.eval_every=2")
    folder = run_folder(here)
    assert json.loads((folder / "status.json").read_text())["status"] == "done"
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]  # two of training and one of validation
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 2 and set(summary["scores"]) >= {"sampled", "random"}  # a policy without randomness is played once
    assert (folder / "media/episodes.gif").read_bytes()[:3] == b"GIF"
    assert {"config.yaml", "overrides.yaml", "command.txt", "versions.json", "health.json", "log.txt"} <= set(os.listdir(folder))
    for words in ("random", "95 %", "parameters", str(folder), "tensorboard", "episodes.gif"):
        assert words in done.stdout, words


@pytest.mark.parametrize(
    "policy", [name if name == "bc_mlp" else pytest.param(name, marks=pytest.mark.slow) for name in options("policy")]
)
def test_two_steps_of_every_policy_with_images_and_continuous_actions(launch: Callable, here: Path, policy: str):
    """In the tests' toy, used like any user's own family: from a folder of YAML files and its own package."""
    where = ("--config-dir", str(ROOT / "tests/toy_conf"), "trusted_packages=[toy]")
    launch(*where, *pair(policy, "toy"), *TINY, "logger=none", "hydra.run.dir=run", PYTHONPATH=str(ROOT / "tests"))
    assert json.loads((here / "run/summary.json").read_text())["steps"] == 2
    done = launch("mode=eval", "ckpt_path=run", "trusted_packages=[toy]", *TINY[4:7], PYTHONPATH=str(ROOT / "tests"))
    assert "random" in done.stdout


@pytest.mark.slow
def test_tensorboard_shows_scalars_hyperparameters_and_film(launch: Callable, here: Path):
    launch("policy=bc_mlp", *TINY, "env.max_steps=20")
    board = EventAccumulator(str(run_folder(here) / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = board.Tags()
    assert {"train/loss", "train/grad_norm", "val/loss", "val/success", "test/success"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2]
    assert board.Images("test/episodes")[0].encoded_image_string[:3] == b"GIF"
    hyperparameters = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"trainer.optimizer.lr" in hyperparameters
    assert {f"test/{name}/success" for name in ("sampled", "greedy", "random", "expert")} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("test/success")] == [2]  # the last step
    assert "config/text_summary" in tags["tensors"]


@pytest.mark.parametrize(
    ("policy", "encoder"),
    [
        pytest.param(policy, encoder, marks=() if (policy, encoder) == ("bc_mlp", "conv") else pytest.mark.slow)
        for policy in options("policy")
        for encoder in options("encoder")
    ],
)
def test_every_encoder_runs(launch: Callable, policy: str, encoder: str):
    short = ("trainer.max_steps=1", "env.max_steps=5", "eval.media=0", "eval.references=false", "eval.decode=[sampled]")
    launch(*pair(policy), f"encoder={encoder}", *TINY, *short, "logger=none")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("trainer.precision=bf16", "trainer.accumulate=4", "trainer.ema=0"),
        ("trainer.optimizer.name=adam", "trainer.schedule.name=constant", "trainer.max_epochs=1"),
        ("trainer.compile=true", "policy.frames=[2,0]", "policy.layers=1"),
    ],
    ids=["bf16", "epochs", "compile"],
)
def test_trainer_options_run(launch: Callable, options: tuple[str, ...]):
    launch("policy=masked_dit", *TINY, "env.max_steps=5", "logger=none", *options, PYTHONWARNINGS="default")


@pytest.mark.slow
def test_an_environment_of_the_real_minigrid_is_evaluated(launch: Callable, here: Path):
    """Trained in an id with an expert, evaluated in one without, whose rules the batched engine does not know."""
    launch("policy=bc_mlp", *TINY, "env.max_steps=20", "hydra.run.dir=trained")
    done = launch(
        "mode=eval",
        "ckpt_path=trained",
        "env=minigrid",
        "env.id=MiniGrid-Dynamic-Obstacles-5x5-v0",
        "env.max_steps=8",
        "eval.episodes=3",
    )
    assert "random" in done.stdout and "expert" not in done.stdout


def test_debug_runs(launch: Callable, here: Path):
    launch("debug=fdr", "policy=bc_mlp", "env.max_steps=50")


@pytest.mark.slow
def test_overfitting_says_what_it_learned(launch: Callable, here: Path):
    assert "learned" in launch("debug=overfit", "policy=bc_mlp").stdout


def test_collect_reports(launch: Callable, here: Path):
    done = launch("mode=collect", "env.data.episodes=30", "env.data.val_episodes=3")
    for words in ("episodes/s", "expert success 1.000", "entropy of the actions"):
        assert words in done.stdout


@pytest.mark.slow
def test_a_policy_loads_from_python_and_acts(launch: Callable, here: Path):
    import torch

    import policies
    from policies.noise import Noise

    launch("policy=masked_dit", *TINY, "env.max_steps=20", "hydra.run.dir=trained")
    policy = policies.load(here / "trained")
    grid = torch.zeros(2, 7, 7, 3, dtype=torch.uint8)
    observation = {"grid": grid, "direction": torch.zeros(2, dtype=torch.long), "mission": torch.zeros(2, 18, dtype=torch.uint8)}
    memory = policy.start(2, torch.device("cpu"))
    action, memory = policy.act(observation, memory, Noise(0, 0, torch.arange(2)))
    assert action.shape == (2,) and not policy.training


THEIR_POLICY = """
from dataclasses import dataclass
from policies import bc_mlp

@dataclass
class Config(bc_mlp.Config):
    hidden_dim: int = 32

class Mine(bc_mlp.BCMLP):
    pass
"""


@pytest.mark.slow
def test_a_policy_of_somebody_else_trains_and_is_loaded(launch: Callable, here: Path):
    (here / "their_pkg").mkdir()
    (here / "their_pkg/__init__.py").write_text("")
    (here / "their_pkg/mine.py").write_text(THEIR_POLICY)
    (here / "conf/policy").mkdir(parents=True)
    (here / "conf/policy/mine.yaml").write_text("_target_: their_pkg.mine.Mine\nhidden_dim: 32\nlayers: 1\ntoken_dim: 16\n")
    words = ("--config-dir", "conf", "policy=mine", "trusted_packages=[their_pkg]", *TINY, "env.max_steps=20")
    assert "mine, sampled" in launch(*words, "hydra.run.dir=run", PYTHONPATH=str(here)).stdout
    done = launch("mode=eval", "ckpt_path=run", *TINY, check=False, PYTHONPATH=str(here))  # a checkpoint cannot trust packages
    assert done.returncode == 2 and "trusted_packages" in done.stderr


def test_a_run_that_diverges_says_so(launch: Callable, here: Path):
    words = ("policy=bc_mlp", *TINY, "trainer.max_steps=50", "trainer.eval_every=0", "trainer.schedule.warmup=0", "trainer.ema=0")
    done = launch(*words, "trainer.optimizer.lr=1e38", "env.max_steps=20", "hydra.run.dir=run", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "trainer.optimizer.lr" in done.stdout and (here / "run/diverged/batch.safetensors").exists()
    assert json.loads((here / "run/status.json").read_text())["status"] == "diverged"


@pytest.mark.slow
def test_weights_can_start_a_run(launch: Callable, here: Path):
    words = (*TINY, "env.max_steps=20", "logger=none", "eval.media=0")
    learning = ("trainer.max_steps=40", "trainer.schedule.warmup=0", "trainer.ema=0", "trainer.eval_every=0")
    launch("policy=bc_mlp", *words, *learning, "hydra.run.dir=first")
    launch("policy=bc_mlp", *words, *learning, "init_from=first", "hydra.run.dir=second")
    losses = [
        json.loads((here / name / "metrics.jsonl").read_text().splitlines()[0])["train/loss"] for name in ("first", "second")
    ]
    assert losses[0] > 1.9 and losses[1] < 1.2, losses  # from chance (ln 7 = 1.95), and from where the first run ended
    done = launch("policy=bc_gru", *words, "init_from=first", check=False)
    assert done.returncode == 2 and "holds bc_mlp" in done.stderr


def test_two_processes_do_not_share_a_run_folder(launch: Callable, here: Path):
    (here / "run").mkdir()
    with open(here / "run/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = launch("policy=bc_mlp", *TINY, "hydra.run.dir=run", check=False)
    assert done.returncode == 2 and "still running" in done.stderr


def test_a_stopped_sweep_stops(forked: Forked, here: Path, data_dir: Path):
    words = (
        "-m",
        "policy=bc_mlp",
        "seed=0,1",
        *TINY,
        "trainer.max_steps=5000",
        "env.max_steps=20",
        "logger=none",
        "cluster.jobs=1",
    )
    command = [sys.executable, str(ROOT / "launch.py"), f"data_dir={data_dir}", "hydra.sweep.dir=sweep", *words]
    process = forked.start(command, here)
    while not list(here.glob("sweep/*/checkpoints/last")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 4, output
    assert len(list(here.glob("sweep/*/overrides.yaml"))) == 1  # the second run did not begin
    assert "sweep: 2 runs, 1 preempted, 1 pending\n" in output and "preempted pending" in output


def test_a_stop_while_recording_leaves_no_half_dataset(forked: Forked, here: Path):
    words = ("policy=bc_mlp", "env.data.episodes=100000", "hydra.run.dir=run")
    process = forked.start([sys.executable, str(ROOT / "launch.py"), *words], here)
    while not list(here.glob("data/.*tmp*/action.npy")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 1 and "stopped" in output
    assert json.loads((here / "run/status.json").read_text())["status"] == "interrupted"
    assert not [path for path in (here / "data").iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_damaged_dataset_leaves_no_run_folder(launch: Callable, here: Path):
    words = ("policy=bc_mlp", *TINY, "env.max_steps=20", "logger=tensorboard", "data_dir=own")
    launch("mode=collect", "eval.media=0", *words, "hydra.run.dir=collected")
    (column,) = here.glob("own/*-train-*/action.npy")
    column.write_bytes(column.read_bytes()[:-1] + b"\x07")
    done = launch(*words, "hydra.run.dir=some/run", check=False)
    assert done.returncode == 2 and "is damaged (action.npy" in done.stderr and not (here / "some").exists()


@pytest.mark.slow
def test_a_sweep_runs_every_cell(launch: Callable, here: Path):
    launch("-m", "policy=bc_mlp", "seed=0,1", *TINY, "env.max_steps=20", "eval.media=0", "logger=none")
    folders = [path.parent for path in here.glob("runs/**/summary.json")]
    assert len(folders) == 2
    assert {line for folder in folders for line in (folder / "overrides.yaml").read_text().splitlines() if "seed" in line} == {
        "- seed=0",
        "- seed=1",
    }
