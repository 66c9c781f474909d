"""Evaluate how well a policy improves in context: many streams, each of many episodes of one held-out task, with frozen weights.

The score is the return by episode, beside the scores of random play, the source of the histories and the optimum on exactly these
tasks. The tasks are taken as given, so intervals are over the streams of each task (over all streams, if every stream has its own
task). They say nothing about another training seed.
"""

from __future__ import annotations

import numpy as np
import torch

from envs.base import Family, Score
from policies.base import Policy
from trainers.evaluate.base import Config, Evaluation, Evaluator
from trainers.evaluate.episodes import names_of
from trainers.evaluate.pictures import Curve, curves, film, labels_of
from trainers.evaluate.stream_references import references
from trainers.evaluate.stream_tables import by_episode, by_task, summary, table
from trainers.evaluate.streams import FOUND, Progress, Streams, StreamSpec, play
from trainers.record.records import bar, say

VALIDATION = 20  # episodes per stream of a validation, of which the last ones choose the best checkpoint
COLLAPSE = 0.8  # warn if greedy acting gets less than this share of the sampled return


def evaluate(
    policy: Policy, family: Family, config: Config, training: np.ndarray | None, seed: int, device: torch.device
) -> Evaluation:
    tasks, episodes = family.seeds(config.split, config.episodes), config.episodes_per_task
    spec = StreamSpec(family, config.split, tasks, episodes, config.num_envs, config.primed)
    scores: dict[str, Streams] = {}
    policy.eval()
    for decode in config.decode:
        with bar(f"evaluate, {decode}", len(tasks) * episodes) as progress:
            scores[decode] = play(policy, spec, decode == "greedy", seed, device, (config.media + 1) // 2, progress)
    headline = scores[config.decode[0]]
    if config.references:
        scores |= references(spec, seed)
    if config.decode[0] == "greedy" and not config.primed:
        say(
            "warning: the first of eval.decode is greedy. A policy explores by sampling; its most likely action mostly walks "
            "in one direction"
        )
    if {"sampled", "greedy"} <= scores.keys() and scores["greedy"].last.mean() < COLLAPSE * scores["sampled"].last.mean():
        say(
            f"warning: greedy acting reaches {scores['greedy'].last.mean():.2f} where sampling reaches "
            f"{scores['sampled'].last.mean():.2f}. A policy explores by sampling; its most likely action mostly walks in one "
            "direction"
        )
    seen = np.zeros(len(tasks), bool) if training is None else family.seen_in_training(tasks, training)
    names = family.task_names(tasks)

    def strata_of(score: Streams) -> list[str] | None:
        return names if len(score.returns) == len(names) else None  # a source may play another number of streams

    record = {
        "headline": "return",  # the score that a table of many runs shows
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
        "per_episode": {  # means of each stream's last episodes
            name: {"success": score.found, "return": score.last, "length": score.last_lengths}
            for name, score in scores.items()
            if len(score.returns) == len(tasks) and not score.expected
        },
    }
    shown_curves = {name: Curve(**line) for name, line in lines.items()}
    pictures = [curves(shown_curves, f"return by episode, {len(tasks)} streams of {config.split} tasks")]
    if config.media:
        shown = list(headline.actions)[: config.media]
        indices = np.array([index for _, index in shown])
        films = family.render(tasks[[row for row, _ in shown]], [headline.actions[key] for key in shown], indices)
        if films is None:
            say(f"no pictures of episodes: {type(family).__name__} does not render (eval.media=0 leaves them out)")
        else:
            labels = []
            for (row, index), key in zip(shown, shown, strict=True):
                end = f"return {headline.returns[row, index]:.2f}"
                labels.append(labels_of(headline.actions[key], names_of(family), f"episode {index + 1}", end))
            pictures.append(film(films, labels))
    return Evaluation(record, pictures)


def validate(
    policy: Policy, family: Family, streams: int, seed: int, device: torch.device, progress: Progress = lambda done, total: None
) -> Score:
    """The scores that choose `best` during training: the last episodes of short streams of val tasks, sampled."""
    policy.eval()
    episodes = -(-VALIDATION // family.task_period) * family.task_period
    spec = StreamSpec(family, "val", family.seeds("val", streams), episodes, streams)
    played = play(policy, spec, False, seed, device, progress=progress)
    return Score(played.found, played.returns[:, -FOUND:].mean(1), played.lengths[:, -FOUND:].mean(1))


EVALUATOR = Evaluator(("return", "success"), evaluate, validate, table)
