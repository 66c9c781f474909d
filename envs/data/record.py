"""Record the dataset that a configuration asks for, or find it on disc."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conf.errors import BadRequest
from envs.base import Family
from envs.data import minari
from envs.data.cache import address, obtain
from envs.data.config import DataConfig
from envs.data.histories import record_histories
from envs.data.noise import Noise
from envs.data.store import OBSERVATION, Dataset, Writer
from envs.play import Observation, Player, Progress, steps, succeeded

FORMAT = 3  # version of the folder's layout; raising it records every dataset again
BLOCK = 1 << 29  # most bytes of episodes held in memory, if each is as long as allowed


class Takeover(NamedTuple):
    """A learner drives the first steps of each episode. Then the expert takes over, and drives to the episode's end."""

    learner: Player  # `episode` is given as the episode's seed, so that its draws do not depend on how episodes are dealt
    after: Callable[[np.ndarray], np.ndarray]  # episode seeds [E] -> how many steps [E] the learner drives


def dataset(
    family: Family,
    data: DataConfig,
    split: str,
    root: Path,
    progress: Progress = lambda done, total: None,
    waiting: Callable[[], None] = lambda: None,
) -> Dataset:
    """The recorded episodes of a split; from disc if they were recorded before."""
    recipe, seeds, length = _plan(family, data, split)

    def make(folder: Path) -> None:
        if data.imported:
            minari.import_episodes(data, family, split, recipe, folder, progress)
        elif data.learners:
            record_histories(family, data, recipe, seeds, length, batch(family), folder, progress)
        else:
            record_episodes(family, data, recipe, seeds, folder, progress)

    return Dataset(obtain(root, _name(family, split, recipe), make, waiting))


def recorded(family: Family, data: DataConfig, split: str, root: Path) -> bool:
    """Whether this dataset is on disc already."""
    recipe, _, _ = _plan(family, data, split)
    return (root / _name(family, split, recipe)).exists()


def _name(family: Family, split: str, recipe: dict[str, Any]) -> str:
    return address(recipe, f"{family.signature()['id']}-{split}")


def _plan(family: Family, data: DataConfig, split: str) -> tuple[dict[str, Any], np.ndarray, int]:
    """The recipe (everything that the dataset depends on), the seeds of its episodes or histories, and the number of episodes
    for each seed."""
    episodes = data.episodes if split == "train" else data.val_episodes
    histories, length = data.histories(episodes) if data.learners else (episodes, 1)
    seeds = family.seeds(split, histories)
    recipe = {
        "format": FORMAT,
        "family": {"class": f"{type(family).__module__}.{type(family).__qualname__}", **family.signature()},
        "lanes": batch(family),
        "spaces": family.spaces.to_json(),
        "seeds": [int(seeds[0]), len(seeds)],
        **data.recipe(),
        **({"episodes_per_history": length} if data.learners else {}),
        **({"minari": minari.describe(data.source)} if data.imported else {}),
    }
    return recipe, seeds, length


def record_episodes(
    family: Family,
    data: DataConfig,
    recipe: dict[str, Any],
    seeds: np.ndarray,
    folder: Path,
    progress: Progress,
    takeover: Takeover | None = None,
) -> None:
    """Play the episodes `seeds` and write them, block by block. Each step is labelled with the expert's action."""
    began = time.perf_counter()
    scores: list[dict[str, np.ndarray]] = []
    keeps_failures = family.keeps_failures and data.keep_failures
    with Writer(folder) as writer:
        for start in range(0, len(seeds), batch(family)):
            advance = partial(_advance, progress, start, len(seeds))
            block = _play(family, data, seeds[start : start + batch(family)], advance, takeover)
            lengths = block.pop("length")
            scores.append(score := {name: block.pop(name) for name in ("success", "return", "unaided", "failed")})
            if not keeps_failures and score["failed"].any():
                kept = ~score["failed"]
                steps_kept = np.repeat(kept, lengths)
                block, lengths = {name: column[steps_kept] for name, column in block.items()}, lengths[kept]
            if len(lengths):
                writer.append_episodes(block, lengths)
        writer.close()
        seconds = time.perf_counter() - began
        score = {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}
        left_out = 0 if keeps_failures else int(score["failed"].sum())
        if left_out == len(seeds):
            raise BadRequest(f"the expert failed in all of {left_out} episodes, so there is nothing to learn from")
        writer.finish(
            {
                "recipe": recipe,
                "steps": writer.steps,
                "episodes": len(seeds) - left_out,
                "seconds": seconds,
                "left_out": left_out,
                "expert": {
                    "success": float(score["success"].mean()) if family.has_success else None,
                    "return": float(score["return"].mean()),
                },
                **({"unaided": float(score["unaided"].mean())} if takeover else {}),
            }
        )


def batch(family: Family) -> int:
    """The number of episodes recorded at once."""
    step = sum(int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize for space in family.spaces.observation.values())
    return max(1, min(family.record_batch, BLOCK // (step * family.max_steps)))


def _ordered(parts: list[np.ndarray], row: np.ndarray) -> np.ndarray:
    """Join the rows of `parts` and move each to its index in `row`. Parts are freed one by one, because images are large."""
    column = np.empty((len(row), *parts[0].shape[1:]), parts[0].dtype)
    stop = len(row)
    while parts:
        part = parts.pop()
        column[row[stop - len(part) : stop]] = part
        stop -= len(part)
    return column


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _play(
    family: Family, data: DataConfig, seeds: np.ndarray, finished: Callable[[int], None], takeover: Takeover | None
) -> dict[str, np.ndarray]:
    """Play the episodes `seeds`. Returns the columns, episode by episode, and each episode's length, return, success, whether it
    was solved `unaided`, before the expert took over, and whether the expert acted and `failed`. `finished` is told how many
    episodes are done."""
    lanes = min(len(seeds), family.max_lanes or len(seeds))
    vector, expert = family.vector(lanes, seeds=seeds), family.expert()
    wanderer = family.wanderer() if data.detours else None
    noise = Noise(data, family.spaces.action, seeds, family.max_steps, family.tasks_in_turn) if data.noise else None
    unaided = np.zeros(len(seeds), np.int64)  # [E] steps that the learner drives
    if takeover:
        takeover.learner.start(vector)
        unaided = takeover.after(seeds)
    columns: dict[str, list[np.ndarray]] = {}
    played: list[np.ndarray] = []
    success, returns = np.zeros(len(seeds), bool), np.zeros(len(seeds))
    step_index, done = np.zeros(lanes, np.int64), 0  # [N] each lane's step within its episode; the number of finished episodes

    def keep(rows: dict[str, np.ndarray], playing: np.ndarray) -> None:
        for name, value in rows.items():
            columns.setdefault(name, []).append(value[playing])

    def act(observation: Observation, episode: np.ndarray) -> np.ndarray:
        label = expert.act(vector).astype(family.spaces.action.dtype, copy=False)  # [N] or [N, A]
        playing = episode >= 0
        keep({"action": label}, playing)
        executed = label.copy()
        if wanderer:
            astray = wanderer.act(vector)
            executed = np.where(astray >= 0, astray, label).astype(label.dtype)
        if noise:
            executed[playing] = noise.executed(executed[playing], episode[playing], step_index[playing])
        if takeover:
            by_learner = playing & (step_index < unaided[episode])
            keep({"expert_drives": ~by_learner}, playing)
            if by_learner.any():
                lanes = np.flatnonzero(by_learner)
                seen = {name: column[lanes] for name, column in observation.items()}
                chosen = takeover.learner.act(seen, lanes, seeds[episode[lanes]], step_index[lanes])
                finite = np.isfinite(chosen).reshape(len(lanes), -1).all(1)  # in place of one that is not, the expert's
                executed[lanes[finite]] = chosen[finite]
        return executed

    for step in steps(vector, act):
        playing = step.episode >= 0
        keep({OBSERVATION + name: value for name, value in step.observation.items()}, playing)
        keep({"reward": step.reward.astype(np.float32), "terminated": step.terminated, "truncated": step.truncated}, playing)
        if data.noise or data.detours or takeover:
            keep({"executed_action": step.action}, playing)
        played.append(step.episode[playing])
        success[played[-1]] |= succeeded(family, step)[playing]
        returns[played[-1]] += step.reward[playing]
        step_index = np.where(step.done, 0, step_index + 1)
        if step.done.any():
            finished(done := done + int(step.done[playing].sum()))
    episode = np.concatenate(played)  # [steps] step by step over all lanes
    row = np.empty(len(episode), np.int64)  # the row of each of these steps once they are sorted by episode
    row[np.argsort(episode, kind="stable")] = np.arange(len(episode))
    block = {name: _ordered(columns.pop(name), row) for name in list(columns)}
    length = np.bincount(episode, minlength=len(seeds))
    alone = length <= unaided
    return block | {
        **{"length": length, "return": returns, "success": success},
        **{"unaided": success & alone, "failed": ~success & ~alone},
    }
