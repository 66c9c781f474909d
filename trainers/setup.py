"""What a run needs before it starts: recorded data, and a trainer with its policy."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from gymnasium import spaces

from conf.check import Request
from conf.ranks import here
from envs.base import Family, Score
from envs.data import record, statistics
from envs.data.store import Dataset
from envs.data.windows import Windows
from policies import store
from policies.base import Policy
from trainers import features
from trainers.base import Hopeless, Run, Trainer
from trainers.evaluate.final import evaluator_of
from trainers.record.records import NoRecords, Records, bar, say


def build_trainer(
    request: Request,
    family: Family,
    folder: Path,
    device: torch.device,
    hopeless: Hopeless | None = None,
    beside: Trainer | None = None,
) -> Trainer:
    """A trainer with its policy and data, ready for the first step. It shares its data with the trainer `beside` it."""
    windows, held_out = (beside.data, beside.validation.windows) if beside else (None, None)
    data = windows.dataset if windows else load_or_record(request, family, "train")
    validation = held_out.dataset if held_out else load_or_record(request, family, "val")
    torch.manual_seed(request.seed)
    policy: Policy = request.targets["policy"](request.policy, family.spaces)
    policy.fit(statistics.summarise(data))
    if request.init_from:
        warm_start(policy, Path(request.init_from), request, family)
    policy.to(device)

    def with_features(policy: Policy, datasets: Sequence[Dataset], root: Path = Path(request.data_dir)) -> list[Dataset]:
        features.freeze(policy)
        with bar("compute features", len(datasets[0])) as progress:
            return [features.with_features(one, policy, root, progress) for one in datasets]

    if request.trainer.cache_features:
        data, validation = with_features(policy, [data, validation])
    windows, held_out = windows or Windows(data, policy.window), held_out or Windows(validation, policy.window)
    if beside:
        floor = beside.run.floor
    else:
        floor = statistics.floor(windows, policy.modalities) if isinstance(family.spaces.action, spaces.Discrete) else None

    def play(acting: Policy) -> Score:
        episodes = request.trainer.eval_episodes
        with bar("validate", episodes) as progress:
            return evaluator_of(acting).validate(acting, family, episodes, request.seed, device, progress)

    def save_policy(into: Path, acting: Policy) -> None:
        store.save(into, request.config["policy"]["_target_"], request.policy, family.spaces, acting.state_dict())
        shutil.copy(folder / "config.yaml", into)

    run = Run(
        folder,
        request.seed,
        device,
        save_policy,
        make_records=lambda *known: NoRecords() if here().rank else Records(folder, request.logger, *known),
        play=play if request.trainer.eval_episodes else None,
        judged_by=evaluator_of(policy).judged_by,
        hopeless=hopeless,
        family=family,
        floor=floor,
        freeze=lambda policy, found, *root: [
            Windows(one, policy.window) for one in with_features(policy, [windows.dataset for windows in found], *root)
        ],
    )
    return request.targets["trainer"](request.trainer, policy, windows, held_out, run)


def warm_start(policy: Policy, folder: Path, request: Request, family: Family) -> None:
    if request.trainer.cache_features:
        store.load_backbones(policy, folder)
        say(f"the image backbone is that of {folder} and stays as it is; everything else starts anew")
        return
    if store.target_of(folder) == request.config["policy"]["_target_"]:
        store.load_weights(policy, folder, request.policy, family.spaces)
        return
    taken = store.load_parts(policy, folder, request.policy, family.spaces)
    new = [name for name, _ in policy.named_children() if name not in taken]
    say(f"the weights of {', '.join(taken)} come from {folder}; {', '.join(new)} start untrained")


def load_or_record(request: Request, family: Family, split: str) -> Dataset:
    data = request.env.data
    with bar(f"record {split} episodes", data.episodes if split == "train" else data.val_episodes) as progress:
        return record.dataset(
            family,
            request.env.data,
            split,
            Path(request.data_dir),
            progress,
            waiting=lambda: say(f"another run is recording the {split} data; waiting for it"),
        )
