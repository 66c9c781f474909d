"""Streams as numbers (evaluation.json) and as tables (the console)."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from trainers.evaluate.intervals import interval
from trainers.evaluate.streams import FOUND, LAST, Streams

SHOWN = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)  # episodes in the table
MANY_TASKS = 16  # above which they are not listed one by one
LARGE = 5.0  # returns that one decimal tells apart


def summary(score: Streams, strata: list[str] | None = None, has_success: bool = True) -> dict[str, Any]:
    last, found, mine, told = score.last, score.found, score.returns[:, -score.own :], not score.expected
    success, returned = interval(found, True, strata), interval(last, strata=strata)
    return {
        "streams": len(last),
        # Streams that found out: solved one of their last episodes.
        "success": float(found.mean()) if told and has_success else None,
        "success_interval": (success.low, success.high) if told and has_success else None,
        "return": float(last.mean()),  # of the last episodes
        "return_interval": (returned.low, returned.high) if told else None,
        "first": float(mine[:, 0].mean()),
        "area": float(mine.mean()),  # mean over all episodes that it played: how soon it gets good counts too
    }


def by_episode(score: Streams, strata: list[str] | None = None) -> dict[str, list[float]]:
    """The mean return of each episode and its 95 % interval over streams, no wider than what occurred."""
    found = [interval(returns, strata=strata) for returns in score.returns.T]
    low = np.maximum([one.low for one in found], score.returns.min(0))
    high = np.minimum([one.high for one in found], score.returns.max(0))
    return {"mean": [one.mean for one in found], "low": low.tolist(), "high": high.tolist()}


def by_task(names: list[str], score: Streams, best: Streams | None) -> dict[str, dict[str, float | None]]:
    """Of the headline's streams, for each hidden thing that they had to find."""
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
    """The learning curve, what it comes to, and each task by itself."""
    named = {name: f"{headline}, {name}" if name in ("sampled", "greedy") else name for name in record["scores"]}
    digits = 1 if max(max(values["mean"]) for values in record["by_episode"].values()) >= LARGE else 2
    own = record["episodes_per_task"] - record["primed"]  # episodes that the policy played itself
    tables = [_curve(record, named, own, digits), _totals(record, named, own)]
    if len(record["by_task"]) <= MANY_TASKS and len(record["by_task"]) < record["streams"]:
        tables.append(_tasks(record["by_task"], headline, digits))
    return Group(*tables)


def _curve(record: dict[str, Any], named: dict[str, str], own: int, digits: int) -> Table:
    episodes, share = record["episodes_per_task"], record["seen_in_training"]
    held_out = f"{share:.0%} of them with a task of the training data" if record["trained_here"] else "not trained here"
    first = f"; the source plays the first {record['primed']}" if record["primed"] else ""
    few = range(episodes - own + 1, episodes) if record["primed"] and own < LAST else []
    shown = sorted({*(episode for episode in SHOWN if episode < episodes), *few, episodes})
    title = f"return by episode, {record['streams']} streams of {record['split']} tasks ({held_out}{first})"
    table = Table("", *map(str, shown), title=title, title_justify="left")
    for name, values in record["by_episode"].items():
        mean = values["mean"] * (episodes if len(values["mean"]) == 1 else 1)
        watched = record["primed"] if name in ("sampled", "greedy") else 0  # these it did not play
        table.add_row(named[name], *(f"{mean[e - 1]:.{digits}f}" if watched < e <= len(mean) else "" for e in shown))
    return table


def _totals(record: dict[str, Any], named: dict[str, str], own: int) -> Table:
    words = ("", f"last {min(LAST, own)}", "95 %", "first", "all", "found")
    title = f"found: solved one of the last {min(FOUND, own)} episodes"
    drawn = "streams of each task" if len(record["by_task"]) < record["streams"] else "streams, each with a task of its own"
    covers = f"95 %: over the {drawn}, for this one training seed"
    table = Table(*words, title=title, title_justify="left", caption=covers, caption_justify="left")
    for name, score in record["scores"].items():
        interval, found = "", ""  # of an exact expectation
        if score["return_interval"]:
            interval = "{:.2f}-{:.2f}".format(*score["return_interval"])
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
