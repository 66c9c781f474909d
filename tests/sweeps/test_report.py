"""The table of a sweep, against the evaluation files of a real one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked
from helpers import ROOT

from conf.folder import claim
from sweeps.findings import Report
from sweeps.findings import report as findings
from sweeps.report import as_markdown, cells, header
from trainers.evaluate.intervals import interval

SWEEP = (
    *("-m", "policy=bc_mlp", "policy.hidden_dim=16,8", "seed=0,1", "hydra.sweep.dir=sweep", "logger=none"),
    *("trainer.max_steps=2", "trainer.batch_size=16", "trainer.eval_every=0", "trainer.schedule.warmup=0"),
    *("eval.episodes=20", "eval.media=0", "env.data.episodes=20", "env.data.val_episodes=4"),
    *("env.id=MiniGrid-Empty-5x5-v0", "env.max_steps=60"),
)


@pytest.fixture(scope="module")
def swept(imported: Forked, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two settings with two seeds each: the folder, and what the sweep said."""
    here = tmp_path_factory.mktemp("swept")
    done = imported.run([sys.executable, str(ROOT / "launch.py"), *SWEEP], here)
    assert done.returncode == 0, done.stdout + done.stderr
    return here / "sweep", done.stdout


@pytest.fixture
def sweep(swept: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(swept[0], tmp_path / "sweep"))


class Shown:
    """A report as its table shows it."""

    def __init__(self, found: Report):
        self.found, self.header, self.notes, self.title = found, header(found), found.notes, found.title
        *self.settings, self.references = cells(found)


def report(folder: Path) -> Shown:
    return Shown(findings(folder))


@pytest.fixture
def cli(forked: Forked) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *words: forked.run([sys.executable, "-m", "sweeps", *words], ROOT)


def run_of(sweep: Path, width: int, seed: int) -> Path:
    [run] = sweep.glob(f"*hidden_dim={width},seed={seed}-*")
    return run


def test_the_sweep_ends_with_the_table(cli: Callable, swept: tuple[Path, str]):
    folder, said = swept
    assert "sweep: 4 runs, 4 done\n" in said
    again = cli("report", str(folder))
    assert again.returncode == 0 and not again.stderr
    table = [line for line in said[said.index("sweep: 4 runs") :].splitlines()[1:] if not line.startswith("report ")]
    assert [line for line in again.stdout.splitlines() if not line.startswith("report ")][-len(table) :] == table
    assert all(len(line) <= 110 for line in table[: len(table) - 4])  # sentences below it may be longer


def test_the_numbers_are_those_of_the_evaluations(sweep: Path):
    found = report(sweep)
    words = ["hidden_dim", "acting", "success, seeds 0 1", "mean (95 %)", "steps", "training s", "parameters"]
    assert found.header == words
    pooled = {}
    for width, rows in zip((8, 16), found.settings, strict=True):
        files = [json.loads((run_of(sweep, width, seed) / "evaluation.json").read_text()) for seed in (0, 1)]
        for row, acting in zip(rows, ("sampled", "greedy"), strict=True):
            each = [[bool(solved) for solved in file["per_episode"][acting]["success"]] for file in files]
            lengths = [file["per_episode"][acting]["length"] for file in files]
            both = each[0] + each[1]
            steps = [length for length, solved in zip(lengths[0] + lengths[1], both, strict=True) if solved]
            pooled_over = interval(each, share=True)
            mark = "*" if pooled_over.seeds_differ else ""
            assert row[1:5] == [
                acting,
                f"{sum(each[0]) / 20:.3f} {sum(each[1]) / 20:.3f}",
                f"{sum(both) / 40:.3f} ({pooled_over.low:.3f}-{pooled_over.high:.3f}){mark}",
                f"{np.mean(steps):.1f}" if steps else "-",
            ]
            pooled[width, acting] = sum(both)
        summaries = [json.loads((run_of(sweep, width, seed) / "summary.json").read_text()) for seed in (0, 1)]
        assert rows[0][0] == str(width) and rows[1][0] == ""
        assert rows[0][5:] == [f"{np.mean([s['seconds'] for s in summaries]):.0f}", f"{summaries[0]['parameters']:,}"]
    assert any(pooled.values()), "nobody solved anything, so this test compared zeros"
    references = {row[1]: row for row in found.references}
    shares = [json.loads(file.read_text())["scores"]["random"]["success"] for file in sweep.glob("*/evaluation.json")]
    assert references["random"][3] == (f"{min(shares):.3f}-{max(shares):.3f}" if len({*shares}) > 1 else f"{shares[0]:.3f}")
    assert references["expert"][3] == references["optimum"][3] == "1.000"


def test_runs_without_a_score_are_shown(sweep: Path):
    def states(run: Path, status: str) -> None:
        (run / "status.json").write_text(json.dumps({"status": status}))

    states(run_of(sweep, 8, 0), "failed")
    states(run_of(sweep, 16, 0), "running")  # but nobody holds its lock
    shutil.rmtree(run_of(sweep, 16, 1))
    found = report(sweep)
    (sampled, greedy), [alone] = found.settings
    assert sampled[2].startswith("failed 0.") or sampled[2] == "failed 1.000"
    assert sampled[3].endswith(", 1 of 2 seeds") and greedy[3].endswith(", 1 of 2 seeds")
    assert alone == ["16", "-", "died missing", "-", "-", "-", "-"]
    assert f"failed: {run_of(sweep, 8, 0)}" in found.notes
    assert f"died: {run_of(sweep, 16, 0)} (its process ended without a word)" in found.notes
    assert found.title.endswith("3 runs, 1 died, 1 failed, 1 done")


def test_one_setting_and_seed_counts_once(sweep: Path):
    before = report(sweep)
    shutil.copytree(run_of(sweep, 8, 0), sweep / "again")
    after = report(sweep)
    assert (after.settings, after.references) == (before.settings, before.references)
    assert after.notes[-1] == "left out 1 run that another one repeats"


def test_returns_where_nobody_can_succeed(sweep: Path):
    for file in sweep.glob("*/evaluation.json"):
        record = json.loads(file.read_text())
        for name in record["scores"]:
            record["per_episode"][name] |= {"success": [False] * 20, "return": [-1.0, -2.0] * 10}
        file.write_text(json.dumps(record))
    found = report(sweep)
    assert found.header[2] == "return, seeds 0 1"
    assert found.settings[0][0][2] == "-1.500 -1.500"
    assert re.fullmatch(r"-1\.500 \(-1\.7\d\d to -1\.2\d\d\)", found.settings[0][0][3])


def test_references_without_episodes_show_what_is_expected_of_them(sweep: Path):
    """An exact expectation has no episodes, and a source may play others; both have a mean."""
    for file in sweep.glob("*/evaluation.json"):
        record = json.loads(file.read_text())
        del record["per_episode"]["random"]
        record["scores"]["random"] |= {"return": 0.325, "success": None}
        file.write_text(json.dumps(record | {"headline": "return"}))
    references = {row[1]: row for row in report(sweep).references}
    assert references["random"][3:5] == ["0.325", "-"]


def test_returns_where_an_evaluation_says_that_they_count(sweep: Path):
    """Learning in context: solving an episode now and then is not what is learned."""
    for file in sweep.glob("*/evaluation.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "headline": "return"}))
    assert report(sweep).header[2] == "return, seeds 0 1"


def pending(request_for: Callable, folder: Path, *runs: tuple[str, ...]) -> Path:
    for number, words in enumerate(runs):
        (folder / str(number)).mkdir()
        claim(folder / str(number), request_for(*words).config)
    return folder


def test_a_policy_is_one_column_whatever_it_brings_along(request_for: Callable, tmp_path: Path):
    policies = [("policy=masked_dit", "trainer.max_steps=7"), ("policy=bc_mlp",)]
    found = report(pending(request_for, tmp_path, *[(*words, f"env.data.seed={n}") for words in policies for n in (3, 11)]))
    assert found.header[:2] == ["policy", "data.seed"]  # `seed` alone is another key
    assert [rows[0][:4] for rows in found.settings] == [
        ["bc_mlp", "3", "-", "pending"],
        ["bc_mlp", "11", "-", "pending"],
        ["masked_dit", "3", "-", "pending"],
        ["masked_dit", "11", "-", "pending"],
    ]
    assert found.notes == ["the settings also differ in trainer.max_steps"]  # nothing was scored, so there are no intervals


def test_values_of_one_policy_only_tell_its_settings_apart(request_for: Callable, tmp_path: Path):
    words = [("policy=bc_mlp",), ("policy=masked_dit", "policy.heads=2"), ("policy=masked_dit", "policy.heads=4")]
    found = report(pending(request_for, tmp_path, *words))
    assert found.header[:2] == ["policy", "heads"]
    assert [rows[0][:2] for rows in found.settings] == [["bc_mlp", "-"], ["masked_dit", "2"], ["masked_dit", "4"]]


def trained(request_for: Callable, folder: Path, seed: int, *words: str) -> dict[str, Any]:
    """A checkpoint's folder, as far as the table reads it, and the start of a run that plays it."""
    folder.mkdir()
    request = request_for("policy=bc_mlp", f"seed={seed}", *words)
    claim(folder, request.config)
    return {**request_for("policy=bc_mlp").config, "mode": "eval", "ckpt_path": str(folder)}


def scored(folder: Path, config: dict[str, Any], successes: list[bool], random: float = 0.0, seen: float = 0.0) -> None:
    folder.mkdir(parents=True)
    claim(folder, config)
    count = len(successes)
    players = {"sampled": successes, "random": [number < random * count for number in range(count)]}
    episodes = {name: {"success": solved, "return": solved, "length": [3] * count} for name, solved in players.items()}
    means = {name: dict.fromkeys(("success", "return"), np.mean(solved)) for name, solved in players.items()}
    record = {"seen_in_training": seen, "scores": means, "per_episode": episodes}
    for name, value in (("status", {"status": "done"}), ("summary", {}), ("evaluation", record)):
        (folder / f"{name}.json").write_text(json.dumps(value))


def test_evaluations_are_pooled_over_the_training_seeds_of_their_checkpoints(request_for: Callable, tmp_path: Path):
    for width in (8, 16):
        for seed in (0, 1, 2):
            config = trained(request_for, tmp_path / f"{width}-{seed}", seed, f"trainer.max_steps={width}")
            for split in ("val", "test"):
                run = {**config, "eval": {**config["eval"], "split": split}}
                scored(tmp_path / f"sweep/{width}-{seed}-{split}", run, [True] * seed + [False] * (4 - seed))
    found = report(tmp_path / "sweep")
    assert found.header[:4] == ["ckpt_path", "split", "acting", "success, seeds 0 1 2"]
    assert [rows[0][:4] for rows in found.settings] == [
        [path, split, "sampled", "0.000 0.250 0.500"] for path in ("16-0", "8-0") for split in ("test", "val")
    ]
    assert all(rows[0][4].startswith("0.250 (") for rows in found.settings)
    for run in (tmp_path / "sweep").glob("16-*"):
        shutil.rmtree(run)
    assert report(tmp_path / "sweep").header[:2] == ["split", "acting"]  # nothing else differs


def test_runs_are_pooled_that_start_from_the_same_training_with_other_seeds(request_for: Callable, tmp_path: Path):
    for seed in (0, 1):
        trained(request_for, tmp_path / f"first-{seed}", seed)
        trained(request_for, tmp_path / f"longer-{seed}", seed, "trainer.max_steps=99")
        second = tmp_path / f"second-{seed}"  # starts from a run itself
        second.mkdir()
        claim(second, {**request_for("policy=bc_mlp", f"seed={seed}").config, "init_from": str(tmp_path / f"first-{seed}")})

    def started(sweep: str, **starts: tuple[str, int]) -> Shown:
        for name, (start, seed) in starts.items():
            config = {**request_for("policy=bc_mlp").config, "seed": seed, "init_from": str(tmp_path / start)}
            scored(tmp_path / sweep / name, config, [True, False])
        return report(tmp_path / sweep)

    own = started("own", a=("first-0", 0), b=("first-1", 1), c=("longer-0", 0), d=("longer-1", 1))
    assert own.header[:3] == ["init_from", "acting", "success, seeds 0 1"]
    assert [rows[0][:3] for rows in own.settings] == [[name, "sampled", "0.500 0.500"] for name in ("first-0", "longer-0")]
    chain = started("chain", a=("second-0", 0), b=("second-1", 1))
    assert "success, seeds 0 1" in chain.header and len(chain.settings) == 1
    crossed = started("crossed", a=("first-0", 0), b=("first-0", 1), c=("first-1", 0), d=("first-1", 1))
    assert [rows[0][0] for rows in crossed.settings] == ["first-0", "first-1"]  # the start is what is compared
    trained(request_for, tmp_path / "again-0", 0)  # another checkpoint of the same training
    same = started("same", a=("first-0", 0), b=("again-0", 1))
    assert [rows[0][0] for rows in same.settings] == ["again-0", "first-0"]
    played = {**request_for("policy=bc_mlp").config, "mode": "eval"}
    for seed in (0, 1):
        scored(tmp_path / f"played/{seed}", {**played, "ckpt_path": str(tmp_path / f"second-{seed}")}, [True, False])
    played_alike = report(tmp_path / "played")
    assert "success, seeds 0 1" in played_alike.header and len(played_alike.settings) == 1


def test_what_is_no_training_seed_is_not_pooled_as_one(request_for: Callable, tmp_path: Path):
    early, late = (trained(request_for, tmp_path / name, 5) for name in ("step-1", "step-2"))
    for name, config in (("early", early), ("late", late)):
        scored(tmp_path / "steps" / name, config, [True])
    found = report(tmp_path / "steps")
    assert found.header[0] == "ckpt_path" and [rows[0][0] for rows in found.settings] == ["step-1", "step-2"]
    for seed in (0, 1):
        scored(tmp_path / f"acting/{seed}", {**early, "seed": seed}, [True, False])
    assert report(tmp_path / "acting").header[1:3] == ["acting", "success, seeds 0 1"]  # of one policy
    shutil.rmtree(tmp_path / "step-1")
    assert [rows[0][0] for rows in report(tmp_path / "steps").settings] == ["step-1", "step-2"]  # what was played has gone


def test_references_are_those_of_the_same_episodes(request_for: Callable, tmp_path: Path):
    config = request_for("policy=bc_mlp").config
    for split, random in (("test", 0.25), ("val", 0.75)):
        for media in (0, 1):
            place = tmp_path / f"sweep/{split}-{media}"
            scored(place, {**config, "eval": {**config["eval"], "split": split, "media": media}}, [True] * 4, random)
    found = report(tmp_path / "sweep")
    columns = [found.header.index(name) for name in ("split", "media")]
    rows = [([row[column] for column in columns], row[len(columns)], row[len(columns) + 2]) for row in found.references]
    assert rows == [(["test", ""], "random", "0.250"), (["val", ""], "random", "0.750")]


def test_markdown(cli: Callable, sweep: Path):
    lines = cli("report", str(sweep), "--markdown").stdout.splitlines()
    assert lines[:2] == [
        "| hidden_dim | acting | success, seeds 0 1 | mean (95 %) | steps | training s | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4 + 3 and {line.count("|") for line in table} == {8}
    found = findings(sweep)
    found.rows[0].names = ("a|b",)
    assert "| a\\|b |" in as_markdown(found)


def test_bad_folders_are_one_sentence(cli: Callable, sweep: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for folder, words in (
        ("empty", "holds no run"),
        ("nowhere", "does not exist"),
        ("sweep/" + run_of(sweep, 8, 0).name, "one run"),
    ):
        done = cli("report", str(tmp_path / folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_and_nothing_heavy(cli: Callable, sweep: Path):
    assert "report" in cli("--help").stdout
    assert all(word in cli("report", "--help").stdout for word in ("--markdown", "--csv", "--json", "--html"))
    script = "import sys, pathlib; from sweeps.report import show; show(pathlib.Path(sys.argv[1])); "
    script += "print({'torch', 'trainers.record.boards'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script, str(sweep)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_notes_say_what_intervals_cover_and_where_seeds_differ(request_for: Callable, tmp_path: Path):
    for seed, solved in enumerate((20, 60, 90)):
        config = request_for("policy=bc_mlp", f"seed={seed}").config
        scored(tmp_path / f"three/{seed}", config, [number < solved for number in range(100)])
        if not seed:
            scored(tmp_path / "one/0", config, [number < solved for number in range(100)])
    found = report(tmp_path / "three")
    assert found.settings[0][0][3].startswith("0.567 (0.0") and found.settings[0][0][3].endswith("1.000)*")
    assert found.notes[:2] == ["95 %: over seeds (Student's t) and episodes", "* seeds differ more than episodes"]
    [note] = report(tmp_path / "one").notes
    assert note == "95 %: over episodes alone, as every setting has one seed; other seeds may lie outside"


def test_what_was_seen_in_training_is_said_of_each_environment(request_for: Callable, tmp_path: Path):
    for id, seen in (("MiniGrid-Empty-8x8-v0", 1.0), ("MiniGrid-FourRooms-v0", 0.25)):
        scored(tmp_path / "sweep" / id, request_for("policy=bc_mlp", f"env.id={id}").config, [True, False], seen=seen)
    assert report(tmp_path / "sweep").notes[1:] == [
        "100.0% of these episodes of MiniGrid-Empty-8x8-v0 were seen in training",
        "25.0% of these episodes of MiniGrid-FourRooms-v0 were seen in training",
    ]


def test_groups_of_episodes_are_told_over_the_seeds(cli: Callable, sweep: Path):
    for seed in (0, 1):
        path = run_of(sweep, 16, seed) / "evaluation.json"
        record = json.loads(path.read_text())
        record["groups"] = {"task": {"push": {"episodes": 7, "sampled": 0.5 + seed / 4, "random": 0.25, "expert": 1.0}}}
        path.write_text(json.dumps(record))
    found = findings(sweep)
    [row] = found.groups["task"]
    assert row.seeds == {0: 0.5, 1: 0.75} and row.mean == 0.625 and row.references == {"random": 0.25, "expert": 1.0}
    assert "| 16 | sampled | push | 0.500 0.750 | 0.625 | 0.250 | 1.000 | 7 |" in as_markdown(found)
    assert "by task, each seed and their mean" in cli("report", str(sweep)).stdout
