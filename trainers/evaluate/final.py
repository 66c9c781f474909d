"""The final evaluation of a run, and all of `mode=eval`: play, record, show."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from conf.build import build
from conf.check import Request
from conf.ranks import here
from envs.base import Family
from envs.data.config import EPISODES_PER_DATA_SEED
from policies.base import Policy
from trainers.evaluate import episodes, in_context
from trainers.evaluate.base import Evaluator
from trainers.record.records import Records, console, say, write_json


def evaluator_of(policy: Policy) -> Evaluator:
    """The evaluation by single episodes; for a policy that remembers earlier episodes, the one by many episodes of one task."""
    return in_context.EVALUATOR if policy.memory_scope == "history" else episodes.EVALUATOR


def evaluate_and_report(
    request: Request, family: Family, folder: Path, device: torch.device, policy: Policy, facts: dict[str, Any]
) -> None:
    """Evaluate on the held-out episodes, write the results to files, and show them."""
    began = time.perf_counter()
    training = training_seeds(request, family)
    evaluator = evaluator_of(policy)
    result = evaluator.evaluate(policy, family, request.eval, training, request.seed, device)
    if here().rank:
        return
    facts["evaluation_seconds"] = time.perf_counter() - began
    write_json(folder / "evaluation.json", result.record)
    saved = [picture.save(folder / "media") for picture in result.pictures]
    scores = result.record["scores"]
    write_json(
        folder / "summary.json",
        {"status": "done", **facts, "seen_in_training": result.record["seen_in_training"], "scores": scores},
    )
    records = Records(folder, request.logger)
    config = (folder / "config.yaml").read_text()
    records.final(request.eval.split, request.eval.decode[0], scores, config, facts.get("steps", 0))
    for picture in result.pictures:
        records.media(f"{request.eval.split}/{picture.title}", picture.encoded, picture.shape, facts.get("steps", 0))
    for name, curve in result.record.get("by_episode", {}).items():
        records.curve(f"{request.eval.split}/return_by_episode/{name}", curve["mean"])
    records.close()

    console.print(evaluator.table(result.record, request.config["policy"]["_target_"].split(".")[-2]))
    words = f"seed {request.seed}, {facts['parameters']:,} parameters"
    if "seconds" in facts:
        words += (
            f"\n{facts['steps']} steps in {facts['step_seconds']:.0f} s ({facts['samples_per_second']:,.0f} samples/s), "
            f"{facts['seconds']:.0f} s with validations and checkpoints"
        )
    say(f"{words}; evaluated in {facts['evaluation_seconds']:.0f} s\nrun folder   {folder}")
    if request.logger.uses_tensorboard:
        say(f"TensorBoard  {Path(sys.executable).name} -m tensorboard.main --logdir {folder}")
    for path in saved:
        say(f"picture      {path}")


def training_seeds(request: Request, family: Family) -> np.ndarray | None:
    """The seeds of the episodes (for histories: of the tasks) that the policy was trained on; None if in another environment."""
    if request.mode == "train":
        return episode_seeds(family, request.config["trainer"])
    config = yaml.safe_load((Path(str(request.ckpt_path)) / "config.yaml").read_text())
    trained = config["env"]
    if trained.pop("_target_") != request.config["env"]["_target_"]:
        return None
    other = request.targets["env"](build(type(request.env), trained))
    return episode_seeds(other, config["trainer"]) if other.signature() == family.signature() else None


def episode_seeds(family: Family, trainer: Mapping[str, Any]) -> np.ndarray:
    """Those of the recorded episodes, and of the ones that `trainer` (its values) added."""
    data = family.config.data
    if data.learners:
        return family.seeds("train", data.histories(data.episodes)[0])
    added = int(trainer.get("rounds", 0)) * int(trainer.get("episodes", 0))
    return family.seeds("train", min(data.episodes + added, EPISODES_PER_DATA_SEED))
