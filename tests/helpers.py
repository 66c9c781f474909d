"""Helpers for several test files."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from gymnasium import spaces
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from conf.check import Request, typed
from conf.checkpoint import write_manifest
from conf.compose import Composer
from envs.base import Spaces
from envs.data.store import Dataset, Writer
from policies import store

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
KEYS = {line.split()[-1] for line in (ROOT / "tests/conf/public_keys.txt").read_text().splitlines()}


def options(group: str) -> list[str]:
    """The YAML names of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


class Ask:
    """`ask(*overrides)`: the checked request of a command line.

    It is composed as the runs of a sweep are, which takes a hundredth of Hydra's time (tests/conf/test_compose.py compares the
    two). Hydra's state must be that of `self.hydra`.
    """

    def __init__(self) -> None:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            self.hydra = GlobalHydra.instance().hydra
            self.composer = Composer(GlobalHydra.instance().config_loader(), "config")

    def __call__(self, *overrides: str) -> Request:
        return typed(self.composer(overrides))

    def compose(self, *overrides: str) -> tuple[DictConfig, Any]:
        """The config, and its node `hydra`."""
        config = self.composer(overrides)
        return config, HydraConfig.get()


# Policies that learn from histories: an environment that has some, and values that make them small.
IN_CONTEXT = {
    "ad": ("policy.length=24", "policy.context=20"),
    "compressed_ad": ("policy.length=24", "policy.blocks=[8,12]", "policy.block=9", "policy.latents=4"),
}
NO_EXPERT = ("gym",)  # environments without an expert, where policies learn only from imported episodes
PACKAGES = {"metaworld": "metaworld", "push": "pybullet"}  # the packages of environments that need an extra


def missing_extra(env: str) -> str | None:
    """The reason to skip a test that needs this environment; None if it is there."""
    there = env not in PACKAGES or importlib.util.find_spec(PACKAGES[env])
    return None if there else f"needs pip install 'iolaus[{env}]'"


HISTORIES = {
    "minigrid": ("env.data.source=annealed_expert", "env.max_steps=20"),
    "babyai": ("env.data.source=annealed_expert", "env.max_steps=20"),
    "toy": ("env.data.source=annealed_expert",),
    "metaworld": ("env.data.source=annealed_expert", "env.tasks=[push-v3,reach-v3]"),
    "push": ("env.data.source=annealed_expert", "env.image=false"),
}
# What a command line of tests/toy.py needs beside `env=toy`.
CONTINUOUS_TOY = (f"hydra.searchpath=[{Path(__file__).parent / 'toy_conf'}]", "trusted_packages=[toy]")


def pair(policy: str, env: str = "minigrid") -> tuple[str, ...]:
    """The command line of a policy in an environment, with what it needs to learn there, if that is possible."""
    chosen = (f"policy={policy}", f"env={env}")
    return (*chosen, *IN_CONTEXT[policy], *HISTORIES.get(env, ())) if policy in IN_CONTEXT else chosen


def save_checkpoint(request: Request, run: Path, target: str | None = None) -> Path:
    """The checkpoint that a run of this request would leave, without training; `target` replaces the target in policy.json."""
    checkpoint = run / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    (checkpoint.parent / "best").symlink_to("step-3")
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(request.config))
    spaces = request.targets["env"](request.env).spaces
    weights = request.targets["policy"](request.policy, spaces).state_dict()
    store.save(checkpoint, target or request.config["policy"]["_target_"], request.policy, spaces, weights)
    write_manifest(checkpoint)
    return checkpoint


SPACES = Spaces(spaces.Dict({"state": spaces.Box(-1, 1, (3,), np.float32)}), spaces.Discrete(4))


def write_episodes(folder: Path, lengths: list[int], terminated: list[bool], slips: Sequence[int] | None = None) -> Dataset:
    """Episodes whose k-th step shows [episode, k, 0] and has the label k mod 4; at the steps `slips` another action was
    executed."""
    with Writer(folder) as writer:
        for episode, (length, ended) in enumerate(zip(lengths, terminated, strict=True)):
            step_index = np.arange(length)
            last = step_index == length - 1
            state = np.stack([np.full(length, episode), step_index, np.zeros(length)], 1).astype(np.float32)
            rows = {"observation.state": state, "action": step_index % 4, "reward": np.zeros(length, np.float32)}
            if slips is not None:
                rows["executed_action"] = (rows["action"] + np.isin(step_index + writer.steps, slips)) % 4
            rows |= {"terminated": last & ended, "truncated": last & (not ended)}
            writer.append_episodes(rows, np.array([length]))
        writer.close()
        writer.finish({"recipe": {"spaces": SPACES.to_json()}, "steps": writer.steps, "episodes": len(lengths)})
    return Dataset(folder)


HIGH = np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3))
GRID_SPACES = Spaces(spaces.Dict({"grid": spaces.Box(np.zeros_like(HIGH), HIGH, dtype=np.uint8)}), spaces.Discrete(7))


PUSH_SPACES = Spaces(
    spaces.Dict({"image": spaces.Box(0, 255, (84, 84, 3), np.uint8), "state": spaces.Box(-10, 10, (3,), np.float32)}),
    spaces.Box(-1, 1, (3,), np.float32),
)


def grids(rows: int) -> torch.Tensor:
    """Random views [rows, 7, 7, 3]."""
    return torch.stack([torch.randint(0, n, (rows, 7, 7)) for n in (11, 6, 4)], -1).to(torch.uint8)


def plans(rows: int, horizon: int = 8, length: int | None = None, terminated: bool = True) -> dict[str, Any]:
    """A batch of plans whose episodes end after `length` actions."""
    known = (torch.arange(horizon) < (horizon if length is None else length)).expand(rows, -1)
    return {
        "observation": {"grid": grids(rows)[:, None]},
        "observation_mask": torch.ones(rows, 1, dtype=torch.bool),
        "action": torch.randint(0, 7, (rows, horizon)),
        "action_mask": known,
        "ended": ~known & terminated,
    }


def helpful(sentence: str) -> str:
    """The sentence, after checking that it names something to try and that all names in it exist."""
    keys = re.findall(r"(?<![\w./])(?:policy|env|trainer|eval|logger)(?:\.\w+)+", sentence)
    choices = re.findall(r"(?<![\w./])(\w+)=(\w+)", sentence)
    assert keys or choices, sentence
    for key in keys:
        assert key in KEYS, f"there is no {key}: {sentence}"
    for group, option in choices:
        assert (CONF / group / f"{option}.yaml").exists(), f"there is no {group}={option}: {sentence}"
    return sentence
