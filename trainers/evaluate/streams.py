"""How good is a policy at getting better: many streams, each of many episodes of one held-out task, with frozen weights.

The score is the return by episode, beside what random play, the source of the histories and the optimum reach on exactly these
tasks. Intervals are over the streams of each task, as these tasks are what they are (over all streams, if each has a task of its
own): they say nothing about another training seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from rich.console import Group
from rich.table import Table

from envs.base import Family, Learner, Score
from envs.data import histories
from envs.play import ExpertPlayer, ended_in
from envs.play import play as play_once
from policies.base import Memory, Policy, Window
from policies.noise import Noise, Purpose, fold
from trainers.evaluate.episodes import Config, Evaluation
from trainers.evaluate.intervals import interval
from trainers.evaluate.pictures import Curve, curves, film
from trainers.record.records import bar, say

SHOWN = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)  # episodes in the table
LAST = 10  # episodes whose mean return is the headline
FOUND = 5  # a stream that solved one of so many last episodes has found out
MANY_TASKS = 16  # above which they are not listed one by one
VALIDATION = 20  # episodes of each stream that chooses the best checkpoint; their last ones count
LARGE = 5.0  # returns that one decimal tells apart
COLLAPSE = 0.8  # of the sampled return: greedy acting below it is worth a sentence
JUDGED_BY = ("return", "success")  # what chooses the best checkpoint, first things first

Progress = Callable[[int, int], None]


@dataclass
class Streams:
    """What happened, stream by stream [S] and episode by episode [E]. References that do not change have one episode."""

    returns: np.ndarray  # [S, E]
    success: np.ndarray  # [S, E] bool
    lengths: np.ndarray  # [S, E]
    actions: dict[tuple[int, int], np.ndarray]  # of (stream, episode): of those that were to be kept
    own: int = 1 << 30  # episodes at the end that the player played itself
    expected: bool = False  # an exact expectation of returns: nothing was played, and nothing else is known

    @property
    def last(self) -> np.ndarray:
        """Mean return [S] of the last episodes."""
        return self.returns[:, -min(LAST, self.own) :].mean(1)

    @property
    def last_lengths(self) -> np.ndarray:
        return self.lengths[:, -min(LAST, self.own) :].mean(1)

    @property
    def found(self) -> np.ndarray:
        return self.success[:, -min(FOUND, self.own) :].sum(1) > 0


@dataclass(frozen=True)
class Course:
    """What is played: so many episodes of each task, one lane a task, `num_envs` of them at a time."""

    family: Family
    split: str
    tasks: np.ndarray  # [S]
    episodes: int
    num_envs: int
    primed: int = 0  # episodes at first that the source of the histories plays, and the policy watches

    @property
    def own(self) -> int:
        """Episodes that the policy plays."""
        return self.episodes - self.primed

    def vector(self, rows: np.ndarray) -> VectorEnv:
        return self.family.vector(len(rows), self.split, tasks=self.tasks[rows], episodes_per_task=self.episodes)

    def source(self, vector: VectorEnv, seed: int) -> Learner:
        """Whom the policy watches first. It draws for all lanes at once, so what it shows a stream depends on `num_envs`."""
        alone = [source for source in self.family.config.data.learners if self.family.lanes_per_learner(source) == 1]
        random = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFF, Purpose.ACTING]))
        return self.family.learner(alone[0], vector, self.episodes, random)


def play(
    policy: Policy,
    course: Course,
    greedy: bool,
    seed: int,
    device: torch.device,
    keep: int = 0,
    progress: Progress = lambda done, total: None,
) -> Streams:
    """The whole course. Of the first `keep` streams, the actions of their first and last episodes are kept."""
    parts, streams = [], len(course.tasks)
    num_envs = min(course.num_envs, course.family.max_lanes or course.num_envs)
    for start in range(0, streams, num_envs):
        rows = np.arange(start, min(start + num_envs, streams))
        before = start * course.episodes
        parts.append(_play(policy, course, rows, greedy, fold(seed, Purpose.ACTING), device, keep))
        progress(before + len(rows) * course.episodes, streams * course.episodes)
    returns, success, lengths = (np.concatenate([getattr(part, x) for part in parts]) for x in ("returns", "success", "lengths"))
    kept = {key: taken for part in parts for key, taken in part.actions.items()}
    return Streams(returns, success, lengths, kept, course.own)


@torch.inference_mode()
def _play(policy: Policy, course: Course, rows: np.ndarray, greedy: bool, seed: int, device: torch.device, keep: int) -> Streams:
    """The streams `rows`, side by side. A policy's draw belongs to a stream and a step of it, not to the lane that plays it."""
    shape = (len(rows), course.episodes)
    found = Streams(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape), {})
    taken: dict[tuple[int, int], list[int]] = {
        (int(row), turn): [] for row in rows[rows < keep] for turn in sorted({0, course.episodes - 1})
    }
    vector = course.vector(rows)
    observation, info = vector.reset()
    memory = policy.start(len(rows), device)
    source = course.source(vector, seed + int(rows[0])) if course.primed else None
    first = np.ones(len(rows), bool)
    told: dict[str, np.ndarray] = {
        "previous_action": np.zeros(len(rows), np.int64),
        "previous_reward": np.zeros(len(rows), np.float32),
    }
    lanes, step = np.arange(len(rows)), 0  # those that still play; whoever is done never comes back
    while len(lanes):
        turn = info["episode_index"][lanes] % course.episodes
        # Of what is shown to it, it watches every k-th episode and the last one, as in training.
        watches = (turn >= course.primed) | ((course.primed - 1 - turn) % policy.window.every == 0)
        awake = lanes[watches]
        action = np.zeros(len(rows), np.int64)
        if len(awake):
            seen = {**observation, "first": first, **told}
            now = {name: torch.from_numpy(value[awake]).to(device) for name, value in seen.items()}
            noise = Noise(seed, step, torch.from_numpy(rows[awake]).to(device))
            kept = torch.from_numpy(watches).to(device)
            part = memory if watches.all() else {name: value[kept] for name, value in memory.items()}
            chosen, part = policy.act(now, part, noise, greedy)
            action[awake] = chosen.cpu().numpy()
            memory = part if watches.all() else {name: value.index_put((kept,), part[name]) for name, value in memory.items()}
        if source:
            now_playing = np.where(info["episode_index"] >= 0, info["episode_index"] % course.episodes, -1)
            shown, _ = source.act(observation, now_playing)
            action = np.where(now_playing < course.primed, shown, action)
        for row, episode in taken:
            if info["episode_index"][row - rows[0]] == (row - rows[0]) * course.episodes + episode:
                taken[row, episode].append(int(action[row - rows[0]]))
        observation, reward, terminated, truncated, info = vector.step(action)
        if source:
            source.learn(ended_in(observation, info), reward, terminated, truncated)
        found.returns[lanes, turn] += reward[lanes]
        found.lengths[lanes, turn] += 1
        if course.family.has_success:
            found.success[lanes, turn] |= course.family.success(reward, terminated, truncated, info)[lanes]
        told["previous_action"][awake], told["previous_reward"][awake] = action[awake], reward[awake]
        first, step = terminated | truncated, step + 1
        plays = info["episode_index"][lanes] >= 0
        if not plays.all():
            lanes, memory = lanes[plays], {name: value[torch.from_numpy(plays).to(device)] for name, value in memory.items()}
    vector.close()
    found.actions = {key: np.array(actions) for key, actions in taken.items()}
    return found


class RandomActions(Policy):
    """Uniformly random, whatever it is told."""

    memory_scope = "history"
    window = Window()

    def __init__(self, family: Family):
        super().__init__()
        self.count = int(family.spaces.action.n)  # type: ignore[attr-defined]

    def start(self, num_envs: int, device: torch.device) -> Memory:
        return {}

    def act(
        self, observation: dict[str, torch.Tensor], memory: Memory, noise: Noise, greedy: bool = False
    ) -> tuple[torch.Tensor, Memory]:
        return (noise.uniform() * self.count).long(), memory


def references(course: Course, seed: int) -> dict[str, Streams]:
    """Random play, whoever the histories come from, and the best there can be, on exactly these tasks."""
    family, tasks = course.family, course.tasks
    scores = {}
    turns = range(course.episodes if family.task_period > 1 else 1)  # elsewhere one episode stands for all
    exact = [family.random_return(tasks, turn) for turn in turns]
    if exact[0] is None:
        scores["random"] = play(RandomActions(family), course, False, fold(seed, Purpose.RANDOM_PLAY), torch.device("cpu"))
    else:
        returns = np.stack(exact, axis=1)  # type: ignore[arg-type]  # a family knows all of them or none
        scores["random"] = Streams(returns, np.zeros_like(returns, bool), np.zeros_like(returns), {}, course.own, True)
    data = family.config.data
    for number, source in enumerate(data.learners):
        played = pooled(family, tasks, family.lanes_per_learner(source))
        random = np.random.Generator(np.random.Philox(key=[seed, fold(Purpose.HEALTH, number)]))
        block = histories.play(family, source, played, data.episodes_per_history, random)
        shown = slice(0, course.episodes)  # a longer history is judged by what the policy is judged by
        lengths = block["episode_length"].reshape(len(played), -1)[:, shown]
        own = max(1, lengths.shape[1] - course.primed)
        scores[source] = Streams(block["return"][:, shown], block["success"][:, shown], lengths, {}, own)
    if best := [optimum for turn in turns if (optimum := family.optimum(tasks, turn)) is not None]:
        returns, success, lengths = (
            np.stack([getattr(one, x) for one in best], axis=1) for x in ("returns", "success", "lengths")
        )
        scores["optimum"] = Streams(returns, success, lengths, {}, course.own)
    elif family.accepts(family.config, needs="expert") is None:
        scores["expert"] = _once(play_once(ExpertPlayer(family), family, tasks, len(tasks)).score)
    return scores


def pooled(family: Family, tasks: np.ndarray, pool: int) -> np.ndarray:
    """The tasks for learners that learn `pool` neighbouring lanes together: whole pools, as many a task as it has streams."""
    if pool == 1:
        return tasks
    _, first, count = np.unique(family.task_names(tasks), return_index=True, return_counts=True)
    return np.repeat(tasks[first], -(-count // pool) * pool)


def _once(score: Score) -> Streams:
    success = np.zeros(len(score.returns), bool) if score.success is None else score.success
    return Streams(score.returns[:, None], success[:, None], score.lengths[:, None], {})


def evaluate(
    policy: Policy, family: Family, config: Config, training: np.ndarray | None, seed: int, device: torch.device
) -> Evaluation:
    tasks, episodes = family.seeds(config.split, config.episodes), config.episodes_per_task
    course = Course(family, config.split, tasks, episodes, config.num_envs, config.primed)
    scores: dict[str, Streams] = {}
    policy.eval()
    for decode in config.decode:
        with bar(f"evaluate, {decode}", len(tasks) * episodes) as progress:
            scores[decode] = play(policy, course, decode == "greedy", seed, device, (config.media + 1) // 2, progress)
    headline = scores[config.decode[0]]
    scores |= references(course, seed)
    if config.decode[0] == "greedy" and not config.primed:
        say("warning: the first of eval.decode is greedy: exploring is a distribution, and its most likely action walks one way")
    if {"sampled", "greedy"} <= scores.keys() and scores["greedy"].last.mean() < COLLAPSE * scores["sampled"].last.mean():
        say(
            f"warning: greedy acting reaches {scores['greedy'].last.mean():.2f} where sampling reaches "
            f"{scores['sampled'].last.mean():.2f}: exploring is a distribution, and its most likely action walks one way for ever"
        )
    seen = np.zeros(len(tasks), bool) if training is None else family.seen_in_training(tasks, training)
    names = family.task_names(tasks)

    def strata_of(score: Streams) -> list[str] | None:
        return names if len(score.returns) == len(names) else None  # a source may play other streams

    record = {
        "headline": "return",  # what a table of many runs shows
        "split": config.split,
        "streams": len(tasks),
        "episodes_per_task": episodes,
        "primed": config.primed,
        "first_seed": int(tasks[0]),
        "trained_here": training is not None,
        "seen_in_training": float(seen.mean()),
        "scores": {name: summary(score, strata_of(score), family.has_success) for name, score in scores.items()},
        "by_episode": (lines := {name: by_episode(score, strata_of(score)) for name, score in scores.items()}),
        "task_of_stream": names,
        "by_task": by_task(names, headline, scores.get("optimum") or scores.get("expert")),
        "per_episode": {  # of each stream, over its last episodes
            name: {"success": score.found, "return": score.last, "length": score.last_lengths}
            for name, score in scores.items()
            if len(score.returns) == len(tasks) and not score.expected
        },
    }
    shown_curves = {name: Curve(**line) for name, line in lines.items()}
    pictures = [curves(shown_curves, f"return by episode, {len(tasks)} streams of {config.split} tasks")]
    if config.media:
        shown = list(headline.actions)[: config.media]
        turns = np.array([turn for _, turn in shown])
        films = family.render(tasks[[row for row, _ in shown]], [headline.actions[key] for key in shown], turns)
        if films is None:
            say(f"no pictures of episodes: {type(family).__name__} does not render (eval.media=0 leaves them out)")
        else:
            pictures.append(film(films))
    return Evaluation(record, pictures)


def validate(policy: Policy, family: Family, streams: int, seed: int, device: torch.device) -> Score:
    """What chooses `best` during training: the last episodes of short streams of val tasks, sampled."""
    policy.eval()
    episodes = -(-VALIDATION // family.task_period) * family.task_period
    played = play(policy, Course(family, "val", family.seeds("val", streams), episodes, streams), False, seed, device)
    return Score(played.found, played.returns[:, -FOUND:].mean(1), played.lengths[:, -FOUND:].mean(1))


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
