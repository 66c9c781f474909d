"""Several runs in one process, trained as one stack (loop/stacked.py): `cluster.together`.

Each run has its own trainer, folder, records, checkpoints and evaluation, as if it were alone; only the optimiser steps are taken
together. If a resumed group's checkpoints are of different steps, the runs that are ahead wait for the others.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from conf.check import Request
from conf.device import pick
from conf.errors import BadRequest
from conf.sentences import explain
from conf.status import Heartbeat, note
from envs.base import Family
from trainers.base import Outcome, Trainer
from trainers.loop.stacked import Stack
from trainers.loop.stop import StopRequest, handlers_restored, interruptible
from trainers.record.records import bar, console, say
from trainers.run import EXIT, choose_kernels, conclude, default_threads, examine, fail, locked, stopped
from trainers.setup import build_trainer

LOG = logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")  # as Hydra's


class Member:
    """One run of the group; a context that holds its folder's lock and reports in its status.json."""

    def __init__(self, request: Request, folder: Path, label: str):
        self.request, self.folder, self.label = request, folder, label
        self.family: Family = request.targets["env"](request.env)
        self.heartbeat = Heartbeat(folder)
        self.status: str | None = None  # how it ended
        self.trainer: Trainer

    def __enter__(self) -> Member:
        with ExitStack() as held:
            held.enter_context(locked(self.folder))
            held.enter_context(self.heartbeat)
            self.log = logging.FileHandler(self.folder / "log.txt")
            held.callback(self.log.close)
            self.log.setFormatter(LOG)
            self.held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.close()

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """While this run has its turn: messages and status.json are its own."""
        before = Heartbeat.current, console.speaker
        Heartbeat.current, console.speaker = self.heartbeat, f"{self.label}: "
        logging.root.addHandler(self.log)
        try:
            yield
        finally:
            logging.root.removeHandler(self.log)
            Heartbeat.current, console.speaker = before

    def end(self, status: str) -> None:
        self.status = status
        self.heartbeat.become(status, exit_code=int(EXIT[status]))

    def fail(self, error: Exception) -> None:
        """Report an error that ends this run alone."""
        self.status = "failed"
        fail(self.heartbeat, error)
        if (sentence := explain(error)) is None:
            traceback.print_exception(error)
        else:
            say(sentence)


def main(runs: Sequence[tuple[Request, Path, str]]) -> int:
    """Train the runs (request, folder, label), which conf/together.py allows to go together. Returns the worst exit code."""
    first = runs[0][0]
    device = torch.device(pick(first.device))
    if device.type == "cuda":
        choose_kernels(first.trainer.deterministic)
    torch.set_num_threads(first.trainer.threads or default_threads())
    logging.root.setLevel(logging.INFO)
    with ExitStack() as held:
        members = [held.enter_context(Member(request, folder, label)) for request, folder, label in runs]
        held.enter_context(handlers_restored())
        try:
            with interruptible():
                train(members, device)
        except KeyboardInterrupt:
            for member in members:
                if member.status is None:
                    member.end(stopped(member.folder))
        except BaseException as error:
            for member in members:
                if member.status is None:
                    fail(member.heartbeat, error)
            raise
        return int(max(EXIT[member.status or "failed"] for member in members))


def train(members: Sequence[Member], device: torch.device) -> None:
    beside: Trainer | None = None
    for member in members:
        with member.speaking():
            member.trainer = build_trainer(member.request, member.family, member.folder, device, beside=beside)
            examine(member.trainer, member.request, device)
            beside = beside or member.trainer
            console.quiet = True  # what the first has said is true of all
    console.quiet = False
    for member, outcome in zip(members, fit(members, device), strict=True):
        with member.speaking():
            try:
                member.end(conclude(member.trainer, outcome, member.request, member.family, device))
            except Exception as error:
                member.fail(error)


def fit(members: Sequence[Member], device: torch.device) -> list[Outcome]:
    trainers = [member.trainer for member in members]
    with ExitStack() as held:
        for member in members:
            with member.speaking():
                member.trainer.begin()
                held.callback(member.trainer.journal.records.close)
        try:
            return _fit(members, trainers)
        except torch.OutOfMemoryError as error:
            raise BadRequest(
                f"{len(members)} runs together do not fit into the memory of {device}; try cluster.together={len(members) // 2}"
            ) from error


def _fit(members: Sequence[Member], trainers: Sequence[Trainer]) -> list[Outcome]:
    stack, going = Stack([trainer.step for trainer in trainers]), [False] * len(members)
    say(f"{len(members)} runs are trained together")
    with bar("train", max(trainer.max_steps for trainer in trainers)) as progress, StopRequest() as stop:
        while not stop.signal and (steps := [trainer.state.step for trainer in trainers if not trainer.over]):
            step = min(steps)
            due = [not trainer.over and trainer.state.step == step for trainer in trainers]
            if due != going:  # runs that take steps together must have equally many results to fetch
                for trainer in trainers:
                    trainer.catch_up()
                going = due
                continue
            began = time.perf_counter()
            stack.take(step, going)
            seconds = time.perf_counter() - began
            for member, goes in zip(members, going, strict=True):
                if goes:
                    with member.speaking():
                        member.trainer.taken(seconds)
                        member.trainer.validate_and_save()
            progress(step + 1, note=trainers[going.index(True)].journal.words)
        outcomes = []
        for member in members:
            with member.speaking():
                note(doing="train", step=member.trainer.state.step, steps=member.trainer.max_steps)
                outcomes.append(member.trainer.end(stop.signal is not None))
        return outcomes
