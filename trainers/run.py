"""One run from beginning to end: `mode=train`, `mode=eval`, `mode=collect` and `mode=health`."""

from __future__ import annotations

import fcntl
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from gymnasium import spaces

from conf.build import build
from conf.check import Request
from conf.device import pick
from conf.errors import BadRequest, Exit
from conf.folder import leaves, quoted
from envs.base import Family, Score
from envs.data import record, statistics
from envs.data.histories import describe
from envs.data.store import Dataset
from envs.data.windows import Window, Windows
from policies import store
from policies.base import Policy
from trainers.evaluate import episodes, streams
from trainers.health import checks
from trainers.health.report import Report
from trainers.loop.batches import to_device
from trainers.offline import Outcome
from trainers.record.boards import session
from trainers.record.profile import profile
from trainers.record.records import Records, bar, console, say, write_json

EXIT = {"done": Exit.DONE, "failed": Exit.FAILED, "diverged": Exit.DIVERGED}
EXAMINED = 1000  # episodes that `mode=health` records where there are none: seconds, in any environment
PROBED = 4096  # action slots of the batch that the checks run the policy on
THREADS = torch.get_num_threads()  # PyTorch's choice, before any run of this process asked for another


def main(request: Request, folder: Path) -> Exit:
    """Carry out a checked request in its run folder; returns the exit code, or exits with it where a sweep has to stop too."""
    device = torch.device(pick(request.device))
    if device.type == "cuda":  # CPU kernels are deterministic as they are; asking costs them a second of imports
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(request.trainer.threads or THREADS)
    family = request.targets["env"](request.env)
    with locked(folder), session(request.logger, folder, dict(leaves(request.config)), say):
        write_json(folder / "status.json", {"status": "running"})
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside the training loop it means what Ctrl-C means
        try:
            status = {"train": train, "eval": evaluate, "collect": collect, "health": examine}[request.mode](
                request, family, folder, device
            )
        except KeyboardInterrupt:
            status = "preempted" if (folder / "checkpoints" / "last").exists() else "interrupted"
        except BaseException:
            with suppress(OSError):  # a full disc may be what failed
                write_json(folder / "status.json", {"status": "failed"})
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        write_json(folder / "status.json", {"status": status})
    if status == "preempted":
        command, where = (folder / "command.txt").read_text().strip(), shlex.quote(f"hydra.run.dir={quoted(folder)}")
        say(f"stopped with a checkpoint; to go on:\n  {command} resume=true {where}")
        sys.exit(Exit.PREEMPTED)
    if status == "interrupted":
        say("stopped; there is no checkpoint to go on from, so run it again")
        sys.exit(Exit.FAILED)
    return EXIT[status]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process in a run folder at a time. The lock goes with the process, however it ends."""
    with open(folder / ".lock", "w") as lock:
        for left in reversed(range(5)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise BadRequest(
                        f"the run in {folder} is still going on in another process; wait for it, or stop it"
                    ) from None
                time.sleep(0.1)  # `sweeps report` looks at the lock for a moment
        yield


def train(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    trainer = built(request, family, folder, device)
    report = health_of(trainer, request, folder)
    size, samples = request.trainer.batch_size, len(trainer.data)
    words = f"training on {device} for {trainer.max_steps} steps of {size} out of {samples:,} samples"
    say(f"{words}; a loss of {report.facts['chance_loss']:.3f} is chance" + entropies(trainer.data.dataset, trainer.bounds.floor))
    if request.trainer.profile:
        profile(trainer)
        return "done"
    outcome: Outcome = trainer.fit()
    if outcome.status == "diverged":
        say(
            f"diverged at step {outcome.step}: {request.trainer.bad_steps} steps in a row were not finite. The batch and the "
            f"weights are in {folder / 'diverged'}; try a lower trainer.optimizer.lr"
        )
    if outcome.status != "done" or request.trainer.overfit:
        return outcome.status
    best = store.load(folder, device=device, trusted_packages=request.trusted_packages)
    facts = {
        "parameters": report.facts["parameters"],
        "steps": outcome.step,
        "seconds": outcome.seconds,
        "samples_per_second": outcome.step * request.trainer.batch_size / outcome.seconds,
    }
    conclude(request, family, folder, device, best, facts)
    return "done"


def examine(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    """`mode=health`: what training would be told before its first step, and no training."""
    data = request.env.data
    fewer = data.episodes > EXAMINED and not data.learners and not request.trainer.max_epochs  # epochs are counted in all of them
    if fewer and not record.recorded(family, data, "train", Path(request.data_dir)):
        say(f"recording {EXAMINED} of the {data.episodes} episodes that training would record: enough to look at")
        request = replace(request, env=replace(request.env, data=replace(data, episodes=EXAMINED)))
    report = health_of(built(request, family, folder, device), request, folder)
    console.print(report.table())
    say(f"run folder   {folder}")
    look = [finding.check for finding in report.findings if finding.warning]
    write_json(folder / "summary.json", {"status": "done", "warnings": len(look), "look": look})
    return "done"


def built(request: Request, family: Family, folder: Path, device: torch.device) -> Any:
    """A trainer with its policy and data, ready for the first step."""
    data, validation = (recorded(request, family, split) for split in ("train", "val"))
    torch.manual_seed(request.seed)
    policy: Policy = request.targets["policy"](request.policy, family.spaces)
    policy.fit(data.meta)
    if request.init_from:
        warm_start(policy, Path(request.init_from), request, family)
    policy.to(device)
    windows, held_out = (Windows(dataset, policy.window) for dataset in (data, validation))
    floor = statistics.floor(windows, policy.modalities) if isinstance(family.spaces.action, spaces.Discrete) else None

    def play(acting: Policy) -> Score:
        return scoring(acting).validate(acting, family, request.trainer.eval_episodes, request.seed, device)

    def save_policy(into: Path, acting: Policy) -> None:
        store.save(into, request.config["policy"]["_target_"], request.policy, family.spaces, acting.state_dict())
        shutil.copy(folder / "config.yaml", into)

    return request.targets["trainer"](
        request.trainer,
        policy,
        windows,
        held_out,
        folder=folder,
        seed=request.seed,
        device=device,
        floor=floor,
        judged_by=scoring(policy).JUDGED_BY,
        save_policy=save_policy,
        play=play if request.trainer.eval_episodes else None,
        make_records=lambda offset, step: Records(folder, request.logger, offset, step),
    )


def health_of(trainer: Any, request: Request, folder: Path) -> Report:
    """What is to be said before the first step: shown, written down, and handed to the trainer, which adds to it."""
    rows = min(request.trainer.batch_size // request.trainer.accumulate, max(2, PROBED // trainer.policy.window.actions))
    sample = trainer.data.batch(trainer.batches.samples(0)[:rows])
    report = trainer.report = checks.before_training(
        trainer.policy,
        to_device(sample, trainer.device),
        trainer.data,
        trainer.validation.windows,
        trainer.bounds.floor,
        request.seed,
        trained=request.init_from is not None,
    )
    checks.schedule(report, request.trainer.schedule, trainer.max_steps, request.trainer.eval_every)
    console.print(checks.parameter_table(trainer.policy))
    for finding in report.findings:
        if finding.check == "training targets":  # whoever learns from histories sees what is asked, whether it is fine or not
            say(f"training targets: {finding.measured}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    write_json(folder / "health.json", report.to_json())
    records = Records(folder, request.logger)
    records.health(report.to_markdown(), report.numbers())
    records.close()
    return report


def warm_start(policy: Policy, folder: Path, request: Request, family: Family) -> None:
    if store.target_of(folder) == request.config["policy"]["_target_"]:
        store.load_weights(policy, folder, request.policy, family.spaces)
        return
    taken = store.load_parts(policy, folder, request.policy, family.spaces)
    new = [name for name, _ in policy.named_children() if name not in taken]
    say(f"weights of {', '.join(taken)} are those of {folder}; {', '.join(new)} start anew")


def evaluate(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    assert request.ckpt_path  # mode=eval was checked to have one
    policy = store.load(request.ckpt_path, device=device, config=request.policy, trusted_packages=request.trusted_packages)
    conclude(request, family, folder, device, policy, {"parameters": sum(p.numel() for p in policy.parameters())})
    return "done"


def collect(request: Request, family: Family, folder: Path, device: torch.device) -> str:
    datasets = {split: recorded(request, family, split) for split in ("train", "val")}
    summary = {}
    for split, data in datasets.items():
        meta = data.meta
        expert = meta["expert"]
        discrete = isinstance(family.spaces.action, spaces.Discrete)
        counted = discrete and not request.env.data.learners  # learners' own floors are told by `describe`
        floor = statistics.floor(Windows(data, Window())) if counted else None
        say(
            f"{split}: {meta['episodes']} episodes, {meta['steps']:,} steps in {meta['seconds']:.1f} s "
            f"({meta['episodes'] / meta['seconds']:,.0f} episodes/s); {request.env.data.source} success "
            f"{expert['success']:.3f}, return {expert['return']:.3f}{entropies(data, floor)}{describe(meta)}\n  {data.folder}"
        )
        summary[split] = {"folder": str(data.folder), **{key: meta[key] for key in ("episodes", "steps", "seconds", "expert")}}
    write_json(folder / "summary.json", {"status": "done", **summary})
    return "done"


def entropies(data: Dataset, floor: statistics.Floor | None) -> str:
    """How much of the labels could be predicted at all, where they are classes."""
    if not floor:
        return ""
    return f"; the entropy of the actions is {statistics.label_entropy(data.columns['action']):.3f}, and {floor}"


def recorded(request: Request, family: Family, split: str) -> Dataset:
    data = request.env.data
    with bar(f"record {split} episodes", data.episodes if split == "train" else data.val_episodes) as progress:
        return record.dataset(
            family,
            request.env.data,
            split,
            Path(request.data_dir),
            progress,
            waiting=lambda: say(f"another run is making the {split} data; waiting for it"),
        )


def conclude(request: Request, family: Family, folder: Path, device: torch.device, policy: Policy, facts: dict[str, Any]) -> None:
    """Evaluate on the held-out episodes, write it down, and show it."""
    began = time.perf_counter()
    training = training_seeds(request, family)
    result = scoring(policy).evaluate(policy, family, request.eval, training, request.seed, device)
    facts["evaluation_seconds"] = time.perf_counter() - began
    write_json(folder / "evaluation.json", result.record)
    saved = [picture.save(folder / "media") for picture in result.pictures]
    scores = result.record["scores"]
    write_json(
        folder / "summary.json",
        {"status": "done", **facts, "seen_in_training": result.record["seen_in_training"], "scores": scores},
    )
    records = Records(folder, request.logger)
    headline = request.eval.decode[0]
    records.hyperparameters(
        dict(leaves(yaml.safe_load((folder / "config.yaml").read_text()))),
        {
            f"{request.eval.split}/{name}": value
            for name in ("success", "return")
            if (value := scores[headline][name]) is not None
        },
    )
    for picture in result.pictures:
        records.media(f"{request.eval.split}/{picture.title}", picture.encoded, picture.shape, facts.get("steps", 0))
    for name, curve in result.record.get("by_episode", {}).items():
        records.curve(f"{request.eval.split}/return_by_episode/{name}", curve["mean"])
    records.close()

    console.print(scoring(policy).table(result.record, request.config["policy"]["_target_"].split(".")[-2]))
    words = f"{facts['parameters']:,} parameters"
    if "seconds" in facts:
        words += f", trained for {facts['seconds']:.0f} s ({facts['steps']} steps, {facts['samples_per_second']:,.0f} samples/s)"
    say(f"{words}, evaluated in {facts['evaluation_seconds']:.0f} s\nrun folder   {folder}")
    if request.logger.name == "tensorboard":
        say(f"TensorBoard  {Path(sys.executable).name} -m tensorboard.main --logdir {folder}")
    for path in saved:
        say(f"picture      {path}")


def scoring(policy: Policy) -> Any:
    """How a policy is evaluated: by single episodes, or by what it makes of many of one task."""
    return streams if policy.memory_scope == "history" else episodes


def training_seeds(request: Request, family: Family) -> np.ndarray | None:
    """The episodes (of histories: the tasks) that the policy was trained on, or None if that was in another environment."""
    if request.mode == "train":
        return taught(family)
    trained = yaml.safe_load((Path(str(request.ckpt_path)) / "config.yaml").read_text())["env"]
    if trained.pop("_target_") != request.config["env"]["_target_"]:
        return None
    other = request.targets["env"](build(type(request.env), trained))
    return taught(other) if other.signature() == family.signature() else None


def taught(family: Family) -> np.ndarray:
    data = family.config.data
    return family.seeds("train", data.histories(data.episodes)[0] if data.learners else data.episodes)
