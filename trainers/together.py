"""Several runs in one process, trained as one stack (loop/stacked.py): `cluster.together`.

Each has its own trainer, folder, records, checkpoints and evaluation, and does all of it as if it were alone; only the steps are
shared. A run that is ahead of the others when the group goes on from checkpoints stands still until they have caught up.
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
        """What is said and reported meanwhile is about this run."""
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
        """The others go on."""
        self.status = "failed"
        fail(self.heartbeat, error)
        if (sentence := explain(error)) is None:
            traceback.print_exception(error)
        else:
            say(sentence)


def main(runs: Sequence[tuple[Request, Path, str]]) -> int:
    """Requests that may go together (conf/together.py), their folders and what to call them; the exit code is the worst."""
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
            console.quiet = True  # the first has said what there is to say of all of them
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
        while not stop.signal and (behind := [trainer.state.step for trainer in trainers if not trainer.over]):
            due = [not trainer.over and trainer.state.step == min(behind) for trainer in trainers]
            if due != going:  # those that go on have equally many steps to fetch
                for trainer in trainers:
                    trainer.catch_up()
                going = due
                continue
            began = time.perf_counter()
            stack.take(min(behind), going)
            seconds = time.perf_counter() - began
            for member, goes in zip(members, going, strict=True):
                if goes:
                    with member.speaking():
                        member.trainer.taken(seconds)
                        member.trainer.validate_and_save()
            progress(min(behind) + 1, note=trainers[going.index(True)].journal.words)
        outcomes = []
        for member in members:
            with member.speaking():
                note(doing="train", step=member.trainer.state.step, steps=member.trainer.max_steps)
                outcomes.append(member.trainer.end(stop.signal is not None))
        return outcomes
