"""`debug=profile`: its parts add up, its trace opens, and measuring does not change the results."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import BadRequest
from envs.data import record
from envs.data.windows import Windows
from policies.store import write_tensors
from trainers.base import Run
from trainers.loop.config import PROFILED_LEAST as LEAST
from trainers.offline import Offline
from trainers.record.boards import Config as Logger
from trainers.record.profile import Stopwatch, profile, shares
from trainers.record.records import Records

PARTS = {
    *("fetch the batch", "to device", "forward", "backward", "gradient norm and clipping"),
    *("optimiser", "averaging", "records", "the rest"),
}
SMALL = ("trainer.batch_size=32", "env.id=MiniGrid-DoorKey-5x5-v0", "env.data.episodes=40", "env.data.val_episodes=10")


@pytest.mark.parametrize("policy", ["bc_mlp", pytest.param("masked_dit", marks=pytest.mark.slow)])
def test_debug_profile_says_where_the_time_goes(launch: Callable, here: Path, policy: str):
    done = launch("debug=profile", f"policy={policy}", *SMALL, "hydra.run.dir=run")
    assert not done.stderr  # the profiler's library is talkative
    report = json.loads((here / "run/profile/profile.json").read_text())
    parts = {part["name"]: part for part in report["parts"]}
    assert parts.keys() == PARTS and all(part["milliseconds"] > 0 for part in parts.values())
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    timed = report["milliseconds_per_step"]["timed"]
    assert sum(part["milliseconds"] for part in parts.values()) >= timed  # the stopwatch runs a little longer than the steps
    assert report["milliseconds_per_step"].keys() == {"plain", "timed", "traced"}
    assert {"aten::addmm", "aten::_fused_adamw_"} <= {operator["name"] for operator in report["operators"]}
    (adamw,) = (operator for operator in report["operators"] if operator["name"] == "aten::_fused_adamw_")
    assert adamw["calls"] == 1
    for words in (*PARTS, "aten::", "steps/s", "named parts cover", "under PyTorch's profiler", "https://ui.perfetto.dev"):
        assert words in done.stdout, words

    with gzip.open(here / "run/profile/trace.json.gz") as file:
        names = {event["name"] for event in json.load(file)["traceEvents"]}
    assert names > PARTS - {"the rest"} and "aten::addmm" in names

    assert json.loads((here / "run/status.json").read_text())["status"] == "done"
    left = {path.name for path in (here / "run").iterdir()}
    assert not left & {"checkpoints", "evaluation.json", "summary.json", "media"}
    rows = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30] and not any("val/loss" in row for row in rows)


def test_each_moment_counts_for_one_part(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("trainers.record.profile.time.perf_counter", lambda: now[0])

    def spend(seconds: float, inside: Callable[[], None] = lambda: None) -> None:
        now[0] += seconds
        inside()
        now[0] += seconds

    watch = Stopwatch(wait=lambda: spend(0.5))  # for the device, whose work belongs to the part that ends
    inner = watch.timed("inner", lambda: spend(8))
    outer = watch.timed("outer", lambda: spend(1, inner))
    now[0] += 4
    outer()
    watch.turn()
    assert watch.seconds == {"the rest": 4 + 1 + 1, "outer": 2 + 2, "inner": 16 + 1} and sum(watch.seconds.values()) == now[0]
    parts = shares({"the rest": 5, "short": 1, "long": 2})
    assert [(part["name"], part["share"]) for part in parts] == [("long", 0.25), ("short", 0.125), ("the rest", 0.625)]


@pytest.mark.parametrize("override", [f"trainer.max_steps={LEAST - 1}", "trainer.max_epochs=1"])
def test_a_budget_that_cannot_be_profiled_is_refused(request_for: Callable, override: str):
    with pytest.raises(BadRequest, match=f"trainer.max_steps must be at least {LEAST} for a profile, and max_epochs 0"):
        request_for("debug=profile", override)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["bc_mlp", "masked_dit"])
def test_profiling_changes_no_weight(request_for: Callable, data_dir: Path, tmp_path: Path, policy: str):
    def trainer(name: str) -> Offline:
        request = request_for("debug=profile", f"policy={policy}", *SMALL, f"trainer.max_steps={LEAST}", "trainer.accumulate=2")
        family = request.targets["env"](request.env)
        torch.manual_seed(0)
        fresh = request.targets["policy"](request.policy, family.spaces)
        windows = Windows(record.dataset(family, request.env.data, "train", data_dir), fresh.window)
        folder = tmp_path / name
        folder.mkdir()
        return Offline(
            request.trainer,
            fresh,
            windows,
            windows,
            Run(
                folder,
                seed=0,
                device=torch.device("cpu"),
                save_policy=lambda into, acting: write_tensors(into / "policy.safetensors", acting.state_dict()),
                make_records=lambda offset, step, digest: Records(folder, Logger("none"), offset, step, digest),
            ),
        )

    profiled, trained = trainer("profiled"), trainer("trained")
    profile(profiled)
    trained.fit()
    assert profiled.state.step == trained.state.step
    assert profiled.step.average and trained.step.average
    for one, other in ((profiled.policy, trained.policy), (profiled.step.average.policy, trained.step.average.policy)):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert not {"batch", "loss", "step", "clip"} & (
        vars(profiled.source).keys() | vars(profiled.step).keys() | vars(profiled.step.optimizer).keys()
    )  # all unwrapped
