"""`mode=eval` takes its values from the checkpoint, which may be damaged and is not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import save_checkpoint

from conf import folder
from conf.errors import BadRequest


def test_evaluation_takes_policy_and_environment_from_the_checkpoint(ask: Any, tmp_path: Path) -> None:
    wide = ("policy.layers=3", "policy.horizon=4", "encoder=conv")
    trained = ask("policy=bc_mlp", *wide, "env.data.noise=0.25", "seed=7", "name=mine")
    checkpoint = save_checkpoint(trained, tmp_path / "run")
    for path in (tmp_path / "run", checkpoint, checkpoint.parent / "best"):
        played = ask("mode=eval", f"ckpt_path={path}", "env.max_steps=50", "++policy.execute=2")
        assert played.config["policy"] == {**trained.config["policy"], "execute": 2}
        assert played.config["env"] == {**trained.config["env"], "max_steps": 50}
        assert (played.ckpt_path, played.seed, played.name) == (str(checkpoint), 7, "mine")
    assert ask("mode=eval", f"ckpt_path={checkpoint}", "env=minigrid").env.data.noise == 0
    for words, sentence in (
        (["policy=masked_dit"], "the checkpoint holds bc_mlp, not masked_dit"),
        (["encoder=mlp"], "the checkpoint's encoder is not the one"),
        (["policy.denoise_steps=3"], "policy.denoise_steps does not exist; policy has"),
        (["env.data.noise=2"], "env.data.noise must be at least 0 and below 1"),
    ):
        with pytest.raises(BadRequest, match=sentence):
            ask("mode=eval", f"ckpt_path={checkpoint}", *words)


def test_evaluation_takes_seed_and_episodes_from_its_run_unless_asked(ask: Any, tmp_path: Path) -> None:
    trained = ask("policy=bc_mlp", "seed=7", "eval.episodes=60", "eval.media=0")
    path = f"ckpt_path={save_checkpoint(trained, tmp_path / 'run')}"
    played = ask("mode=eval", path)
    assert (played.seed, played.eval) == (7, trained.eval)
    assert folder.choose(played.config, folder.AUTO).name.endswith(f"{folder.identity(played.config)}-eval")
    asked = ask("mode=eval", path, "seed=0", "eval.episodes=500")
    assert (asked.seed, asked.eval.episodes, asked.eval.media) == (0, 500, 0)


def test_a_checkpoint_that_an_experiment_starts_from_has_to_be_trained_first(ask: Any) -> None:
    with pytest.raises(BadRequest, match=r"bc_push-0 does not exist yet; the header of experiment=act_push says how to train it"):
        ask("experiment=act_push")
    with pytest.raises(BadRequest, match="init_from=nowhere does not exist; give a run folder"):
        ask("experiment=act_push", "init_from=nowhere")


def test_checkpoint_cannot_name_code_or_trust_itself(ask: Any, tmp_path: Path) -> None:
    request = ask()
    request.config["policy"]["_target_"] = "builtins.open"
    request.config["trusted_packages"] = ["builtins"]
    checkpoint = save_checkpoint(request, tmp_path / "run")
    with pytest.raises(BadRequest, match=r"policy._target_ is builtins.open, but only policies"):
        ask("mode=eval", f"ckpt_path={checkpoint}")


@pytest.mark.parametrize("damage", ["no config", "torn config", "another target", "no policy"])
def test_damaged_checkpoint_is_a_sentence(ask: Any, tmp_path: Path, damage: str) -> None:
    checkpoint = save_checkpoint(ask(), tmp_path / "run", "policies.bc_mlp.BCMLP" if damage == "another target" else None)
    if damage == "no config":
        (checkpoint / "config.yaml").unlink()
    elif damage == "torn config":
        (checkpoint / "config.yaml").write_text("policy: {a: [")
    elif damage == "no policy":
        (checkpoint / "policy.json").unlink()
    with pytest.raises(BadRequest, match="holds no checkpoint" if damage == "no policy" else "is damaged"):
        ask("mode=eval", f"ckpt_path={checkpoint}")
