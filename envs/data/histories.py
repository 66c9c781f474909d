"""Recording learning histories: many learners, each with one task, from their first episode to their last."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envs.base import DataConfig, Family
from envs.data.statistics import action_entropy
from envs.data.store import OBSERVATION, Writer

Block = dict[str, np.ndarray]


def record_histories(
    family: Family,
    data: DataConfig,
    recipe: dict[str, Any],
    seeds: np.ndarray,
    length: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """One history of `length` episodes for each of the `seeds`, which name tasks; each source plays an equal part of them."""
    began, steps, done = time.perf_counter(), 0, 0
    success, returns, floors = [], [], []
    with Writer(folder) as writer:
        for number, part in enumerate(np.array_split(seeds, len(data.learners))):
            source = data.learners[number]
            pool = family.pool(source)
            lanes = max(1, family.lanes // length // pool) * pool
            for start in range(0, len(part), lanes):
                tasks = part[np.arange(start, min(start + lanes, len(part))) // pool]
                random = np.random.Generator(np.random.Philox(key=[data.seed, number << 48 | int(part[start])]))
                block = play(family, source, tasks, length, random)
                of_episode, of_history = block.pop("episode_length"), block.pop("history_length")
                success.append(block.pop("success"))
                returns.append(block.pop("return"))
                floors.append(block.pop("floor"))
                for name, rows in block.items():
                    writer.append(name, rows)
                writer.append("episode_ends", steps + np.cumsum(of_episode))
                writer.append("history_ends", steps + np.cumsum(of_history))
                steps += int(of_history.sum())
                done += len(tasks)
                progress(done * length, len(seeds) * length)
        writer.close()
        seconds = time.perf_counter() - began
        seen = [name for name in writer.columns if name.startswith(OBSERVATION)]
        solved, paid, (total, known, count) = np.concatenate(success), np.concatenate(returns), np.sum(floors, 0)
        writer.finish(
            {
                "recipe": recipe,
                "steps": steps,
                "episodes": len(seeds) * length,
                "histories": len(seeds),
                "seconds": seconds,
                "expert": {"success": float(solved.mean()), "return": float(paid.mean())},  # of whoever chose the actions
                "return_by_episode": paid.mean(0).tolist(),
                # The mean of -log pi over the actions whose probability is known, and which share of all they are. No policy,
                # whatever it remembers, can have a smaller loss on these.
                "floor": float(total.sum() / known.sum()) if known.any() else None,
                "floor_by_episode": [float(t / k) if k else None for t, k in zip(total, known, strict=True)],
                "floor_known": float(known.sum() / count.sum()),
                "action_entropy": action_entropy(folder, seen),
            }
        )


def play(family: Family, source: str, tasks: np.ndarray, episodes: int, random: np.random.Generator) -> Block:
    """One history a lane: columns history by history; the lengths of episodes and histories; success and return [H, E]; and the
    floor [3, E]: the sum of -log pi, how many it is the sum of, and the number of all steps."""
    vector = family.vector(len(tasks), tasks=tasks, episodes_per_task=episodes)
    learner = family.learner(source, vector, episodes, random)
    observation, info = vector.reset()
    moments: list[Block] = []
    while (info["episode"] >= 0).any():
        turn = np.where(info["episode"] >= 0, info["episode"] % episodes, -1)
        action, logp = learner.act(observation, turn)
        step = {OBSERVATION + name: value for name, value in observation.items()}
        step |= {"turn": turn, "action": action.astype(family.spaces.action.dtype, copy=False), "logp": logp.astype(np.float32)}
        observation, reward, terminated, truncated, info = vector.step(action)
        learner.learn(info.get("final_obs", observation), reward, terminated, truncated)
        step |= {"reward": reward.astype(np.float32), "terminated": terminated, "truncated": truncated}
        moments.append(step | {"success": family.success(reward, terminated, truncated, info)})
    vector.close()
    played = np.stack([moment["turn"] for moment in moments], 1) >= 0  # [H, T] idle lanes have no steps
    block = {}
    for name in list(moments[0]):  # one column twice in memory, not all
        column = np.stack([moment.pop(name) for moment in moments], 1)  # [H, T, ...]
        block[name] = column.reshape(-1, *column.shape[2:]) if played.all() else column[played]
    turn, success = block.pop("turn"), block.pop("success")
    ends = np.flatnonzero(block["terminated"] | block["truncated"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    known = ~np.isnan(block["logp"])
    weights = (np.where(known, -block["logp"], 0), known, None)
    return block | {
        "episode_length": ends - starts,
        "history_length": played.sum(1),
        "success": np.logical_or.reduceat(success, starts).reshape(-1, episodes),
        "return": np.add.reduceat(block["reward"], starts, dtype=np.float64).reshape(-1, episodes),
        "floor": np.stack([np.bincount(turn, weight, episodes) for weight in weights]),
    }


def describe(meta: dict[str, Any]) -> str:
    """What `mode=collect` says of histories; nothing of the expert's episodes."""
    if "histories" not in meta:
        return ""
    returns = meta["return_by_episode"]
    shown = sorted({*range(min(10, len(returns))), *range(9, len(returns), 10), len(returns) - 1})
    words = f"\n  {meta['histories']:,} histories; return by episode " + ", ".join(f"{i + 1}: {returns[i]:.2f}" for i in shown)
    if meta["floor"] is None:
        return f"{words}\n  the source's own probabilities are not known, so there is no entropy floor"
    of = "" if meta["floor_known"] == 1 else f" on the {meta['floor_known']:.0%} of the actions whose probability is known"
    return f"{words}\n  entropy floor {meta['floor']:.3f}{of}: the smallest loss that any policy can have there"
