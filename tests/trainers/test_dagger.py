"""DAgger: which states are added, what of them is learned, and that a run that was cut off makes the same ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONTINUOUS_TOY, IN_CONTEXT, ROOT, options, save_checkpoint
from toy import Toy

from conf.errors import BadRequest
from envs.data.record import Takeover, record_episodes
from envs.data.store import Dataset
from trainers.dagger import Corrections
from trainers.evaluate.final import episode_seeds
from trainers.evaluate.rollout import RandomPlayer
from trainers.setup import build_trainer

SMALL = (
    *("trainer=dagger", "env.id=MiniGrid-DoorKey-5x5-v0", "env.max_steps=30", "trainer.max_steps=30", "trainer.batch_size=16"),
    *("trainer.rounds=2", "trainer.episodes=10", "trainer.eval_every=0", "trainer.eval_episodes=0", "trainer.save_every=5"),
    *("trainer.log_every=4", "trainer.schedule.warmup=5", "logger=none"),
)


@pytest.fixture
def trainer(request_for: Callable, tmp_path: Path) -> Callable:
    def make(*overrides: str, folder: str = "run", small: tuple[str, ...] = SMALL):  # type: ignore[no-untyped-def]
        request = request_for(*small, *overrides)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "config.yaml").write_text("")
        return build_trainer(request, request.targets["env"](request.env), place, torch.device("cpu"))

    return make


def rounds_of(trainer) -> list[Dataset]:  # type: ignore[no-untyped-def]
    return [Dataset(trainer.run.folder / f"rounds/round-{number}") for number in (1, 2)]


@pytest.mark.parametrize("policy", ["bc_mlp", "masked_dit"])
def test_samples_are_what_the_policy_can_learn_from(trainer: Callable, policy: str):
    """One action at a time: every step. Plans: only what the expert drove, none of whose labels is without its successors."""
    made = trainer(f"policy={policy}")
    assert made.fit().status == "done"
    source = made.source
    assert isinstance(source, Corrections)
    assert [source.round_of(step) for step in (0, 8, 9, 17, 18, 29)] == [0, 0, 1, 1, 2, 2]
    for dataset, part in zip(rounds_of(made), source.parts[1:], strict=True):
        drives = dataset.columns["expert_drives"]
        begins = np.isin(np.arange(len(dataset)), dataset.starts)
        assert 0.1 < drives.mean() < 0.9
        assert (drives[1:] | ~drives[:-1] | begins[1:]).all(), "once it drives, it drives to the end"
        executed, label = dataset.columns["executed_action"], dataset.columns["action"]
        assert (executed == label)[drives].all() and (executed != label)[~drives].mean() > 0.3
        assert part.rows.tolist() == (np.arange(len(dataset)) if policy == "bc_mlp" else np.flatnonzero(drives)).tolist()
        if policy == "masked_dit":
            batch = part.batch(np.arange(len(part.rows)))
            left = np.repeat(dataset.ends, dataset.ends - dataset.starts)[part.rows] - part.rows
            assert batch["action_mask"].sum(1).tolist() == np.minimum(left, made.policy.window.actions).tolist()


def test_a_batch_is_its_samples_in_their_order(trainer: Callable):
    made = trainer("policy=bc_mlp")
    made.fit()
    source = made.source
    samples = source.orders[2].samples(29 - source.begins[2])
    batch = source.batch(29)
    for row, sample in enumerate(samples.tolist()):
        index = int(np.searchsorted(source.offsets, sample, side="right")) - 1
        alone = source.parts[index].batch(np.array([sample - source.offsets[index]]))
        assert torch.equal(batch["observation"]["grid"][row], alone["observation"]["grid"][0])
        assert batch["action"][row] == alone["action"][0]
    assert (samples >= source.offsets[1]).any() and (samples < source.offsets[1]).any()


@pytest.mark.parametrize("cut_at", [9, pytest.param(22, marks=pytest.mark.slow)])
def test_a_run_that_was_cut_off_goes_on_as_the_one_that_was_not(trainer: Callable, cut_at: int):
    """As a round begins, so that it lies there already, and two checkpoints after another one."""
    extra = ("policy=bc_mlp", "trainer.ema=0")
    whole = trainer(*extra)
    whole.fit()
    cut = trainer(*extra, folder="cut")
    take = cut.step.take

    def fails(inputs: dict, step: int) -> None:
        if step == cut_at:
            raise ConnectionError
        take(inputs, step)

    cut.step.take = fails
    with pytest.raises(ConnectionError):
        cut.fit()
    again = trainer(*extra, folder="cut")
    again.fit()
    assert (whole.run.folder / "metrics.jsonl").read_bytes() == (again.run.folder / "metrics.jsonl").read_bytes()
    assert all(torch.equal(a, b) for a, b in zip(whole.policy.parameters(), again.policy.parameters(), strict=True))
    told = [json.loads(line) for line in (again.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["dagger/round"]) for row in told if "dagger/round" in row] == [(9, 1), (18, 2)]


def test_a_round_that_is_gone_is_an_error(trainer: Callable):
    made = trainer("policy=bc_mlp")
    made.fit()
    shutil.rmtree(made.run.folder / "rounds/round-1")
    with pytest.raises(BadRequest, match="round-1 is missing"):
        trainer("policy=bc_mlp", "trainer.max_steps=30").source.prepare(20, made.policy)


def test_a_frozen_backbone_plays_by_images_and_its_head_learns_from_features(
    request_for: Callable, trainer: Callable, tmp_path: Path
):
    toy = ("env=toy", *CONTINUOUS_TOY, "policy=bc_mlp")
    save_checkpoint(request_for(*toy), tmp_path / "bc")
    small = tuple(word for word in SMALL if not word.startswith("env."))
    words = (*toy, f"init_from={tmp_path / 'bc'}", "trainer.cache_features=true")
    made = trainer(*words, small=small)
    backbone = made.policy.encoder.parts["image"].backbone
    before = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    assert made.fit().status == "done"
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.state_dict().items())
    made.policy.eval()
    for number, (dataset, part) in enumerate(zip(rounds_of(made), made.source.parts[1:], strict=True), 1):
        played, learned = np.array(dataset.observations["image"][:9]), part.batch(np.arange(9))["observation"]["image"]
        assert played.dtype == np.uint8 and learned.shape == (9, 1, backbone.features), number
        with torch.no_grad():
            again = made.policy.encoder.parts["image"].feature(torch.from_numpy(played))
        assert torch.allclose(learned[:, 0], again, atol=1e-5), number
    resumed = trainer(*words, small=small)
    resumed.begin()
    resumed.source.prepare(29, resumed.step.acting)
    assert all(torch.equal(made.batch(29)[name], resumed.batch(29)[name]) for name in ("action", "action_mask"))
    assert torch.equal(made.batch(29)["observation"]["image"], resumed.batch(29)["observation"]["image"])
    resumed.journal.records.close()


def test_what_is_played_depends_on_no_block(request_for: Callable, tmp_path: Path):
    request = request_for(*SMALL, "policy=bc_mlp")
    columns = []
    for block in (4, 1000):
        family = request.targets["env"](request.env)
        family.record_batch = block
        takeover = Takeover(RandomPlayer(family, 0), lambda seeds: seeds % 7)
        recipe = {"spaces": family.spaces.to_json()}
        (folder := tmp_path / str(block)).mkdir()
        record_episodes(family, request.env.data, recipe, np.arange(9), folder, lambda done, total: None, takeover)
        columns.append(Dataset(folder).columns)
    assert all(np.array_equal(columns[0][name], columns[1][name]) for name in columns[0])


def test_added_episodes_count_as_seen(request_for: Callable):
    request = request_for(*SMALL)
    family = request.targets["env"](request.env)
    assert len(episode_seeds(family, request.config["trainer"])) == 40 + 2 * 10


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("env=darkroom", "policy=ad"), "AD learns from learning histories"),
        (("env=darkroom", "policy=bc_mlp"), "env.data.source=explorer records learning histories"),
        (("trainer.rounds=0",), "trainer.rounds must be between"),
        (("trainer.beta=[0.5]",), "trainer.beta must be two numbers"),
        (("trainer.data_on=device",), "data_on=device is for data that do not grow"),
        (("trainer.max_epochs=1",), "trainer.max_epochs counts passes"),
        (("trainer.freeze_after=9",), "freeze_after is for trainer=offline"),
        (("env.data.episodes=999999",), "together"),
    ],
)
def test_what_cannot_be_is_a_sentence(request_for: Callable, words: tuple[str, ...], sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for("trainer=dagger", *words)


def test_an_expert_that_cannot_take_over_is_refused(request_for: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Toy, "expert_takes_over", False)
    with pytest.raises(BadRequest, match="that of Toy can only finish"):
        request_for("trainer=dagger", "policy=bc_mlp", "env=toy", *CONTINUOUS_TOY)


def test_plans_need_an_expert_that_drives(trainer: Callable):
    trainer("policy=bc_mlp", "trainer.beta=[0.5,0]")
    with pytest.raises(BadRequest, match="with a 0"):
        trainer("policy=masked_dit", "trainer.beta=[0.5,0]", folder="plans")


ELSEWHERE = {"darkroom": ("env.data.source=expert",), "babyai": ("env.max_steps=20",), "toy": CONTINUOUS_TOY}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "env"),
    [
        *((policy, "minigrid") for policy in options("policy") if policy not in IN_CONTEXT),
        *(("bc_mlp", env) for env in ELSEWHERE),
    ],
)
def test_every_policy_and_every_family_through_the_real_command(launch: Callable, here: Path, policy: str, env: str):
    usual = [word for word in SMALL if not word.startswith(("env.", "trainer.max_steps", "trainer.eval_every"))]
    small = ("trainer.max_steps=6", "trainer.eval_every=3", "eval.episodes=4", "eval.media=0", "env.data.episodes=30")
    words = (f"policy={policy}", f"env={env}", *usual, *small, "env.data.val_episodes=4", *ELSEWHERE.get(env, ()))
    launch(*words, "hydra.run.dir=run", PYTHONPATH=str(ROOT / "tests"))
    told = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["dagger/round"] for row in told if "dagger/round" in row] == [1, 2]
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 6
