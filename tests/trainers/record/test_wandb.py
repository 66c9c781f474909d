"""`logger=wandb`: what reaches W&B's own file, and a sentence for every way in which it cannot start."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from helpers import ROOT

from conf.errors import BadRequest
from trainers.record.boards import Config

wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")

RUN = (
    *("policy=bc_mlp", "env.max_steps=20", "env.data.episodes=20", "env.data.val_episodes=4", "eval.episodes=3", "eval.media=1"),
    *("trainer.max_steps=2", "trainer.batch_size=16", "trainer.log_every=1", "trainer.eval_every=1", "trainer.eval_episodes=2"),
    *("logger=wandb", "logger.project=somewhere", "tags=[one]", "hydra.run.dir=run"),
)
KEY = "0" * 40


@pytest.fixture
def nobody(here: Path) -> dict[str, str]:
    """An environment without W&B: no key, no settings, and a home directory without either."""
    return {"HOME": str(here), "NETRC": str(here / "netrc"), "WANDB_API_KEY": "", "WANDB_CONFIG_DIR": str(here)}


def records(file: Path) -> Iterator[Any]:
    """What a `.wandb` file holds: LevelDB's log format, behind a header of 7 bytes."""
    data, at, whole = file.read_bytes(), 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:  # no header fits into the rest of a block
            at += left
            continue
        length, kind = struct.unpack("<4xHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole in one piece, or the last of several
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_what_a_run_shows_offline_and_after_a_resume(launch: Callable, here: Path, nobody: dict[str, str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        proxies = dict.fromkeys(("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        done = launch(*RUN, "logger.mode=offline", **nobody, **proxies)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()[0].close()
    assert f"wandb sync {here / 'run/wandb'}/offline-run-*" in done.stdout and not done.stderr

    metrics = (here / "run/metrics.jsonl").read_bytes()
    (first,) = here.glob("run/wandb/offline-run-*/*.wandb")
    found = list(records(first))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.project, list(run.tags), run.display_name) == ("somewhere", ["one"], "run")
    config = values(run.config.update)
    assert config["trainer.optimizer.lr"] == 1e-3 and config["env.id"] and config["policy._target_"] == "policies.bc_mlp.BCMLP"
    rows = [values(record.history.item) for record in found if record.HasField("history")]
    ours = [
        {name: row[name] for name in row if not name.startswith("_")} for row in rows if {"train/loss", "val/loss"} & row.keys()
    ]
    assert ours == [json.loads(line) for line in metrics.splitlines()]
    assert any("speed/steps_per_second" in row for row in rows)
    assert [row["test/episodes/_type"] for row in rows if "test/episodes/_type" in row] == ["video-file"]
    assert list(first.parent.glob("files/media/videos/test/*.gif"))
    summary = {name: value for record in found for name, value in values(record.summary.update).items()}
    scores = json.loads((here / "run/summary.json").read_text())["scores"]["sampled"]
    assert (summary["test/success"], summary["test/return"]) == (scores["success"], scores["return"])
    x_axis = {record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")}
    assert x_axis["*"] == "step"

    (here / "run/checkpoints/step-2/training.safetensors").write_bytes(b"")  # so it goes on from step 1, and shows 2 again
    launch(*RUN, "logger.mode=offline", "resume=true", **nobody)
    assert (here / "run/metrics.jsonl").read_bytes() == metrics
    (second,) = set(here.glob("run/wandb/offline-run-*/*.wandb")) - {first}
    found = list(records(second))
    (resumed,) = (record.run for record in found if record.HasField("run"))
    assert (resumed.run_id, resumed.resume) == (run.run_id, True)  # `wandb sync` takes them for parts of one run
    again = [values(record.history.item) for record in found if record.HasField("history")]
    assert [row["step"] for row in again if "train/loss" in row] == [2]


@pytest.mark.slow
def test_without_the_package(here: Path):
    (here / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        *RUN,
        "logger.mode=offline",
    ]  # a new Python, which has not imported it yet
    done = subprocess.run(command, cwd=here, env={**os.environ, "PYTHONPATH": str(here)}, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install -e '.[wandb]'" in done.stderr
    assert not (here / "run").exists()


def test_without_a_key(launch: Callable, here: Path, nobody: dict[str, str]):
    done = launch(*RUN, check=False, **nobody)
    assert done.returncode == 2 and "WANDB_API_KEY" in done.stderr and "logger.mode=offline" in done.stderr
    assert not (here / "run").exists()


@pytest.mark.slow
def test_a_sweep_without_a_key_does_not_begin(launch: Callable, here: Path, nobody: dict[str, str]):
    sweep = ("-m", *RUN[:-1], "seed=0,1", "hydra.sweep.dir=sweep")
    done = launch(*sweep, check=False, **nobody)
    assert done.returncode == 2 and "2 of 2 runs cannot run" in done.stderr and "WANDB_API_KEY" in done.stderr
    assert not (here / "sweep").exists()
    assert launch(*sweep, "dry=true", **nobody).stdout.count("seed=") >= 2  # shows nothing on a board


@pytest.mark.slow
@pytest.mark.parametrize("words", [("mode=collect",), ("dry=true",)])
def test_what_shows_nothing_needs_no_key(launch: Callable, nobody: dict[str, str], words: tuple[str, ...]):
    launch(*RUN, *words, **nobody)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (f"tags=[one,{'t' * 65}]", "a tag for W&B has 1 to 64 characters"),
        ("tags=['']", "a tag for W&B has 1 to 64 characters"),
        ("logger.project=a/b", "logger.project must be 1 to 128 characters"),
        (f"logger.project={'p' * 129}", "logger.project must be 1 to 128 characters"),
    ],
)
def test_a_name_that_wandb_does_not_take(request_for: Callable, words: str, sentence: str):
    with pytest.raises(BadRequest, match=sentence):
        request_for("logger=wandb", "logger.mode=offline", words).refuse_unready()
    request_for("logger=tensorboard", words).refuse_unready()


def test_a_folder_called_wandb_is_not_the_package(here: Path, monkeypatch: pytest.MonkeyPatch):
    Config(name="wandb")
    (here / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(here)])
    monkeypatch.delitem(sys.modules, "wandb")
    with pytest.raises(ValueError, match="needs an extra package"):
        Config(name="wandb")


@pytest.mark.slow
def test_a_server_that_refuses_the_key(launch: Callable, here: Path, nobody: dict[str, str]):
    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_error(401)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        online = {**nobody, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
        done = launch(*RUN, check=False, **online)
        server.shutdown()
    assert done.returncode == 2 and "W&B refused the run" in done.stderr and "Traceback" not in done.stderr
    assert not (here / "run/metrics.jsonl").exists()
