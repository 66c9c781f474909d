"""What is read of a sweep from outside: quickly, whatever lies there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from conf import status
from sweeps import control, state


def make_run(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    if values:
        status.write(folder, **values)
    return folder


def test_a_thousand_runs_are_read_in_about_a_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(1000):
        make_run(tmp_path / f"seed={number}-{number:06x}", status="done", step=5, steps=5, loss=0.5)
    began = time.process_time()
    assert control.status(tmp_path) == 0
    assert time.process_time() - began < 3  # of one CPU, on a busy machine; usually .3
    assert "1000 of 1000 done" in capsys.readouterr().out


def test_states_are_what_can_be_known(tmp_path: Path):
    here, now = socket.gethostname(), time.time()
    make_run(tmp_path / "a-000001")
    make_run(tmp_path / "b-000002", status="running", host=here, pid=1, heartbeat=now)  # nobody holds its lock
    make_run(tmp_path / "c-000003", status="running", host="elsewhere", pid=1, heartbeat=now)
    make_run(tmp_path / "d-000004", status="running", host="elsewhere", pid=1, heartbeat=now - 2 * state.SILENT)
    make_run(tmp_path / "e-000005", status="failed", reason="it broke")
    (make_run(tmp_path / "f-000006") / "status.json").write_text('{"status": "do')
    (make_run(tmp_path / "g-000007") / "status.json").write_text(json.dumps(["done"]))
    (tmp_path / "slurm").mkdir()
    found = {one.label: one for one in state.of_sweep(tmp_path)}
    assert {name: one.status for name, one in found.items()} == {
        "a": "pending",
        "b": "died",
        "c": "running",
        "d": "died",
        "e": "failed",
        "f": "damaged",
        "g": "damaged",
    }
    assert found["e"].reason == "it broke" and found["b"].reason == "its process ended without a word"


def test_a_folder_with_a_conf_of_its_own_is_not_in_the_way(tmp_path: Path):
    make_run(tmp_path / "sweep/a-000001", status="done")
    (tmp_path / "conf.py").write_text("raise RuntimeError('not ours')")
    command, env = [sys.executable, "-m", "sweeps", "status", "sweep"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert "1 of 1 done" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("said", "queue", "shown"),
    [
        ("pending", "PENDING", "queued"),
        ("preempted", "REQUEUED", "queued"),
        ("pending", "FAILED", "died"),
        ("pending", "CANCELLED", "pending"),
        ("running", "RUNNING", "running"),
        ("running", "NODE_FAIL", "died"),
        ("done", "RUNNING", "done"),  # others of its job go on
    ],
)
def test_slurm_is_asked_first(tmp_path: Path, said: str, queue: str, shown: str):
    values = {"status": said, "job": "7_1", "host": "node1", "heartbeat": time.time()}
    run = make_run(tmp_path / "a-000001", **values)
    assert state.of_run(run, values, {"7_1": queue}).status == shown


def test_squeue_comes_before_sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a job that squeue has forgotten sacct may know; both may be missing."""
    for name, lines in (("squeue", "7_0|RUNNING"), ("sacct", "7_0|COMPLETED\\n7_1|CANCELLED by 0\\n9|FAILED")):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin", prepend=None)
    assert state.slurm_states({"7_0", "7_1"}) == {"7_0": "RUNNING", "7_1": "CANCELLED"}
    monkeypatch.setenv("PATH", os.devnull)
    assert state.slurm_states({"7_0"}) == {}


def test_the_newest_sweep_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for number, home in enumerate(("runs/study", "runs/name/2026-abcdef")):
        (tmp_path / home).mkdir(parents=True)
        (tmp_path / home / "sweep.json").touch()
        os.utime(tmp_path / home / "sweep.json", (number, number))
    assert state.newest_sweep() == Path("runs/name/2026-abcdef")
