"""Streams as numbers (evaluation.json) and as tables (the console)."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from trainers.evaluate.intervals import interval
from trainers.evaluate.streams import FOUND, LAST, Streams

SHOWN = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)  # episodes in the table
MANY_TASKS = 16  # more tasks than this are not listed one by one
LARGE = 5.0  # returns from here on are shown with one decimal


def summary(score: Streams, strata: list[str] | None = None, has_success: bool = True) -> dict[str, Any]:
    last, found, mine, told = score.last, score.found, score.returns[:, -score.policy_episodes :], not score.expected
    success, returned = interval(found, True, strata), interval(last, strata=strata)
    return {
        "streams": len(last),
        # The share of streams that solved one of their last episodes.
        "success": float(found.mean()) if told and has_success else None,
        "success_interval": (success.low, success.high) if told and has_success else None,
        "return": float(last.mean()),  # of the last episodes
        "return_interval": (returned.low, returned.high) if told else None,
        "first": float(mine[:, 0].mean()),
        "area": float(mine.mean()),  # mean over all episodes that it played, so fast improvement counts too
    }


def by_episode(score: Streams, strata: list[str] | None = None) -> dict[str, list[float]]:
    """The mean return of each episode and its 95 % interval over streams, limited to the range of observed returns."""
    found = [interval(returns, strata=strata) for returns in score.returns.T]
    low = np.maximum([one.low for one in found], score.returns.min(0))
    high = np.minimum([one.high for one in found], score.returns.max(0))
    return {"mean": [one.mean for one in found], "low": low.tolist(), "high": high.tolist()}


def by_task(names: list[str], score: Streams, best: Streams | None) -> dict[str, dict[str, float | None]]:
    """The scores of the headline's streams, for each task by its name."""
    found = {}
    for name in dict.fromkeys(names):
        mine = np.array(names) == name
        found[name] = {
            "streams": int(mine.sum()),
            "return": float(score.last[mine].mean()),
            "found": float(score.found[mine].mean()),
            "best": None if best is None else float(best.last[mine].mean()),
        }
    return found


def table(record: dict[str, Any], headline: str) -> Group:
    """The tables that the console shows: the learning curve, the totals, and each task."""
    named = {name: f"{headline}, {name}" if name in ("sampled", "greedy") else name for name in record["scores"]}
    digits = 1 if max(max(values["mean"]) for values in record["by_episode"].values()) >= LARGE else 2
    policy_episodes = record["episodes_per_task"] - record["primed"]  # episodes that the policy played itself
    tables = [_curve(record, named, policy_episodes, digits), _totals(record, named, policy_episodes)]
    if len(record["by_task"]) <= MANY_TASKS and len(record["by_task"]) < record["streams"]:
        tables.append(_tasks(record["by_task"], headline, digits))
    return Group(*tables)


def _curve(record: dict[str, Any], named: dict[str, str], policy_episodes: int, digits: int) -> Table:
    episodes, share = record["episodes_per_task"], record["seen_in_training"]
    held_out = f"{share:.0%} of them with a task of the training data" if record["trained_here"] else "not trained here"
    first = f"; the source plays the first {record['primed']}" if record["primed"] else ""
    few = range(episodes - policy_episodes + 1, episodes) if record["primed"] and policy_episodes < LAST else []
    shown = sorted({*(episode for episode in SHOWN if episode < episodes), *few, episodes})
    title = f"return by episode, {record['streams']} streams of {record['split']} tasks ({held_out}{first})"
    table = Table("", *map(str, shown), title=title, title_justify="left")
    for name, values in record["by_episode"].items():
        mean = values["mean"] * (episodes if len(values["mean"]) == 1 else 1)
        watched = record["primed"] if name in ("sampled", "greedy") else 0  # episodes that the policy did not play
        table.add_row(named[name], *(f"{mean[e - 1]:.{digits}f}" if watched < e <= len(mean) else "" for e in shown))
    return table


def _totals(record: dict[str, Any], named: dict[str, str], policy_episodes: int) -> Table:
    words = ("", f"last {min(LAST, policy_episodes)}", "95 %", "first", "all", "found")
    title = f"found: solved one of the last {min(FOUND, policy_episodes)} episodes"
    drawn = "streams of each task" if len(record["by_task"]) < record["streams"] else "streams, each with its own task"
    covers = f"95 %: over the {drawn}, for this one training seed"
    table = Table(*words, title=title, title_justify="left", caption=covers, caption_justify="left")
    for name, score in record["scores"].items():
        interval, found = "", ""  # an exact expectation has neither
        if score["return_interval"]:
            interval = "{:.2f} to {:.2f}".format(*score["return_interval"])
            found = "" if score["success"] is None else f"{score['success']:.1%}"
        table.add_row(named[name], f"{score['return']:.2f}", interval, f"{score['first']:.2f}", f"{score['area']:.2f}", found)
    return table


def _tasks(tasks: dict[str, dict[str, Any]], headline: str, digits: int) -> Table:
    table = Table(
        "task", "streams", "last", "best possible", "found", title=f"each task by itself, {headline}", title_justify="left"
    )
    for name, task in tasks.items():
        best = "" if task["best"] is None else f"{task['best']:.{digits}f}"
        table.add_row(name, str(task["streams"]), f"{task['return']:.{digits}f}", best, f"{task['found']:.0%}")
    return table
