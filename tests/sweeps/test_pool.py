"""The local pool, with real processes that crash, hang and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from forked import Forked, Process

from conf import status

COLLECT = ("-m", "mode=collect", "hydra.sweep.dir=sweep")


def states(here: Path, home: str = "sweep") -> dict[str, dict]:
    """What each run's status.json says, by the swept values."""
    return {path.parent.name.rpartition("-")[0]: status.read(path.parent) for path in here.glob(f"{home}/*/status.json")}


def test_every_way_to_fail_fails_alone_and_says_why(launch: Callable, here: Path):
    faults = ("none", "raise", "exit", "silent", "segfault", "kill")
    done = launch(*COLLECT, f"env.fault={','.join(faults)}")
    assert done.returncode == 9, done.stdout + done.stderr
    found = {name.partition("=")[2]: values for name, values in states(here).items()}
    assert {name: values["status"] for name, values in found.items()} == {
        **dict.fromkeys(faults, "failed"),
        "none": "done",
        "raise": "failed",
    }
    reasons = {
        "raise": "ZeroDivisionError: division by zero",
        "exit": "about to go",
        "silent": "it ended without finishing",
        "segfault": "it was killed by SIGSEGV",
        "kill": "it was killed by SIGKILL (out of memory?)",
    }
    assert {name: found[name]["reason"] for name in reasons} == reasons
    assert found["exit"]["exit_code"] == 9 and found["kill"]["exit_code"] == -signal.SIGKILL
    assert "about to go" in found["exit"]["log_end"] and "ZeroDivisionError" in found["raise"]["log_end"]
    assert "ZeroDivisionError: division by zero" in done.stdout  # one line of it
    assert "Traceback" not in done.stdout + done.stderr  # that is in the run's own output
    assert "6 of 6" in done.stdout


@pytest.mark.slow
def test_a_run_that_hangs_is_ended(launch: Callable, here: Path, environment: dict[str, str]):
    environment["PATIENCE"] = "2"
    assert launch(*COLLECT, "env.fault=hang,deaf", "cluster.timeout_min=0.1").returncode == 1
    for values in states(here).values():
        assert values["reason"] == "it took longer than cluster.timeout_min=0.1", values


@pytest.mark.slow
def test_the_same_command_again_does_only_what_is_left(launch: Callable, sweeps: Callable, here: Path):
    done = launch("-m", "mode=collect", "env.fault=none,once,silent", "cluster.jobs=1")
    assert done.returncode == 1
    [home] = (here / "runs/sweep").iterdir()
    before = {path.parent.name: path.stat().st_mtime_ns for path in home.glob("*/summary.json")}
    assert len(before) == 1
    again = launch("-m", "mode=collect", "env.fault=none,once,silent", "cluster.jobs=1")
    assert "1 of 3 runs are done already" in again.stdout and again.returncode == 1
    assert [*(here / "runs/sweep").iterdir()] == [home] and len([*home.glob("*/config.yaml")]) == 3
    after = {path.parent.name: path.stat().st_mtime_ns for path in home.glob("*/summary.json")}
    assert len(after) == 2 and after.items() > before.items()
    more = launch("-m", "mode=collect", "env.fault=none,once", "cluster.jobs=1")  # another grid is another sweep
    assert "are done already" not in more.stdout and len([*(here / "runs/sweep").iterdir()]) == 2
    shown = sweeps("status", str(home))
    assert shown.returncode == 0 and "2 of 3 done, 1 failed" in shown.stdout and "it ended without finishing" in shown.stdout
    assert f"python -m sweeps resume {home}" in shown.stdout


@pytest.mark.slow
def test_a_run_is_a_command_line_that_can_be_pasted(launch: Callable, here: Path, environment: dict[str, str]):
    shown = launch("-m", "mode=collect", "env.fault=none,raise", "tags=['it is']", "dry=true")
    assert shown.returncode == 0 and not (here / "runs").exists()
    line = shown.stdout.rstrip().splitlines()[-1]
    done = subprocess.run(line, shell=True, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [summary] = here.glob("runs/sweep/*/*/summary.json")
    assert yaml.safe_load((summary.parent / "config.yaml").read_text())["tags"] == ["it is"]


@pytest.mark.slow
def test_retries_and_fail_fast(launch: Callable, here: Path):
    done = launch(*COLLECT, "env.fault=once,none", "cluster.retries=1", "cluster.jobs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed and is tried again: RuntimeError: only once" in done.stdout
    done = launch(
        "-m", "mode=collect", "hydra.sweep.dir=fast", "env.fault=raise,none", "cluster.fail_fast=true", "cluster.jobs=1"
    )
    assert done.returncode == 4 and "stopped at the first failure" in done.stdout
    assert {name: values["status"] for name, values in states(here, "fast").items()} == {
        "env.fault=raise": "failed",
        "env.fault=none": "pending",
    }


@pytest.mark.slow
def test_gpus_and_threads_are_dealt_out(launch: Callable, here: Path, environment: dict[str, str]):
    environment |= {"CUDA_VISIBLE_DEVICES": "5,7"}
    grid = (*COLLECT, "env.fault=show", "seed=0,1,2,3", "env.data.seed=0", "cluster.threads=2")
    done = launch(*grid)
    assert "4 runs, 2 at a time, 2 threads each" in done.stdout and done.returncode == 0
    shown = [line for path in here.glob("sweep/*/output.txt") for line in path.read_text().splitlines() if line[:3] == "GPU"]
    assert {*shown} == {"GPU 5 threads 2", "GPU 7 threads 2"}
    done = launch("-m", "mode=collect", "hydra.sweep.dir=more", "env.fault=show", "seed=0,1", "cluster.gpus=3")
    assert done.returncode == 2 and "cluster.gpus=3, but this machine has 2" in done.stderr


def wait_until(process: Process, true: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not true():
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(process.communicate(1))
        time.sleep(0.05)


@pytest.fixture
def started(forked: Forked, command: Callable, environment: dict[str, str], here: Path) -> Callable[..., Process]:
    return lambda *words: forked.start(command(*words), here, environment)


LONG = ("-m", "hydra.sweep.dir=sweep", "seed=0,1,2", "cluster.jobs=2", "trainer.max_steps=100000", "trainer.save_every=20")


@pytest.mark.slow
def test_ctrl_c_saves_everything_and_says_how_to_go_on(started: Callable, launch: Callable, here: Path):
    process = started(*LONG)
    wait_until(process, lambda: len([*here.glob("sweep/*/checkpoints/last")]) == 2)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    output = process.communicate()[0]
    assert process.returncode == 4, output
    assert sorted(values["status"] for values in states(here).values()) == ["pending", "preempted", "preempted"]
    assert "0 of 3 runs are done. To go on:\n  python " in output and "trainer.max_steps=100000" in output
    assert not alive(here)


def alive(here: Path) -> list[int]:
    """Processes of runs that status.json names, and which are still there."""
    pids = [values["pid"] for values in states(here).values() if "pid" in values]
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["launcher", "server"])
def test_nothing_stays_behind_when_a_part_is_killed(started: Callable, sweeps: Callable, here: Path, victim: str):
    process = started(*LONG)
    wait_until(process, lambda: len([*here.glob("sweep/*/checkpoints/last")]) == 2)
    steps = {name: values.get("step", 0) for name, values in states(here).items()}
    if victim == "launcher":
        process.kill()
        process.communicate()
        until = time.monotonic() + 60
        while alive(here) and time.monotonic() < until:
            time.sleep(0.1)
        assert sorted(values["status"] for values in states(here).values()) == ["pending", "preempted", "preempted"]
    else:
        [server] = children(process.pid)
        os.kill(server, signal.SIGKILL)
        wait_until(
            process, lambda: sum(values.get("step", 0) > steps.get(name, 0) + 20 for name, values in states(here).items()) == 2
        )
        stopped = sweeps("cancel", "sweep")
        output = process.communicate()[0]
        assert stopped.returncode == 0, stopped.stderr
        assert "the process that starts the runs was killed" in output
    assert not alive(here)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_whoever_launches(launch: Callable, here: Path):
    assert launch("-m", "mode=collect", "hydra/launcher=basic", "hydra.sweep.dir=sweep", "seed=0").returncode == 0
    [run] = [path for path in (here / "sweep").iterdir() if path.is_dir()]
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed": 5}))
    for more in ([], ["hydra/launcher=basic"]):
        done = launch("-m", "mode=collect", "hydra.sweep.dir=sweep", "seed=0", *more)
        assert done.returncode == 2 and "holds another run; it differs in seed" in done.stderr


@pytest.mark.slow
def test_another_sweeper_gets_a_folder_too_and_may_not_reuse_it(launch: Callable, here: Path):
    hydras = "hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    for more in (["hydra/launcher=basic"], []):  # with Hydra's own launcher its runs are called 0 and 1
        assert launch("-m", "mode=collect", "seed=0,1", hydras, *more).returncode == 0
    assert not (here / "auto").exists()
    first, second = sorted((here / "runs/sweep").iterdir())
    assert {"0", "1"} <= {path.name for path in first.iterdir()}
    assert {path.name.partition("-")[0] for path in second.iterdir() if path.is_dir()} == {"seed=0", "seed=1"}
    again = launch("-m", "mode=collect", "seed=2,3", hydras, "hydra/launcher=basic", f"hydra.sweep.dir={first}")
    assert again.returncode == 2 and "holds another run; it differs in seed" in again.stderr
    failed = launch("-m", "mode=collect", "env.fault=raise,none", hydras)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1] == "env.fault=raise: ZeroDivisionError: division by zero"  # below Hydra's own words


@pytest.mark.slow
def test_a_run_on_another_machine_is_not_started_here(launch: Callable, here: Path):
    assert launch(*COLLECT, "env.fault=none,raise").returncode == 1
    [folder] = here.glob("sweep/*fault=raise*")
    status.update(folder, status="running", host="elsewhere", heartbeat=time.time())
    again = launch(*COLLECT, "env.fault=none,raise")
    assert "1 of 2 runs are done already, 1 are queued or running in SLURM or on another machine" in again.stdout
    assert again.returncode == 0 and status.read(folder)["host"] == "elsewhere"


@pytest.mark.slow
def test_a_status_file_cut_in_half_is_not_the_end(launch: Callable, sweeps: Callable, here: Path):
    assert launch(*COLLECT, "env.fault=none,raise").returncode == 1
    for path in here.glob("sweep/*/status.json"):
        path.write_text(path.read_text()[:20])
    shown = sweeps("status", "sweep")
    assert "2 damaged" in shown.stdout and "Traceback" not in shown.stderr
    assert json.loads(next(here.glob("sweep/*fault=none*/summary.json")).read_text())["status"] == "done"
    assert launch(*COLLECT, "env.fault=none,raise").returncode == 1  # both are run again
    assert {name: values["status"] for name, values in states(here).items()} == {
        "env.fault=none": "done",
        "env.fault=raise": "failed",
    }


@pytest.mark.slow
def test_one_sweep_has_one_launcher(started: Callable, launch: Callable, sweeps: Callable, here: Path):
    process = started(*COLLECT, "env.fault=hang,raise")
    wait_until(process, lambda: any(values["status"] == "running" for values in states(here).values()))
    second = launch(*COLLECT, "env.fault=hang,raise")
    assert second.returncode == 2 and "is being launched by another process" in second.stderr
    assert sweeps("cancel", "sweep").returncode == 0
    process.communicate()
    assert process.returncode == 1
