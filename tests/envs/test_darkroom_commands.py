"""Dark Room through the real command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.errors import BadRequest
from envs.data import record
from envs.data.windows import Windows
from envs.play import play
from policies.noise import Noise
from trainers.evaluate.rollout import PolicyPlayer


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["env=darkroom", "env.test_goals=[[0,9]]"], r"env.test_goals holds \[0, 9\], no \[row, column\] of a 9x9 grid"),
        (["env=darkroom", "env.data.source=sarsa"], "env.data.source must be one of expert, explorer, ppo, q_learning, annealed"),
        (["env=darkroom", "env.game=recall"], "env.data.episodes_per_history=40 does not fit the schedule"),
        (["env=darkroom", "env.data.episodes_per_history=0"], "env.data.episodes_per_history must be between 1 and"),
        (["env=darkroom", "env.data.noise=.1"], "data.noise and data.detours are for the expert"),
        (["env=darkroom", "env.data.detours=1"], "data.noise and data.detours are for the expert"),
        (["env=darkroom", "env.data.source=expert", "env.data.detours=1"], "env.data.detours is for env=minigrid; in Dark Room"),
        (["env=darkroom", "env.data.ppo.pool=0"], "env.data.ppo.pool must be at least 1, got 0"),
        (
            ["env.data.source=explorer"],
            "env.data.source must be one of expert, searcher, annealed_expert, the id of a Minari dataset, got explorer",
        ),
    ],
)
def test_bad_requests_are_sentences(request_for: Callable, overrides: list[str], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for(*overrides)


def test_a_bad_goal_ends_before_anything_begins(launch: Callable, here: Path):
    done = launch("env=darkroom", "policy=bc_mlp", "env.test_goals=[[9,9]]", check=False)
    assert done.returncode == 2 and "9x9 grid" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(here.iterdir())


def test_collect_reports_what_the_learners_learned(launch: Callable, here: Path):
    few = ("env.data.episodes=1200", "env.data.val_episodes=80")
    done = launch("env=darkroom", "mode=collect", "env.data.source=explorer+ppo", *few, "hydra.run.dir=run")
    for words in ("episodes/s", "explorer+ppo success", "30 histories; return by episode 1: ", "40: ", "entropy floor"):
        assert words in done.stdout, words
    assert json.loads((here / "run/summary.json").read_text())["train"]["episodes"] == 1200


@pytest.mark.parametrize("game", ["key_to_door", "recall"])
def test_policies_take_the_other_games(request_for: Callable, data_dir: Path, game: str):
    """With the key or the cue as one more modality."""
    asked = request_for("env=darkroom", f"env.game={game}", "policy=bc_mlp", "env.data.episodes_per_history=14")
    family = asked.targets["env"](asked.env)
    policy = asked.targets["policy"](asked.policy, family.spaces)
    windows = Windows(record.dataset(family, asked.env.data, "train", data_dir), policy.window)
    loss = policy(windows.batch(np.arange(0, len(windows), 7)), Noise(0, 0, torch.arange(80)))
    assert (loss.total / loss.count).item() == pytest.approx(np.log(5), rel=1e-4)
    score = play(PolicyPlayer(policy.eval(), False, 0, torch.device("cpu")), family, family.seeds("test", 50), 16).score
    assert (score.lengths > 0).all() and (score.returns <= family.optimum(family.seeds("test", 50)).returns).all()
