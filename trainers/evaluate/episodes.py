"""Evaluate a policy: success and return on held-out episodes, with intervals, beside the scores of random play, the expert and
the optimum on exactly the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Group
from rich.table import Table

from envs.base import Family, Score
from envs.play import ConstantPlayer, ExpertPlayer, Played, Player, Progress
from policies.base import Policy
from policies.noise import Noise, Purpose, fold
from trainers.evaluate.base import Config, Evaluation, Evaluator
from trainers.evaluate.intervals import interval
from trainers.evaluate.pictures import film, labels_of, unmasking
from trainers.evaluate.rollout import PolicyPlayer, RandomPlayer
from trainers.evaluate.shared import play
from trainers.record.records import bar, say

COVERS = "95 %: over these episodes, for this one training seed"
FILMED = 200  # most steps of an episode in the film


def evaluate(
    policy: Policy, family: Family, config: Config, training: np.ndarray | None, seed: int, device: torch.device
) -> Evaluation:
    """`training` are the episode seeds that the policy was trained on, if that was in this environment. The result says how many
    of the test episodes are among them."""
    seeds = family.seeds(config.split, config.episodes)
    scores: dict[str, Score] = {}
    kept: dict[int, np.ndarray] = {}
    stopped: dict[str, int] = {}
    policy.eval()
    for decode in config.decode if policy.samples else config.decode[:1]:
        player = PolicyPlayer(policy, decode == "greedy", seed, device)
        with bar(f"evaluate, {decode}", len(seeds)) as progress:
            played = play(player, family, seeds, config.num_envs, config.media, progress)
        scores[decode] = counted(played, decode)
        stopped[decode] = int(played.stopped.sum())
        kept = kept or played.actions
    for name, reference in references(family, seed).items() if config.references else ():
        with bar(f"evaluate, {name}", len(seeds)) as progress:
            scores[name] = play(reference, family.unobserved(), seeds, config.num_envs, progress=progress).score
    if (optimum := family.optimum(seeds)) is not None:
        scores["optimum"] = optimum
    within = family.success_within
    seen = np.zeros(len(seeds), bool) if training is None else family.seen_in_training(seeds, training)
    record: dict[str, Any] = {
        "split": config.split,
        "episodes": len(seeds),
        "first_seed": int(seeds[0]),
        "trained_here": training is not None,
        "seen_in_training": float(seen.mean()),
        "scores": {name: summary(score, within) for name, score in scores.items()},
        # A mean over seen and unseen layouts could hide that a policy memorised the seen ones.
        "unseen_in_training": summary(select(scores[config.decode[0]], ~seen), within) if seen.any() and not seen.all() else None,
        "groups": by_group(family.groups(seeds), scores),
        "per_episode": {
            "seen_in_training": seen,
            **{n: by_episode(score) for n, score in scores.items()},
        },
    }
    if any(stopped.values()):
        record["stopped_episodes"] = stopped
    if not family.has_success:
        record["headline"] = "return"  # the score that a table of many runs shows
    if not kept:
        return Evaluation(record, [])
    shown = seeds[: len(kept)]
    episodes = family.render(shown, [kept[index][:FILMED] for index in range(len(kept))])
    if episodes is None:
        say(f"no pictures: {type(family).__name__} does not render (eval.media=0 leaves them out)")
        return Evaluation(record, [])
    decode = config.decode[0]
    pictures = [film(episodes, [labels_of(kept[i][:FILMED], names_of(family), decode, end(scores[decode], i)) for i in kept])]
    if (rounds := first_plans(policy, family, config, shown, seed, device)) is not None:
        pictures += unmasking([frames[0] for frames in episodes], rounds, family.action_names)
    return Evaluation(record, pictures)


def names_of(family: Family) -> list[str]:
    """The names of the actions; none for continuous actions."""
    return family.action_names if isinstance(family.spaces.action, spaces.Discrete) else []


def end(score: Score, index: int) -> str:
    """How an episode ended, for the label of its last frame."""
    steps = int(score.lengths[index])
    if steps > FILMED:
        return f"{FILMED} of {steps} steps"
    return f"return {score.returns[index]:.2f}" if score.success is None else f"{'' if score.success[index] else 'not '}solved"


def references(family: Family, seed: int) -> dict[str, Player]:
    players: dict[str, Player] = {"random": RandomPlayer(family, seed)}
    if family.no_op is not None:
        players["no-op"] = ConstantPlayer(family.no_op)
    if family.accepts(family.config, needs="expert") is None:
        players["expert"] = ExpertPlayer(family)
    return players


@torch.inference_mode()
def first_plans(
    policy: Policy, family: Family, config: Config, seeds: np.ndarray, seed: int, device: torch.device
) -> np.ndarray | None:
    """The plans [K+1, N, H] that the first of `config.decode` made at the start of the episodes `seeds`, after each round."""
    vector = family.vector(len(seeds), seeds=seeds)
    observation = {name: torch.from_numpy(value).to(device) for name, value in vector.reset()[0].items()}
    vector.close()
    noise = Noise(fold(seed, Purpose.ACTING), 0, torch.arange(len(seeds), device=device))  # as PolicyPlayer draws at step 0
    rounds = policy.rounds(observation, noise, config.decode[0] == "greedy")
    return None if rounds is None else rounds.cpu().numpy()


def validate(
    policy: Policy, family: Family, episodes: int, seed: int, device: torch.device, progress: Progress = lambda done, total: None
) -> Score:
    """The scores that choose `best` during training: the val split, sampled acting, no references."""
    policy.eval()
    seeds = family.seeds("val", episodes)
    player = PolicyPlayer(policy, False, seed, device)
    return counted(play(player, family, seeds, episodes, progress=progress), "validation")


def counted(played: Played, name: str) -> Score:
    """The score, and a warning if episodes had to be stopped."""
    if count := int(played.stopped.sum()):
        say(
            f"warning: {count} of {len(played.stopped)} episodes ({name}) were stopped because the policy's action was not "
            "finite; they count as not solved. Its weights or its inputs are probably not finite: look at train/skipped, or "
            "lower trainer.optimizer.lr"
        )
    return played.score


def select(score: Score, episodes: np.ndarray) -> Score:
    success = None if score.success is None else score.success[episodes]
    return Score(success, score.returns[episodes], score.lengths[episodes])


def by_episode(score: Score) -> dict[str, Any]:
    success = [None] * len(score.returns) if score.success is None else score.success
    return {"success": success, "return": score.returns, "length": score.lengths}


def summary(score: Score, within: Sequence[int] = ()) -> dict[str, Any]:
    """Means with intervals over episodes alone; another training seed may lie outside them. For each number of steps in `within`,
    also the share of episodes solved within it."""
    solved = score.success
    success = None if solved is None else interval(solved, share=True)
    returned = interval(score.returns)
    return {
        "episodes": len(score.returns),
        "success": None if success is None else success.mean,
        "success_interval": None if success is None else (success.low, success.high),
        "return": returned.mean,
        "return_interval": (returned.low, returned.high),
        "steps_when_solved": float(score.lengths[solved].mean()) if solved is not None and solved.any() else None,
        **({} if solved is None or not within else {"success_within": solved_in(solved, score.lengths, within)}),
    }


def by_group(groups: dict[str, list[str]], scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    """{way to divide the episodes: {group: {"episodes": ..., player: its success, or its return where no success is known}}}."""
    found: dict[str, dict[str, Any]] = {}
    for division, labels in groups.items():
        for label in dict.fromkeys(labels):
            mine = np.array(labels) == label
            means = {
                name: float((score.returns if score.success is None else score.success)[mine].mean())
                for name, score in scores.items()
            }
            found.setdefault(division, {})[label] = {"episodes": int(mine.sum()), **means}
    return found


def solved_in(solved: np.ndarray, lengths: np.ndarray, within: Sequence[int]) -> dict[str, float]:
    return {str(steps): float((solved & (lengths <= steps)).mean()) for steps in within}


def tables(record: dict[str, Any], headline: str) -> Group:
    """The scores of all episodes, and then of every group of them."""
    return Group(table(record, headline), *(_groups(name, found) for name, found in record["groups"].items()))


def _groups(division: str, groups: dict[str, dict[str, Any]]) -> Table:
    players = [name for name in next(iter(groups.values())) if name != "episodes"]
    shown = Table(title=f"by {division}", title_justify="left")
    for name in ("", "episodes", *players):
        shown.add_column(name, justify="right" if name else "left")
    for label, found in groups.items():
        shown.add_row(label, str(found["episodes"]), *(f"{found[name]:.3f}" for name in players))
    return shown


def table(record: dict[str, Any], headline: str) -> Table:
    """The table that the console shows: the policy first, then its references."""
    share = record["seen_in_training"]
    held_out = "all of them seen in training: none is held out" if share == 1 else f"{share:.1%} seen in training"
    if not record["trained_here"]:
        held_out = "in an environment that the policy was not trained in"
    title = f"{record['episodes']} {record['split']} episodes ({held_out})"
    shown = Table(title=title, title_justify="left", caption=COVERS, caption_justify="left")
    within = list(next(iter(record["scores"].values())).get("success_within", ()))
    for name in ("", "success", "95 %", *(f"in {steps} steps" for steps in within), "return", "95 %", "steps"):
        shown.add_column(name, justify="left" if not name else "right")
    rows = [(f"{headline}, {name}" if name in ("sampled", "greedy") else name, score) for name, score in record["scores"].items()]
    if unseen := record["unseen_in_training"]:
        rows.insert(1, (f"  on the {unseen['episodes']} unseen", unseen))
    for name, score in rows:
        shown.add_row(
            name,
            "-" if score["success"] is None else f"{score['success']:.3f}",
            "-" if score["success"] is None else "{:.3f}-{:.3f}".format(*score["success_interval"]),
            *(f"{score['success_within'][steps]:.3f}" for steps in within),
            f"{score['return']:.3f}",
            "{:.3f} to {:.3f}".format(*score["return_interval"]),  # a hyphen before a minus sign would be hard to read
            "-" if score["steps_when_solved"] is None else f"{score['steps_when_solved']:.1f}",
        )
    return shown


EVALUATOR = Evaluator(("success", "return"), evaluate, validate, tables)
