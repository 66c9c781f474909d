"""Recording learning histories: many learners, each with one task, from their first episode to their last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs.base import Family
from envs.data.config import DataConfig
from envs.data.store import OBSERVATION, Writer
from envs.play import Observation, steps, succeeded

Block = dict[str, np.ndarray]


def record_histories(
    family: Family,
    data: DataConfig,
    recipe: dict[str, Any],
    seeds: np.ndarray,
    length: int,
    batch: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Record one history of `length` episodes for each task in `seeds`. The sources share the tasks equally. `batch` episodes are
    played at a time."""
    began, done = time.perf_counter(), 0
    scores: list[Block] = []
    with Writer(folder) as writer:
        for number, part in enumerate(np.array_split(seeds, len(data.learners))):
            source = data.learners[number]
            pool = family.lanes_per_learner(source)
            lanes = max(1, batch // length // pool) * pool
            for start in range(0, len(part), lanes):
                tasks = part[np.arange(start, min(start + lanes, len(part))) // pool]
                random = np.random.Generator(np.random.Philox(key=[data.seed, number << 48 | int(part[start])]))
                block = play(family, source, tasks, length, random)
                of_episode, of_history = block.pop("episode_length"), block.pop("history_length")
                scores.append({name: block.pop(name) for name in ("success", "return", "floor", "known")})
                writer.append("history_ends", writer.steps + np.cumsum(of_history))
                writer.append_episodes(block, of_episode)
                done += len(tasks)
                progress(done * length, len(seeds) * length)
        writer.close()
        seconds = time.perf_counter() - began
        score = {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}  # [H, E]
        floor, known = score["floor"].sum(0), score["known"].sum(0)  # [E]
        writer.finish(
            {
                "recipe": recipe,
                "steps": writer.steps,
                "episodes": len(seeds) * length,
                "histories": len(seeds),
                "seconds": seconds,
                "expert": {name: float(score[name].mean()) for name in ("success", "return")},  # of the source
                "return_by_episode": score["return"].mean(0).tolist(),
                # The mean of -log pi over the actions whose probability is known, and the share of such actions. On these no
                # policy can have a smaller loss, whatever its memory.
                "floor": float(floor.sum() / known.sum()) if known.any() else None,
                "floor_by_episode": [float(f / k) if k else None for f, k in zip(floor, known, strict=True)],
                "floor_known": float(known.sum() / writer.steps),
            }
        )


def play(family: Family, source: str, tasks: np.ndarray, episodes: int, random: np.random.Generator) -> Block:
    """Play one history in each lane. Returns the columns, history after history; the lengths of episodes and histories; and
    success, return and floor [H, E]. The floor is the sum of -log pi over the `known` actions, whose probability is known."""
    vector = family.vector(len(tasks), tasks=tasks, episodes_per_task=episodes)
    learner = family.learner(source, vector, episodes, random)
    columns: dict[str, list[np.ndarray]] = {}

    def keep(rows: dict[str, np.ndarray]) -> None:
        for name, value in rows.items():
            columns.setdefault(name, []).append(value)

    def act(observation: Observation, episode: np.ndarray) -> np.ndarray:
        action, logp = learner.act(observation, np.where(episode >= 0, episode % episodes, -1))
        keep({"logp": logp.astype(np.float32, copy=False)})
        return action

    for step in steps(vector, act):
        learner.learn(step.after, step.reward, step.terminated, step.truncated)
        keep({OBSERVATION + name: value for name, value in step.observation.items()})
        keep({"action": step.action.astype(family.spaces.action.dtype, copy=False), "playing": step.episode >= 0})
        keep({"reward": step.reward.astype(np.float32, copy=False), "terminated": step.terminated, "truncated": step.truncated})
        keep({"success": succeeded(family, step)})
    playing = np.stack(columns.pop("playing")).T  # [H, T] False once the lane's history is over
    block = {}
    for name in list(columns):
        column = _by_lane(columns.pop(name))  # [H, T, ...]
        block[name] = column.reshape(-1, *column.shape[2:]) if playing.all() else column[playing]
    ends = np.flatnonzero(block["terminated"] | block["truncated"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    known = ~np.isnan(block["logp"])

    def by_episode(rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows, starts, dtype=np.float64).reshape(-1, episodes)  # [H, E]

    return block | {
        "episode_length": ends - starts,
        "history_length": playing.sum(1),
        "success": by_episode(block.pop("success")) > 0,
        "return": by_episode(block["reward"]),
        "floor": by_episode(np.where(known, -block["logp"], 0)),
        "known": by_episode(known),
    }


def _by_lane(rows: list[np.ndarray]) -> np.ndarray:
    """Stack T arrays [H, ...] into [H, T, ...]. They are freed one by one, because images would fill the memory twice."""
    column = np.empty((len(rows[0]), len(rows), *rows[0].shape[1:]), rows[0].dtype)
    while rows:
        last = rows.pop()
        column[:, len(rows)] = last
    return column


def describe(meta: dict[str, Any]) -> str:
    """What `mode=collect` prints about histories; an empty text for the expert's episodes."""
    if "histories" not in meta:
        return ""
    returns = meta["return_by_episode"]
    shown = sorted({*range(min(10, len(returns))), *range(9, len(returns), 10), len(returns) - 1})
    words = f"\n  {meta['histories']:,} histories; return by episode " + ", ".join(f"{i + 1}: {returns[i]:.2f}" for i in shown)
    if meta["floor"] is None:
        return f"{words}\n  the source's own probabilities are not known, so there is no entropy floor"
    of = "" if meta["floor_known"] == 1 else f" on the {meta['floor_known']:.0%} of the actions whose probability is known"
    return f"{words}\n  entropy floor {meta['floor']:.3f}{of}: the smallest loss that any policy can have there"
