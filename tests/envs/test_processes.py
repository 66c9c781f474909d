"""Worker processes play exactly the dealt episodes, in any number of processes, and leave nothing behind however they end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import vector
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded

from conf.errors import BadRequest
from envs.processes import ProcessVector
from envs.workers import IGNORED, WorkerError

ROOT = Path(__file__).parents[2]


def play(lanes: ProcessVector, steps: int = 12) -> list[Any]:
    """Everything that a few steps return."""
    lanes.stack_final_obs = True
    observation, info = lanes.reset()
    told: list[Any] = [observation, info]
    for step in range(steps):
        told += lanes.step(np.full((lanes.num_envs, 1), step / 100, np.float32))
    lanes.close()
    return told


def test_workers_return_what_one_process_does():
    for one, other in zip(play(vector(workers=0)), play(vector(workers=2)), strict=True):
        np.testing.assert_equal(one, other)


def test_halves_step_as_the_whole():
    whole, halved = vector(lanes=5), vector(lanes=5)
    assert [half.tolist() for half in halved.halves] == [[0, 2, 4], [1, 3]] and not vector(lanes=3).halves
    for lanes in (whole, halved):
        lanes.stack_final_obs = True
        lanes.reset()
    for step in range(9):
        actions = np.full((5, 1), step / 100, np.float32)
        together = whole.step(actions)
        for number, half in enumerate(halved.halves):
            halved.begin_step(actions, number)
            np.testing.assert_equal(halved.finish_step(number), _rows(together, half))
    for lanes in (whole, halved):
        lanes.close()


def _rows(stepped: Any, lanes: np.ndarray) -> Any:
    """The part of a step that is about these lanes; nothing about ends where none of them ended."""
    if isinstance(stepped, np.ndarray):
        return stepped[lanes]
    if isinstance(stepped, tuple):
        observation, reward, terminated, truncated, info = stepped
        ended = (terminated | truncated)[lanes].any()
        kept = {name: x for name, x in info.items() if ended or not name.lstrip("_").startswith("final")}
        return tuple(_rows(x, lanes) for x in (observation, reward, terminated, truncated, kept))
    return {name: _rows(x, lanes) for name, x in stepped.items()}


def test_each_dealt_episode_is_played_once_and_lanes_run_out():
    lanes = vector(lanes=3, episodes=7)
    _, info = lanes.reset()
    ended: list[int] = []
    episode = info["episode_index"]
    while (episode >= 0).any():
        observation, _, terminated, _, info = lanes.step(np.zeros((3, 1), np.float32))
        assert not terminated[episode < 0].any()
        for lane in np.flatnonzero(terminated):
            ended.append(int(episode[lane]))
            seed, steps = info["final_obs"][lane]["state"]
            assert seed == 100 + episode[lane] and steps == seed % 3 + 2
            if info["episode_index"][lane] >= 0:
                assert observation["state"][lane].tolist() == [100 + info["episode_index"][lane], 0]
        episode = info["episode_index"]
    assert sorted(ended) == list(range(7))
    assert lanes.call("best") == [None, None, None]
    lanes.close()


def test_methods_of_the_simulators_and_their_infos_can_be_asked_for():
    lanes = vector()
    lanes.reset()
    _, reward, _, _, info = lanes.step(np.full((4, 1), 0.5, np.float32))
    assert lanes.call("best", 10.0) == [10.0] * 4
    assert info["twice"].tolist() == [2.0] * 4 and reward.tolist() == [0.5] * 4
    lanes.close()


def test_returned_arrays_are_never_written_again():
    lanes = vector()
    first, _ = lanes.reset()
    before = {name: array.copy() for name, array in first.items()}
    lanes.step(np.zeros((4, 1), np.float32))
    np.testing.assert_equal(first, before)
    lanes.close()


def test_misuse_is_an_error():
    lanes = vector()
    with pytest.raises(ResetNeeded):
        lanes.step(np.zeros((4, 1), np.float32))
    lanes.reset()
    with pytest.raises(InvalidAction, match="shape"):
        lanes.step(np.zeros(4, np.float32))
    with pytest.raises(InvalidAction, match="finite"):
        lanes.step(np.full((4, 1), np.nan, np.float32))
    lanes.close()
    with pytest.raises(ClosedEnvironmentError):
        lanes.step(np.zeros((4, 1), np.float32))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_request_stays_one(workers: int):
    with pytest.raises(BadRequest, match="install something"):
        vector(workers=workers, fault="unwilling")


def test_an_exception_in_a_worker_keeps_its_traceback():
    lanes = vector(fault="raise")
    lanes.reset()
    with pytest.raises(WorkerError, match="nothing here"):
        lanes.step(np.zeros((4, 1), np.float32))
    assert not running(lanes)


def test_a_worker_that_dies_is_named_and_the_others_end():
    lanes = vector(fault="die")
    lanes.reset()
    with pytest.raises(WorkerError, match="lanes 0 to 1 was killed by SIGKILL"):
        lanes.step(np.zeros((4, 1), np.float32))
    assert not running(lanes)


def test_workers_end_with_their_vector_environment():
    lanes = vector()
    lanes.reset()
    workers = lanes.workers
    del lanes
    gc.collect()
    assert all(worker.process.returncode == 0 for worker in workers)


def test_signals_for_the_whole_group_end_no_worker(monkeypatch: pytest.MonkeyPatch):
    made = subprocess.Popen

    def signalled(*words: Any, **more: Any) -> subprocess.Popen:
        process = made(*words, **more)
        for number in IGNORED:  # before it can have handlers of its own
            process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", signalled)
    lanes = vector()
    lanes.reset()
    for worker in lanes.workers:
        for number in IGNORED:
            worker.process.send_signal(number)
    lanes.step(np.zeros((4, 1), np.float32))
    lanes.close()
    assert all(worker.process.returncode == 0 for worker in lanes.workers)


PARENT = """
import sys, time
sys.path[:0] = {path!r}
from counting import vector
lanes = vector(fault={fault!r})
lanes.reset()
print(*[worker.process.pid for worker in lanes.workers], flush=True)
import numpy as np
while True:
    lanes.step(np.zeros((4, 1), np.float32))
    time.sleep(0.01)
"""
EVERYDAY = (("", signal.SIGINT), ("hang", signal.SIGKILL))  # the usual way, and the hardest one


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        pytest.param(fault, how, marks=() if (fault, how) in EVERYDAY else pytest.mark.slow)
        for fault in ("", "hang")
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    ],
)
def test_no_worker_outlives_its_parent(how: signal.Signals, fault: str):
    if fault and sys.platform != "linux":
        pytest.skip("only Linux kills a worker that hangs inside a simulator")
    code = PARENT.format(path=[str(ROOT), str(ROOT / "tests")], fault=fault)
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in the background
    )
    assert parent.stdout
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(alive(pid) for pid in workers)
    if how is signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does it
    else:
        parent.send_signal(how)
    parent.wait(20)
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def running(lanes: ProcessVector) -> list[int]:
    return [worker.process.pid for worker in lanes.workers if worker.process.poll() is None]
