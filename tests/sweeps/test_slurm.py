"""`cluster=slurm` against a real SLURM on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import slurm_cluster
from forked import Forked
from helpers import ROOT
from slurm_cluster import Cluster, wait_for

from conf import status

SLURM = ("cluster=slurm", "cluster.time_min=30", "cluster.memory=300M", "hydra.sweep.dir=sweep")
STEPS = 1000
LONG = ("seed=0", f"trainer.max_steps={STEPS}", "trainer.save_every=50", "trainer.log_every=7")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def environment(environment: dict[str, str], slurm: Cluster) -> dict[str, str]:
    return {**environment, **slurm.environment}


@pytest.fixture
def sweeps(forked: Forked, here: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        path = f"{ROOT}:{environment['PYTHONPATH']}"  # `resume` launches what needs their package
        return forked.run([sys.executable, "-m", "sweeps", *words], here, {**environment, "PYTHONPATH": path})

    return run


def runs(here: Path, home: str = "sweep") -> list[Path]:
    return sorted(path.parent for path in here.glob(f"{home}/*/config.yaml"))


def said(run: Path) -> str:
    return str(status.read(run).get("status"))


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def submit(launch: Callable, *words: str) -> list[str]:
    """The ids of the arrays."""
    done = launch("-m", *SLURM, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"submitted \d+ runs in \d+ jobs: (.*)", done.stdout)
    assert found, done.stdout
    return found[1].split(", ")


@pytest.mark.slow
def test_arrays_are_split_and_a_failing_run_fails_for_slurm_too(slurm: Cluster, launch: Callable, sweeps: Callable, here: Path):
    grid = ("-m", *SLURM, "mode=collect", "env.fault=none,raise,exit,silent", "cluster.pack=1")
    dry = launch(*grid, "dry=true")
    assert "4 runs in 4 jobs, submitted as 2 arrays" in dry.stdout and "#SBATCH --array=0-2%3" in dry.stdout
    assert "#SBATCH --mem=300M" in dry.stdout and not (here / "sweep").exists()
    ids = submit(launch, *grid[1:])
    assert len(ids) == 2
    shown = sweeps("status", "sweep").stdout
    assert "4 queued" in shown or "running" in shown or "done" in shown
    wait_for(lambda: all(said(run) in ("done", "failed") for run in runs(here)), 400)
    jobs = {status.read(run)["job"]: run.name for run in runs(here)}
    wait_for(lambda: not {slurm.states()[job] for job in jobs} - {"COMPLETED", "FAILED"}, 400)
    assert {("fault=none" in name, slurm.states()[job]) for job, name in jobs.items()} == {(True, "COMPLETED"), (False, "FAILED")}
    assert len({job.partition("_")[0] for job in jobs}) == 2
    failed = {status.read(run)["reason"] for run in runs(here) if said(run) == "failed"}
    assert failed == {"ZeroDivisionError: division by zero", "about to go", "it ended without finishing"}
    # The same command again submits only what failed; a job that waits for a failed one never starts.
    again = submit(launch, *grid[1:], "cluster.pack=2", f"cluster.dependency=afterok:{ids[0]}")
    assert len(again) == 1 and len([job for job in slurm.states() if job.startswith(f"{again[0]}_")]) == 2
    assert "3 queued" in sweeps("status", "sweep").stdout
    stopped = sweeps("cancel", "sweep")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not slurm.run("squeue", "-h").strip()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["cluster.partition=nowhere"], "SLURM refused the jobs, so nothing was submitted: ", marks=pytest.mark.slow),
        (["cluster.time_min=1"], "cluster.signal_s must leave time to save a checkpoint"),
    ],
)
def test_a_bad_request_submits_nothing(slurm: Cluster, launch: Callable, words: list[str], sentence: str):
    before = slurm.states()
    done = launch("-m", *SLURM, "mode=collect", "seed=0,1", *words)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert slurm.states() == before


def test_without_slurm_it_says_so(command: Callable, theirs: Path, here: Path):
    env = {**os.environ, "PYTHONPATH": str(theirs), "PATH": os.path.dirname(sys.executable)}
    done = subprocess.run(command("-m", *SLURM, "seed=0"), cwd=here, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "there is no SLURM on this machine" in done.stderr and not (here / "sweep").exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def whole(forked: Forked, undisturbed: Path, command: Callable, environment: dict[str, str]) -> Path:
    """The run that nobody stops."""
    if not (undisturbed / "run").exists():
        words = command(*LONG, "hydra.run.dir=run")
        assert forked.run(words, undisturbed, environment).returncode == 0
    return undisturbed / "run"


def under_way(here: Path) -> Path:
    """The one run, once it has saved something and trains on."""
    wait_for(lambda: runs(here) and list(runs(here)[0].glob("checkpoints/step-*")), 400)
    return runs(here)[0]


def hold(run: Path) -> int:
    """The pid of the run, which trains no further before it is continued. SLURM does that when it ends a job; otherwise the run
    might be done before SLURM acts."""
    pid: int = status.read(run)["pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def assert_same(run: Path, whole: Path) -> None:
    assert said(run) == "done"
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for name in ("policy.safetensors", "training.safetensors"):
        assert (run / f"checkpoints/step-{STEPS}" / name).read_bytes() == (
            whole / f"checkpoints/step-{STEPS}" / name
        ).read_bytes()


def job_of(slurm: Cluster, job: str) -> dict[str, str]:
    words = slurm.run("scontrol", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.mark.slow
def test_asked_by_signal_it_saves_requeues_and_goes_on(slurm: Cluster, launch: Callable, here: Path, whole: Path):
    [job] = submit(launch, *LONG, "policy.hidden_dim=8,12", "cluster.pack=2")
    under_way(here)
    [run] = [run for run in runs(here) if "hidden_dim=8" in run.name]
    wait_for(lambda: list(run.glob("checkpoints/step-*")), 400)
    pid = hold(run)
    slurm.run("scancel", "--signal=USR2", job)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: said(run) == "preempted", 400)
    wait_for(lambda: job_of(slurm, job)["Restarts"] == "1", 400)
    wait_for(lambda: all(said(one) == "done" for one in runs(here)), 400)
    wait_for(lambda: slurm.states()[job] == "COMPLETED", 400)
    assert_same(run, whole)


@pytest.mark.slow
def test_preempted_by_a_higher_partition_it_goes_on(slurm: Cluster, launch: Callable, here: Path, whole: Path):
    [job] = submit(launch, *LONG)
    run = under_way(here)
    hold(run)
    urgent = slurm.run("sbatch", "--parsable", "-p", "urgent", "-N2", "--exclusive", "--wrap", "sleep 1").strip()
    wait_for(lambda: said(run) == "preempted", 400)
    wait_for(lambda: slurm.states()[urgent] == "COMPLETED", 400)
    wait_for(lambda: said(run) == "done", 400)
    assert job_of(slurm, job)["Restarts"] == "1"
    assert_same(run, whole)


@pytest.mark.slow
def test_requeued_by_hand_it_goes_on(slurm: Cluster, launch: Callable, here: Path, whole: Path):
    [job] = submit(launch, *LONG)
    run = under_way(here)
    pid = hold(run)
    slurm.run("scontrol", "requeue", job)
    with suppress(ProcessLookupError):  # SLURM has ended it already
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: said(run) == "preempted", 400)
    wait_for(lambda: said(run) == "done", 400)
    assert job_of(slurm, job)["Restarts"] == "1"
    assert_same(run, whole)


@pytest.mark.slow
def test_a_cancelled_job_stays_away_and_the_command_goes_on(
    slurm: Cluster, launch: Callable, sweeps: Callable, here: Path, whole: Path
):
    [job] = submit(launch, *LONG)
    run = under_way(here)
    hold(run)
    stopped = sweeps("cancel", "sweep")
    assert stopped.returncode == 0, stopped.stderr
    wait_for(lambda: slurm.states()[job] == "CANCELLED", 400)
    assert said(run) == "preempted" and job_of(slurm, job)["Restarts"] == "0"
    assert sweeps("resume", "sweep", "cluster.wait=true").returncode == 0
    assert_same(run, whole)


@pytest.mark.slow
def test_a_job_that_dies_without_a_word_is_noticed(slurm: Cluster, launch: Callable, sweeps: Callable, here: Path, whole: Path):
    [job] = submit(launch, *LONG)
    run = under_way(here)
    pid = hold(run)
    job_pid = parent(pid)
    os.kill(job_pid, signal.SIGSTOP)  # as when a node loses its power: neither of them can write anything any more
    slurm.run("scancel", "--signal=KILL", job)
    for left in (job_pid, pid):
        with suppress(ProcessLookupError):  # SLURM has killed it already
            os.kill(left, signal.SIGKILL)
    wait_for(lambda: "1 died" in sweeps("status", "sweep").stdout, 400)
    assert said(run) == "running"  # as it thought
    submit(launch, *LONG)
    wait_for(lambda: said(run) == "done", 400)
    assert_same(run, whole)


@pytest.mark.slow
def test_submitted_from_inside_an_allocation_with_the_code_as_it_was(
    slurm: Cluster, command: Callable, environment: dict[str, str], here: Path
):
    words = command("-m", *SLURM, "mode=collect", "seed=0,1", "cluster.pack=2")
    outside = ["srun", "--mem-per-cpu=500", "-n1", *words]
    done = subprocess.run(outside, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "submitted 2 runs in 1 jobs" in done.stdout, done.stdout + done.stderr
    wait_for(lambda: all(said(run) == "done" for run in runs(here)), 400)
    [code] = [path for path in (here / "sweep/slurm/code").iterdir() if path.is_dir()]
    assert (code / "trainers/run.py").read_bytes() == (ROOT / "trainers/run.py").read_bytes()
    [script] = (here / "sweep/slurm").glob("*_submission.sh")
    assert f"PYTHONPATH={code}" in script.read_text()


BRIEF = ("trainer.max_steps=12", "trainer.log_every=3", "cluster.wait=true")


@pytest.mark.slow
def test_two_nodes_train_one_run(
    slurm: Cluster, launch: Callable, forked: Forked, command: Callable, environment: dict, here: Path
):
    """It is the run of one process, but for rounding."""
    alone = forked.run(command(*BRIEF[:2], "seed=0", "hydra.run.dir=alone"), here, environment)
    assert alone.returncode == 0, alone.stdout
    submit(launch, *BRIEF, "seed=0", "cluster.nodes=2")
    [run] = runs(here)
    assert said(run) == "done" and job_of(slurm, status.read(run)["job"])["NumNodes"] == "2"
    for made, wanted in zip(rows(run), rows(here / "alone"), strict=True):
        assert made.keys() == wanted.keys()
        for name in wanted.keys() & {"step", "train/loss", "train/grad_norm", "val/loss"}:  # accuracy counts ties at first
            assert made[name] == pytest.approx(wanted[name], rel=1e-4), name
    refused = launch("-m", *SLURM, "seed=1", "cluster.nodes=2", "trainer.batch_size=15")
    assert refused.returncode == 2 and "trainer.batch_size=15 cannot be divided by 2 processes" in refused.stderr


@pytest.mark.slow
def test_runs_together_share_one_job(slurm: Cluster, launch: Callable, here: Path):
    words = (*BRIEF, "seed=0,1,2", "cluster.together=3")
    [job] = submit(launch, *words)
    assert len(runs(here)) == 3 and {said(run) for run in runs(here)} == {"done"}
    assert {status.read(run)["job"].partition("_")[0] for run in runs(here)} == {job}
    os.rename(here / "sweep", here / "there")
    assert launch("-m", "hydra.sweep.dir=sweep", *(word for word in words if word != "cluster.wait=true")).returncode == 0
    for run in runs(here):
        assert (run / "metrics.jsonl").read_bytes() == (here / "there" / run.name / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_the_time_limit_is_a_requeue_too(slurm: Cluster, launch: Callable, here: Path):
    words = ("seed=0", "trainer.max_steps=1000000", "trainer.save_every=20", "cluster.time_min=1", "cluster.signal_s=30")
    done = launch("-m", *SLURM, *words)
    job = re.search(r"jobs: (\d+)", done.stdout)[1]  # type: ignore[index]
    run = under_way(here)
    wait_for(lambda: int(job_of(slurm, job)["Restarts"]) >= 1, 400)
    first = max(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))
    wait_for(lambda: status.read(run).get("step", 0) > first + 20, 400)
    slurm.run("scancel", job)
