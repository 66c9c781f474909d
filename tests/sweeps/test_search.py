"""A search with Optuna: killed and gone on with, pruned, refused, and shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from helpers import ROOT

from conf.errors import BadRequest, Exit
from conf.folder import claim
from sweeps import trials
from sweeps.findings import report

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: pip install -e '.[hpo]'")

TINY = (
    *("policy=bc_mlp", "logger=none", "env.id=MiniGrid-Empty-5x5-v0", "env.max_steps=20", "env.data.episodes=20"),
    *("env.data.val_episodes=4", "trainer.max_steps=4", "trainer.batch_size=16", "trainer.eval_every=2"),
    *("trainer.eval_episodes=4", "trainer.save_every=0", "trainer.schedule.warmup=0", "eval.episodes=4", "eval.media=0"),
)
SPACE = ("policy.hidden_dim=choice(8,16)", "trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))")
SEARCH = ("-m", "hydra/sweeper=optuna", *TINY, *SPACE, "hydra.sweep.dir=found")


@pytest.fixture
def launch(forked: Forked, here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The real launch.py, with data of its own."""

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "launch.py"), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        done = forked.run(command, here, environment)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def study_of(folder: Path) -> Any:
    return optuna.load_study(study_name=trials.NAME, storage=trials.storage(folder / "search.journal"))


def states(folder: Path) -> Counter[str]:
    return Counter(trial.state.name for trial in study_of(folder).trials)


@pytest.mark.slow
def test_a_killed_search_goes_on_to_its_total(forked: Forked, here: Path, launch: Callable):
    words = [*SEARCH, "hydra.sweeper.trials=3", "hydra.sweeper.sampler=random", "hydra.sweeper.prune=false"]
    command = [sys.executable, str(ROOT / "launch.py"), *words]
    process = forked.start(command, here)
    until = time.monotonic() + 120
    while time.monotonic() < until and len([*(here / "found").glob("*/metrics.jsonl")]) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with open(here / "found/search.journal", "ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # the line that it was writing
    proposed = [trial.params for trial in study_of(here / "found").trials]
    assert states(here / "found")["RUNNING"] == 1
    said = launch(*words).stdout
    after = states(here / "found")
    assert (after["COMPLETE"], after["RUNNING"], after["FAIL"], after["WAITING"]) == (3, 0, 1, 0), said
    again = [trial.params for trial in study_of(here / "found").trials]
    assert again[: len(proposed)] == proposed and again[len(proposed)] == proposed[-1]  # the killed one's values, once more
    assert "3 of 3 trials are in found already" in launch(*words).stdout
    more = [word.replace("trials=3", "trials=4") for word in words]
    launch(*more)
    assert states(here / "found")["COMPLETE"] == 4
    # An undisturbed search proposes the same values.
    fresh = [word.replace("sweep.dir=found", "sweep.dir=fresh") for word in more]
    launch(*fresh)
    finished = [t.params for t in study_of(here / "found").trials if t.state.name == "COMPLETE"]
    assert [t.params for t in study_of(here / "fresh").trials if t.state.name == "COMPLETE"] == finished
    found = report(here / "found")
    assert found.search and found.search.best and len(found.rows) >= 4 and not found.comparisons
    assert any(note.startswith("best trial: ") for note in found.notes)


@pytest.mark.slow
def test_a_grid_and_what_is_refused(here: Path, launch: Callable):
    words = [word for word in SEARCH if not word.startswith("trainer.optimizer.lr")]
    launch(*words, "hydra.sweeper.sampler=grid")
    assert [trial.params for trial in study_of(here / "found").trials] == [
        {"policy.hidden_dim": "8"},
        {"policy.hidden_dim": "16"},
    ]
    for more, sentence in (
        (["hydra.sweeper.sampler=tpp"], "hydra.sweeper.sampler must be one of tpe, random, grid"),
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials must be at least 1"),
        (["policy.layers=int(interval(1,2))"], "holds a search of another space"),
        (["policy.layers=interval(3,2)"], "its start must be below its end"),
        (["policy.layers=-1", "hydra.sweep.dir=other"], "policy.layers"),
    ):
        done = launch(*words, *more, check=False)
        assert done.returncode == Exit.BAD_REQUEST and sentence in done.stderr and "Traceback" not in done.stderr


def test_a_run_is_told_when_it_is_hopeless(tmp_path: Path):
    storage = trials.storage(tmp_path / "search.journal")
    study = optuna.create_study(study_name=trials.NAME, storage=storage, direction="maximize")
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for _ in range(6):
        trial = study.ask(space)
        trial.report(0.9, 50)
        study.tell(trial, 0.9)
    trial = study.ask(space)
    said = {"journal": str(tmp_path / "search.journal"), "trial": trial._trial_id, "metric": "val/success", "prune_after": 5}
    (tmp_path / trials.FILE).write_text(json.dumps(said))
    hopeless = trials.pruner(tmp_path)
    assert hopeless is not None
    assert not hopeless(40, {"val/loss": 1.0}) and hopeless(50, {"val/success": 0.2})
    better = study.ask(space)
    (tmp_path / trials.FILE).write_text(json.dumps({**said, "trial": better._trial_id}))
    promising = trials.pruner(tmp_path)
    assert promising is not None and not promising(50, {"val/success": 0.95})
    study.tell(better, 0.95)
    assert trials.pruner(tmp_path) is None  # resumed by itself, after its search
    assert trials.pruner(tmp_path / "elsewhere") is None


def test_a_pruned_run_is_done_and_says_so(request_for: Callable, tmp_path: Path):
    from trainers import run

    request = request_for(*(word for word in TINY if not word.startswith("env.data.")))
    claim(tmp_path, request.config)
    asked: list[int] = []

    def hopeless(step: int, values: Any) -> bool:
        asked.append(step)
        return "val/success" in values

    assert run.main(request, tmp_path, hopeless) == Exit.DONE
    assert asked == [2] and json.loads((tmp_path / "summary.json").read_text())["status"] == "pruned"
    assert not (tmp_path / "evaluation.json").exists()


def test_the_best_value_counts_and_half_a_line_does_not(tmp_path: Path):
    rows = [{"step": 1, "val/success": 0.5, "val/loss": 2.0}, {"step": 2, "val/success": 0.8}, {"step": 3, "val/success": 0.6}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "val/succ')
    assert trials.best(tmp_path, "val/success") == trials.objective(tmp_path) == 0.8
    assert trials.best(tmp_path, "val/success", maximize=False) == 0.5
    assert trials.best(tmp_path, "val/return") is None and trials.objective(tmp_path / "nowhere") is None


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadRequest, match=r"\.\[hpo\]"):
        trials.optuna_module()
