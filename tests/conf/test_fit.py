"""Weights that do not fit are refused before anything is made, with the keys that the user typed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SPACES, missing_extra, options, pair, save_checkpoint
from torch import nn

from conf import fit
from conf.errors import BadRequest
from policies import store
from policies.base import Policy

ROOM = ("policy=ad", "env=darkroom")
DOOR = (*ROOM, "env.game=key_to_door")
COMPRESSED = ("policy=compressed_ad", "env=darkroom")
BY_OTHERS = ("policy.hidden_dim=30", "policy.heads=5")  # each of them alone does not go with the other's usual value


@pytest.mark.parametrize(
    ("trained", "asked", "sentence"),
    [
        (
            ROOM,
            (*ROOM, "policy.hidden_dim=128", "policy.dropout=0.1"),
            "this AD: policy.hidden_dim is 64 there and 128 here. Cho",
        ),
        (ROOM, (*ROOM, "policy.layers=2", "policy.heads=8"), "this AD: policy.layers is 3 there and 2 here. Choose"),
        (ROOM, (*ROOM, *BY_OTHERS), "this AD: policy.heads is 4 there and 5 here, policy.hidden_dim is 64 there and 30 here. C"),
        (ROOM, (*COMPRESSED, "policy.hidden_dim=32"), "this CompressedAD: policy.hidden_dim is 64 there and 32 here. Choose"),
        (DOOR, ROOM, ": key 2 there and missing here; choose env.game=key_to_door, as in its run"),
        (DOOR, (*COMPRESSED, "env.game=key_to_door"), None),
        (ROOM, (*ROOM, "env.size=11"), "position [2] of 0 to 8 there and [2] of 0 to 10 here; choose env.size=9, as in its run"),
        (ROOM, pair("ad"), "action 5 there and 7 here, direction missing there and 4 here, grid"),
        (ROOM, (*ROOM, "policy.dropout=0.1", "policy.context=100", "policy.heads=2", "env.data.source=ppo"), None),
        (ROOM, COMPRESSED, None),
        (("policy=bc_mlp",), ("policy=bc_mlp", "encoder=conv"), "policy.encoder.grid is mlp there and conv here"),
        (("policy=masked_dit",), ("policy=masked_dit", "policy.horizon=9"), "policy.horizon is 8 there and 9 here. Choose"),
    ],
)
def test_what_keeps_weights_from_starting_a_run_is_named(
    request_for: Callable, tmp_path: Path, trained: tuple[str, ...], asked: tuple[str, ...], sentence: str | None
):
    save_checkpoint(request_for(*trained), tmp_path / "run")
    try:
        request_for(*asked, f"init_from={tmp_path / 'run'}")
    except BadRequest as error:
        assert sentence and sentence in str(error)
    else:
        assert sentence is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("policy.hidden_dim=128",), "this AD: policy.hidden_dim is 64 there and 128 here"),
        (
            ("env=minigrid",),
            r"in this environment: action 5 there and 7 here, .*; choose env=darkroom, as in its run",
        ),
        (("env=minigrid", "policy.context=10", "policy.hidden_dim=128"), "cannot play in this environment"),
        (("env=darkroom",), "key 2 there and missing here; choose env.game=key_to_door, as in its run"),
    ],
)
def test_what_keeps_a_checkpoint_from_being_played_is_named(request_for: Callable, tmp_path: Path, words: Any, sentence: str):
    save_checkpoint(request_for(*DOOR), tmp_path / "run")
    with pytest.raises(BadRequest, match=sentence):
        request_for("mode=eval", f"ckpt_path={tmp_path / 'run'}", "policy=ad", *words)


@pytest.mark.skipif(missing_extra("push") is not None, reason=str(missing_extra("push")))
def test_images_of_another_size_are_refused_with_the_key(request_for: Callable, tmp_path: Path):
    push = ("policy=bc_mlp", "env=push")
    save_checkpoint(request_for(*push), tmp_path / "run")
    with pytest.raises(
        BadRequest, match=r"image \[84, 84, 3\] there and \[64, 64, 3\] here; choose env\.image_size=84, as in its"
    ):
        request_for("mode=eval", f"ckpt_path={tmp_path / 'run'}", *push, "env.image_size=64")


def test_a_damaged_checkpoint_starts_nothing(request_for: Callable, tmp_path: Path):
    held = save_checkpoint(request_for(*ROOM), tmp_path / "run")
    (held / "policy.safetensors").write_bytes((held / "policy.safetensors").read_bytes()[:-1])
    with pytest.raises(BadRequest, match=r"policy\.safetensors is not what was saved"):
        request_for(*ROOM, f"init_from={held}")


@pytest.mark.parametrize(
    ("asked", "alone"),
    [
        (("init_from=trained", *ROOM), "dry=false"),
        pytest.param(("mode=eval", "ckpt_path=trained", "policy=ad"), "dry=true", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_behind(launch: Callable, here: Path, request_for: Callable, asked: tuple[str, ...], alone: str):
    save_checkpoint(request_for(*ROOM), here / "trained")
    sentence = "policy.hidden_dim is 64 there and 128 here. Choose the values of its run, or another run"
    done = launch(*asked, "policy.hidden_dim=128", alone, check=False)
    assert done.returncode == 2 and not done.stdout
    [line] = done.stderr.splitlines()
    assert sentence in line
    done = launch("-m", *asked, "policy.hidden_dim=64,128", check=False)
    assert done.returncode == 2 and sentence in done.stderr
    assert "1 of 2 runs cannot run, so nothing was launched" in done.stderr and "#1 " in done.stderr
    assert [path.name for path in here.iterdir()] == ["trained"]


@pytest.mark.parametrize(
    "values",
    [
        ("policy.hidden_dim=1e6",),
        pytest.param(("policy.layers=1e6",), marks=pytest.mark.slow),  # each of a million layers is made
        ("policy.horizon=1e6", "policy.hidden_dim=1e5"),
    ],
)
def test_a_network_that_memory_cannot_hold_is_counted_and_refused(request_for: Callable, values: tuple[str, ...]):
    with pytest.raises(BadRequest, match=r"this network is too large: .* Lower policy\.\w+=100000"):
        request_for("policy=masked_dit", *values)


@pytest.mark.parametrize("policy", options("policy"))
def test_a_policy_without_memory_has_the_names_and_shapes_of_one_with_it(request_for: Callable, policy: str):
    asked = request_for(*pair(policy))
    spaces = asked.targets["env"](asked.env).spaces
    bare = fit.on_meta_device(asked.targets["policy"], asked.policy, spaces, math.inf)
    whole = asked.targets["policy"](asked.policy, spaces)
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    assert {name: tensor.shape for name, tensor in bare.state_dict().items()} == {
        name: tensor.shape for name, tensor in whole.state_dict().items()
    }


@dataclass
class Theirs:
    layers: int = 2


class Counting(Policy):
    """Reads values while it is made, as many networks do to let dropout grow with the depth."""

    def __init__(self, config: Theirs, spaces: Any):
        super().__init__()
        rates = torch.linspace(0, 0.5, config.layers).tolist()
        self.body = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Dropout(rate)) for rate in rates))


def test_a_policy_that_needs_memory_gets_it(tmp_path: Path):
    store.save(tmp_path, "their.Counting", Theirs(), SPACES, Counting(Theirs(), SPACES).state_dict())
    fit.refuse_misfit(Counting, tmp_path, Theirs(), SPACES)
    with pytest.raises(BadRequest, match=r"this Counting: policy\.layers is 2 there and 3 here"):
        fit.refuse_misfit(Counting, tmp_path, Theirs(3), SPACES)


def test_weights_of_other_code_are_told_apart_by_a_tensor(tmp_path: Path):
    store.save(tmp_path, "their.Counting", Theirs(), SPACES, {"body.weight": torch.zeros(3)})
    with pytest.raises(BadRequest, match=r"its body\.0\.0\.bias is missing there and \[3\] here, made by another version"):
        fit.refuse_misfit(Counting, tmp_path, Theirs(), SPACES)
