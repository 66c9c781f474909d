"""A whole run: `mode=train`, `mode=eval`, `mode=collect`, `mode=health` and `mode=export`."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from gymnasium import spaces

from conf.check import Request
from conf.device import pick
from conf.errors import BadRequest, Exit
from conf.folder import leaves, quoted
from conf.ranks import here
from conf.status import Heartbeat
from envs.base import Family
from envs.data import minari, record, statistics
from envs.data.histories import describe
from envs.data.store import Dataset
from envs.data.windows import Window, Windows
from policies import store
from trainers.base import Hopeless, Outcome, Trainer
from trainers.evaluate.demonstration import film_expert
from trainers.evaluate.final import evaluate_and_report
from trainers.health.before import check_health
from trainers.loop import processes
from trainers.loop.capture import remark
from trainers.loop.stop import handlers_restored, interruptible
from trainers.record.boards import session
from trainers.record.profile import profile
from trainers.record.records import console, say, write_json
from trainers.setup import build_trainer, load_or_record

EXIT = {
    "done": Exit.DONE,
    "failed": Exit.FAILED,
    "diverged": Exit.DIVERGED,
    "preempted": Exit.PREEMPTED,
    "interrupted": Exit.FAILED,
}
EXAMINED = 1000  # episodes that `mode=health` records if there are none: takes seconds in any environment
CHOSEN = torch.get_num_threads()  # by PyTorch, before any run in this process changes it


def main(request: Request, folder: Path, hopeless: Hopeless | None = None) -> Exit:
    """Carry out a checked request in its run folder. Returns the exit code, or exits with it if a sweep has to stop too.

    `hopeless` comes from a search: it is called at each validation and may stop a training that will not be among the best.
    """
    device = processes.device_of(pick(request.device))
    if device.type == "cuda":  # CPU kernels are deterministic anyway, and asking would import for a second
        choose_kernels(request.trainer.deterministic)
    torch.set_num_threads(request.trainer.threads or default_threads())
    family = request.targets["env"](request.env)
    if not here().alone:
        processes.start()
        hopeless = None  # a search prunes runs of one process
    if here().rank:
        return assist(request, family, folder, device)
    board = session(request.logger, folder, dict(leaves(request.config)), say)
    with locked(folder), board, Heartbeat(folder) as heartbeat, handlers_restored():
        try:
            with interruptible():
                if request.mode == "train":
                    status = train(request, family, folder, device, hopeless)
                else:
                    status = MODES[request.mode](request, family, folder, device)
        except KeyboardInterrupt:
            status = stopped(folder)
        except BaseException as error:
            fail(heartbeat, error)
            raise
        heartbeat.become(status, exit_code=int(EXIT[status]))
    processes.end()
    if status == "preempted":
        command, where = (folder / "command.txt").read_text().strip(), shlex.quote(f"hydra.run.dir={quoted(folder)}")
        say(f"stopped with a checkpoint; this command goes on from it:\n  {command} resume=true {where}")
        sys.exit(Exit.PREEMPTED)
    if status == "interrupted":
        say("stopped before the first checkpoint; run the same command to start again")
        sys.exit(Exit.FAILED)
    return EXIT[status]


def assist(request: Request, family: Family, folder: Path, device: torch.device) -> Exit:
    """The share of a process that is not the first of its run: it writes nothing, and the first says what became of the run."""
    console.quiet = True
    logging.disable()
    with interruptible():
        if request.mode == "train":
            trainer = build_trainer(request, family, folder, device)
            status = conclude(trainer, trainer.fit(), request, family, device)
        else:
            status = MODES[request.mode](request, family, folder, device)
    processes.end()
    return EXIT[status]


def default_threads() -> int:
    """OMP_NUM_THREADS as it is now, because a process that was forked with PyTorch in it is told its share afterwards."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else CHOSEN


def choose_kernels(deterministic: bool) -> None:
    """On CUDA, choose the kernels that give the same result every time, or the fastest."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # The backward pass of these three adds in the order in which blocks finish (flash has another one, but not under
    # `warn_only`). Plain matrix products are left.
    torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)
    torch.backends.cuda.enable_cudnn_sdp(not deterministic)
    torch.backends.cuda.enable_flash_sdp(not deterministic)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time use a run folder. The lock is released when the process ends, even by a kill."""
    with open(folder / ".lock", "w") as lock:
        for left in reversed(range(5)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise BadRequest(
                        f"the run in {folder} is still running in another process; wait for it, or stop it"
                    ) from None
                time.sleep(0.1)  # `sweeps report` holds the lock briefly to look whether a run is alive
        yield


def fail(heartbeat: Heartbeat, error: BaseException) -> None:
    with suppress(OSError):  # a full disc may be what failed
        reason = (str(error).strip().splitlines() or [""])[0]
        heartbeat.become("failed", exit_code=int(Exit.FAILED), reason=f"{type(error).__name__}: {reason}")


def stopped(folder: Path) -> str:
    return "preempted" if (folder / "checkpoints" / "last").exists() else "interrupted"


def train(request: Request, family: Family, folder: Path, device: torch.device, hopeless: Hopeless | None) -> str:
    trainer = build_trainer(request, family, folder, device, hopeless)
    examine(trainer, request, device)
    if request.trainer.profile:
        profile(trainer)
        return "done"
    return conclude(trainer, trainer.fit(), request, family, device)


def examine(trainer: Trainer, request: Request, device: torch.device) -> None:
    """What is to be known, and said, before the first step."""
    report = check_health(trainer, request)
    size, samples = request.trainer.batch_size, len(trainer.data)
    words = f"training on {device} for {trainer.max_steps} steps of {size} out of {samples:,} samples"
    say(f"{words}; a loss of {report.facts['chance_loss']:.3f} is chance" + entropies(trainer.data.dataset, trainer.bounds.floor))
    if sentence := remark(request.trainer, device):
        say(sentence)


def conclude(trainer: Trainer, outcome: Outcome, request: Request, family: Family, device: torch.device) -> str:
    """What follows a training: the final evaluation, if it came to its end. Returns the run's status."""
    folder = trainer.run.folder
    if outcome.status == "diverged":
        say(
            f"diverged at step {outcome.step}: {request.trainer.bad_steps} steps in a row had a loss or gradient that was not "
            f"finite. The batch and the weights are in {folder / 'diverged'}; try a lower trainer.optimizer.lr"
        )
    if outcome.status == "pruned":
        say(f"stopped at step {outcome.step}: the search's other trials were better there")
        write_json(folder / "summary.json", {"status": "pruned", "steps": outcome.step, "seconds": outcome.seconds})
        return "done"
    if outcome.status != "done" or request.trainer.overfit:
        return outcome.status
    best = store.load(folder, device=device, trusted_packages=request.trusted_packages)
    facts = {
        "parameters": sum(parameter.numel() for parameter in trainer.policy.parameters()),
        "steps": outcome.step,
        "seconds": outcome.seconds,
        "step_seconds": outcome.step_seconds,
        "samples_per_second": outcome.step * request.trainer.batch_size / outcome.step_seconds,
    }
    evaluate_and_report(request, family, folder, device, best, facts)
    return "done"


def health(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    """`mode=health`: the checks that come before training, without training."""
    data = request.env.data
    fewer = data.episodes > EXAMINED and not data.learners and not request.trainer.max_epochs  # epochs depend on the number
    if fewer and not record.recorded(family, data, "train", Path(request.data_dir)):
        say(f"recording {EXAMINED} of the {data.episodes} episodes that training would record: enough for the checks")
        request = replace(request, env=replace(request.env, data=replace(data, episodes=EXAMINED)))
    report = check_health(build_trainer(request, family, folder, device), request)
    console.print(report.table())
    say(f"run folder   {folder}")
    look = [finding.check for finding in report.findings if finding.warning]
    write_json(folder / "summary.json", {"status": "done", "warnings": len(look), "look": look})
    return "done"


def evaluate(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    assert request.ckpt_path  # mode=eval was checked to have one
    say(f"evaluating   {request.ckpt_path}")
    policy = store.load(request.ckpt_path, device=device, config=request.policy, trusted_packages=request.trusted_packages)
    evaluate_and_report(request, family, folder, device, policy, {"parameters": sum(p.numel() for p in policy.parameters())})
    return "done"


def collect(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    datasets = {split: load_or_record(request, family, split) for split in ("train", "val")}
    summary = {}
    for split, data in datasets.items():
        meta = data.meta
        expert = meta["expert"]
        discrete = isinstance(family.spaces.action, spaces.Discrete)
        counted = discrete and not request.env.data.learners  # `describe` prints the floor of learners
        floor = statistics.floor(Windows(data, Window())) if counted else None
        say(
            f"{split}: {meta['episodes']} episodes, {meta['steps']:,} steps in {meta['seconds']:.1f} s "
            f"({meta['episodes'] / meta['seconds']:,.0f} episodes/s); {request.env.data.source} "
            f"{'' if expert['success'] is None else 'success {:.3f}, '.format(expert['success'])}return {expert['return']:.3f}"
            f"{entropies(data, floor)}{describe(meta)}"
            + (f"; {meta['left_out']} episodes in which it failed are left out" if meta.get("left_out") else "")
            + f"\n  {data.folder}"
        )
        summary[split] = {"folder": str(data.folder), **{key: meta[key] for key in ("episodes", "steps", "seconds", "expert")}}
    if shown := film_expert(family, request.eval.media, folder):
        say(f"picture      {shown}")
    write_json(folder / "summary.json", {"status": "done", **summary})
    return "done"


def export(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    """`mode=export`: the recorded training episodes as a Minari dataset."""
    data, target = load_or_record(request, family, "train"), request.env.data.export_to
    made = minari.export(data, target, family.env_spec, f"{data.meta['episodes']} episodes of {data.meta['recipe']['source']}")
    say(f"{data.meta['episodes']} episodes, {data.meta['steps']:,} steps: minari.load_dataset('{target}')\n  {made}")
    write_json(folder / "summary.json", {"status": "done", "exported_to": target, "folder": str(made)})
    return "done"


MODES = {"eval": evaluate, "collect": collect, "health": health, "export": export}


def entropies(data: Dataset, floor: statistics.Floor | None) -> str:
    """The entropies of discrete labels, as words: how far the labels can be predicted at all."""
    if not floor:
        return ""
    return f"; the entropy of the actions is {statistics.label_entropy(data.columns['action']):.3f}, and {floor}"
