"""If one file of a run folder is damaged, readers get the same result as before, or a sentence. Never a traceback, a hang, or
silently another result."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import Forked
from fuzz import copied, damage
from helpers import ROOT
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import policies
from conf import again, folder
from conf.check import Request, typed
from conf.errors import BadRequest
from conf.sentences import explain
from sweeps import runs as sweep
from trainers.loop import checkpoint
from trainers.record import records
from trainers.record.boards import Config as Logger

TRAINED = ("policy=bc_mlp", "policy.hidden_dim=16", "logger=none", "seed=3")
SMALL = ("trainer.max_steps=4", "trainer.save_every=2", "trainer.eval_every=2", "trainer.eval_episodes=2", "trainer.log_every=1")
EVAL = ("trainer.batch_size=8", "eval.episodes=2", "eval.media=0", "env.max_steps=10", "env.data.episodes=20")


@pytest.fixture(scope="module")
def sweep_folder(imported: Forked, tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with one finished run of four steps."""
    place = tmp_path_factory.mktemp("sweep")
    words = [*TRAINED, *SMALL, *EVAL, "env.data.val_episodes=5", f"data_dir={data_dir}", f"hydra.run.dir={place / 'run'}"]
    done = imported.run([sys.executable, str(ROOT / "launch.py"), *words], place)
    assert done.returncode == 0, done.stderr
    return place


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


def loaded(run: Path) -> str:
    return digest(policies.load(run).state_dict())


@cache
def composed(*words: str) -> DictConfig:
    """Most commands here are the same: the damaged folder always lies in the same place."""
    return compose("config", [*words], return_hydra_config=True)


def checked(*words: str) -> Request:
    cfg = deepcopy(composed(*words))
    HydraConfig.instance().set_config(cfg)
    return typed(cfg)


def played(run: Path) -> Any:
    return checked("mode=eval", f"ckpt_path={run}").config


def resumed(run: Path, said: list[str]) -> Any:
    """Everything that a resumed run loads: its configuration, its numbers and tensors, and its metrics so far."""
    words = again.with_its_own(["resume=true", f"hydra.run.dir={run}"])
    request = checked(*(word for word in words if not word.startswith("hydra.")))
    folder.choose(request.config, str(run))
    found = checkpoint.newest(run / "checkpoints", said.append)
    assert found is not None
    state = found.state
    records.Records(run, Logger("none"), state["metrics_offset"], state["step"], state["metrics_digest"]).close()
    return request.config, state, digest(found.tensors), (run / "metrics.jsonl").read_bytes()


def listed(place: Path) -> Any:
    return [(run.folder.name, run.setting, run.seed, run.summary, run.evaluation) for run in sweep.read(place)]


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 300), marks=pytest.mark.slow)], ids=["some", "many"])
def test_one_damaged_file(
    request_for: Callable, sweep_folder: Path, tmp_path: Path, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    with copied(sweep_folder, whole) as place:
        right = (loaded(place / "run"), played(place / "run"), resumed(place / "run", []))
    told: list[str] = []
    monkeypatch.setattr(records, "say", told.append)
    for seed in seeds:
        with copied(sweep_folder, whole) as place:
            what = damage(place, seed)
            told.clear()
            for number, read in enumerate((loaded, played, lambda run: resumed(run, told))):
                try:
                    found = read(place / "run")
                except Exception as error:
                    if not explain(error):
                        raise AssertionError((seed, what)) from error
                else:
                    assert found == right[number] or told, (seed, what)


def test_one_damaged_file_of_a_sweep(sweep_folder: Path, tmp_path: Path) -> None:
    with copied(sweep_folder, tmp_path / "whole") as place:
        for name in ("status.json", "summary.json", "evaluation.json", "overrides.yaml", "config.yaml"):
            content = (place / "run" / name).read_bytes()
            for harm in (content[: len(content) // 2], b"", b"[]", b"\xff\xfe" + content):
                (place / "run" / name).write_bytes(harm)
                try:
                    listed(place)
                except BadRequest as error:
                    assert str(error)
                (place / "run" / name).write_bytes(content)


@pytest.mark.slow
def test_hostile_checkpoints_are_sentences(request_for: Callable, sweep_folder: Path, tmp_path: Path) -> None:
    """Changed by an attacker, who also updated the hashes."""
    from conf.checkpoint import write_manifest

    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{n}: &{n} [{','.join(['*' + p] * 9)}]\n" for p, n in pairwise("abcdefghi"))

    def changed(text: str, **values: Any) -> str:
        return yaml.safe_dump({**yaml.safe_load(text), **values})

    harms: list[tuple[str, Callable[[str], str]]] = [
        ("config.yaml", lambda text: changed(text, name="../../x")),
        ("config.yaml", lambda text: changed(text, name=["x"])),
        ("config.yaml", lambda text: changed(text, name="${oc.env:HOME}")),
        ("config.yaml", lambda text: changed(text, policy=[1])),
        ("config.yaml", lambda text: text.replace("hidden_dim: 16", "hidden_dim: 17")),
        ("config.yaml", lambda text: bomb + text),
        ("config.yaml", lambda text: "x: " + "[" * 10_000),
        ("config.yaml", lambda text: "- 1"),
        ("policy.json", lambda text: text.replace('"hidden_dim": 16', '"hidden_dim": 1000000000000')),
        ("policy.json", lambda text: text.replace('"hidden_dim": 16', '"hidden_dim": 1' + "0" * 400)),
        ("policy.json", lambda text: text.replace('"layers": 2', '"layers": 1000000')),
        ("policy.json", lambda text: "[" * 100_000),
        ("policy.json", lambda text: text.replace('"discrete"', '"unknown"')),
        ("policy.json", lambda text: text.replace('"spaces"', '"species"')),
        ("policy.json", lambda text: '{"target": "policies.bc_mlp.BCMLP", "config": {}, "spaces": {"observation": null}}'),
    ]
    for number, (name, harm) in enumerate(harms):
        with copied(sweep_folder, tmp_path / "whole") as place:
            step = (place / "run/checkpoints/last").resolve()
            (step / name).write_text(harm((step / name).read_text()))
            (step / "manifest.json").unlink()
            write_manifest(step)
            for read in (loaded, played) if name == "policy.json" else (played,):
                with pytest.raises(BadRequest) as refused:
                    read(step)
                assert len(str(refused.value)) < 500, number


@pytest.mark.parametrize("weights", ["nan", "int8", "pickle"])
def test_weights_that_are_none_are_refused(sweep_folder: Path, tmp_path: Path, weights: str) -> None:
    from conf.checkpoint import write_manifest
    from policies.store import read_tensors, write_tensors

    with copied(sweep_folder, tmp_path / "whole") as place:
        step = (place / "run/checkpoints/last").resolve()
        file = step / "policy.safetensors"
        tensors = {name: tensor.clone() for name, tensor in read_tensors(file).items()}  # what is read lies in the file
        if weights == "pickle":
            torch.save(tensors, file)
        else:
            write_tensors(file, {name: t * torch.nan if weights == "nan" else t.to(torch.int8) for name, t in tensors.items()})
        (step / "manifest.json").unlink()
        write_manifest(step)
        with pytest.raises(BadRequest, match="is damaged"):
            loaded(step)
        os.unlink(file)
        os.mkfifo(file)
        with pytest.raises(BadRequest, match=r"policy\.safetensors is not a file"):
            loaded(step)
