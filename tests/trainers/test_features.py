"""Heads trained on the features of a frozen backbone: the same numbers as from the images, and nothing frozen moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CONTINUOUS_TOY, missing_extra, save_checkpoint

from conf.errors import BadRequest
from envs.data import record
from envs.data.windows import Windows
from policies.noise import Noise
from policies.store import load
from trainers.features import FILE, freeze, with_features
from trainers.setup import build_trainer

TOY = (*CONTINUOUS_TOY, "env=toy", "logger=none", "device=cpu")
CACHED = ("trainer.cache_features=true", "trainer.batch_size=32", "trainer.eval_episodes=0")


@pytest.fixture
def start(request_for: Callable, tmp_path: Path) -> str:
    """`init_from=` a bc_mlp."""
    save_checkpoint(request_for(*TOY, "policy=bc_mlp"), tmp_path / "bc")
    return f"init_from={tmp_path / 'bc'}"


@pytest.mark.parametrize(
    "policy",
    ["bc_mlp", "act", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bc_gru", "diffusion_unet", "masked_dit"))],
)
def test_any_head_learns_from_another_policys_backbone(request_for: Callable, tmp_path: Path, start: str, policy: str):
    request = request_for(*TOY, f"policy={policy}", *CACHED, start)
    trainer = build_trainer(request, request.targets["env"](request.env), tmp_path, torch.device("cpu"))
    part = trainer.policy.encoder.parts["image"]
    backbone = {name: weight.clone() for name, weight in part.backbone.state_dict().items()}
    given = load(tmp_path / "bc").encoder.parts["image"].backbone.state_dict()
    assert all(torch.equal(weight, given[name]) for name, weight in backbone.items())
    before = {name: weight.clone() for name, weight in trainer.policy.named_parameters()}
    for step in range(4):
        trainer.step.take(trainer.source.inputs(step), step)
    assert all(torch.equal(weight, backbone[name]) for name, weight in part.backbone.state_dict().items())
    moved = {name for name, weight in trainer.policy.named_parameters() if not torch.equal(weight, before[name])}
    assert "encoder.parts.image.project.weight" in moved and not any(".backbone." in name for name in moved)
    # What acts sees images, and computes what was cached.
    trainer.policy.eval()
    data = record.dataset(request.targets["env"](request.env), request.env.data, "train", Path(request.data_dir))
    rows = torch.arange(24)
    losses = [
        trainer.policy(windows.batch(rows.numpy()), Noise(0, 0, rows))
        for windows in (trainer.data, Windows(data, trainer.policy.window))
    ]
    assert torch.allclose(losses[0].total, losses[1].total, rtol=1e-4) and losses[0].count == losses[1].count


def test_features_are_computed_once_and_belong_to_the_data(request_for: Callable, tmp_path: Path, start: str):
    request = request_for(*TOY, "policy=act", *CACHED, start)
    family = request.targets["env"](request.env)
    data = record.dataset(family, request.env.data, "train", Path(request.data_dir))
    policy, seen = load(tmp_path / "bc"), []
    freeze(policy)
    first = with_features(data, policy, tmp_path / "features", lambda done, total: seen.append(done))
    assert seen[-1] == len(data) and first.fingerprint != data.fingerprint
    assert data.observations["image"].ndim == 4 and first.observations["image"].shape == (len(data), 128)
    again = with_features(data, policy, tmp_path / "features", lambda done, total: seen.append(-1))
    assert seen[-1] == len(data) and again.fingerprint == first.fingerprint
    with torch.no_grad():
        policy.encoder.parts["image"].backbone.first.bias[0] += 0.01
    assert with_features(data, policy, tmp_path / "features", lambda done, total: None).fingerprint != first.fingerprint
    for file in (tmp_path / "features").glob(f"*/{FILE}"):
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadRequest, match="damaged; delete that folder"):
        with_features(data, policy, tmp_path / "features", lambda done, total: None)


def test_a_run_freezes_its_own_backbone_on_its_way(request_for: Callable, tmp_path: Path):
    small = ("trainer.max_steps=8", "trainer.batch_size=32", "trainer.eval_episodes=0", "trainer.freeze_after=4")
    request = request_for(*TOY, "policy=bc_mlp", *small)
    trainer = build_trainer(request, request.targets["env"](request.env), tmp_path, torch.device("cpu"))
    trainer.begin()
    part, kept = trainer.policy.encoder.parts["image"], []
    for step in range(8):
        average = trainer.step.acting.encoder.parts["image"].backbone.first.weight.clone()
        trainer.advance()
        kept.append(part.backbone.first.weight.detach().clone())
        if step == 4:
            assert torch.equal(kept[4], average), "the averaged weights go on"
            head = trainer.policy.mlp[0].weight.detach().clone()
    assert not torch.equal(kept[2], kept[3]) and torch.equal(kept[4], kept[7])
    assert not torch.equal(trainer.policy.mlp[0].weight, head)
    assert trainer.batch(0)["observation"]["image"].shape == (32, 1, 128)
    trainer.validate()
    trainer.journal.records.close()
    assert trainer.state.best_step == 8


def test_what_cannot_be_cached_is_refused(request_for: Callable, start: str):
    for words, sentence in (
        (("env=minigrid", "policy=bc_mlp", *CACHED), "for policies that see images"),
        (("env=minigrid", "policy=bc_mlp", "trainer.freeze_after=9"), "freeze_after=9 is for policies that see images"),
        ((*TOY, "policy=bc_mlp", "trainer.freeze_after=9", "policy.encoder.image_shift=2"), "shifts the image anew each time"),
        ((*TOY, "policy=bc_mlp", *CACHED, start, "trainer.freeze_after=9"), "leave it out, or freeze_after"),
        ((*TOY, "policy=act", *CACHED), "has learned nothing yet: add init_from=RUN"),
        ((*TOY, "policy=act", *CACHED, start, "policy.encoder.image_shift=2"), "shifts the image anew each time"),
        ((*TOY, "policy=act", *CACHED, start, "policy.encoder.ignore=[image]"), "for policies that see images"),
        (
            (*TOY, "policy=act", *CACHED, start, "policy.encoder.image_pool=average"),
            "image_pool is softmax there and average here",
        ),
    ):
        with pytest.raises(BadRequest, match=sentence):
            request_for(*words)


@pytest.mark.skipif(bool(missing_extra("push")), reason=str(missing_extra("push")))
def test_a_backbone_that_an_instruction_steers_is_not_frozen(request_for: Callable, tmp_path: Path):
    told = ("env=push", "env.task=language", "policy=bc_mlp", "logger=none", "device=cpu")
    save_checkpoint(request_for(*told, "policy.encoder.image_film=true"), tmp_path / "told")
    start = f"init_from={tmp_path / 'told'}"
    for film, sentence in ((False, "learned to look for what its instruction names"), (True, "they depend on it")):
        with pytest.raises(BadRequest, match=sentence):
            request_for(*told, *CACHED, start, f"policy.encoder.image_film={film}")
