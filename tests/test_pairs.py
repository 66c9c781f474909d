"""Every policy in every environment, through the real command, with every option that changes what runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = (
    *("trainer.max_steps=2", "trainer.batch_size=16", "trainer.log_every=1", "trainer.eval_every=1", "trainer.eval_episodes=2"),
    *("eval.episodes=3", "eval.media=1", "env.data.episodes=20", "env.data.val_episodes=4"),
)
SHORT_EPISODES = {"minigrid": ("env.max_steps=20",)}


def run_folder(here: Path) -> Path:
    (folder,) = here.glob("runs/*/*")
    return folder


@pytest.mark.parametrize("env", options("env"))
@pytest.mark.parametrize("policy", options("policy"))
def test_two_steps_of_every_pair(launch: Callable, here: Path, policy: str, env: str):
    done = launch(f"policy={policy}", f"env={env}", *TINY, *SHORT_EPISODES.get(env, ()))
    folder = run_folder(here)
    assert json.loads((folder / "status.json").read_text()) == {"status": "done"}
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 1, 2, 2]  # training and validation
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 2 and set(summary["scores"]) >= {"sampled", "greedy", "random"}
    assert (folder / "media/episodes.gif").read_bytes()[:3] == b"GIF"
    assert {"config.yaml", "overrides.yaml", "command.txt", "versions.json", "health.json", "log.txt"} <= set(os.listdir(folder))
    for words in ("random", "95 %", "parameters", str(folder), "tensorboard", "episodes.gif"):
        assert words in done.stdout, words


def test_tensorboard_shows_scalars_hyperparameters_and_film(launch: Callable, here: Path):
    launch("policy=bc_mlp", *TINY, "env.max_steps=20")
    board = EventAccumulator(str(run_folder(here) / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = board.Tags()
    assert {"train/loss", "train/grad_norm", "val/loss", "val/success", "test/success"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2]
    assert board.Images("test/episodes")[0].encoded_image_string[:3] == b"GIF"
    hyperparameters = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"trainer.optimizer.lr" in hyperparameters


@pytest.mark.parametrize("encoder", options("encoder"))
@pytest.mark.parametrize("policy", options("policy"))
def test_every_encoder_runs(launch: Callable, policy: str, encoder: str):
    launch(f"policy={policy}", f"encoder={encoder}", *TINY, "trainer.max_steps=1", "env.max_steps=5", "logger=none")


@pytest.mark.parametrize(
    "options",
    [
        ("trainer.precision=bf16", "trainer.accumulate=4", "trainer.ema=0"),
        ("trainer.optimizer.name=adam", "trainer.schedule.name=constant", "trainer.max_epochs=1"),
        pytest.param(("trainer.compile=true",), marks=pytest.mark.slow),  # compiles for a minute
    ],
    ids=["bf16", "epochs", "compile"],
)
def test_trainer_options_run(launch: Callable, options: tuple[str, ...]):
    launch("policy=masked_dit", *TINY, "env.max_steps=5", "logger=none", *options, PYTHONWARNINGS="default")


def test_an_environment_of_the_real_minigrid_is_evaluated(launch: Callable, here: Path):
    """Trained where there is an expert, played where there is none and the batched engine does not know the rules."""
    launch("policy=bc_mlp", *TINY, "env.max_steps=20", "hydra.run.dir=trained")
    done = launch(
        "mode=eval", "ckpt_path=trained", "env=minigrid", "env.id=MiniGrid-Unlock-v0", "env.max_steps=8", "eval.episodes=3"
    )
    assert "random" in done.stdout and "expert" not in done.stdout


def test_debug_runs(launch: Callable, here: Path):
    launch("debug=fdr", "policy=bc_mlp")
    assert "learned" in launch("debug=overfit", "policy=bc_mlp").stdout


def test_collect_reports(launch: Callable, here: Path):
    done = launch("mode=collect", "env.data.episodes=30", "env.data.val_episodes=3")
    for words in ("episodes/s", "expert success 1.000", "action entropy"):
        assert words in done.stdout


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


def test_a_sweep_runs_every_cell(launch: Callable, here: Path):
    launch("-m", "policy=bc_mlp", "seed=0,1", *TINY, "env.max_steps=20", "eval.media=0", "logger=none")
    folders = [path.parent for path in here.glob("runs/**/summary.json")]
    assert len(folders) == 2
    assert {line for folder in folders for line in (folder / "overrides.yaml").read_text().splitlines() if "seed" in line} == {
        "- seed=0",
        "- seed=1",
    }
