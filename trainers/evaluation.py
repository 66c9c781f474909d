"""How good is a policy: success and return on held-out episodes, with intervals, beside what random play, the expert and
the optimum score on exactly the same episodes."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from envs.base import SPLITS, Family, Score
from policies.base import Policy
from trainers.records import bar
from trainers.rollout import ExpertPlayer, Player, PolicyPlayer, RandomPlayer, play

Z = 1.959964  # two-sided 95 %
RESAMPLES = 1000  # of the bootstrap
GAP = 6  # white pixels between the episodes of a film
FILMED = 200  # steps of an episode in the film; whoever wanders longer has been seen wandering


@dataclass
class Config:
    """`eval.*`: the final evaluation, and all of `mode=eval`."""

    episodes: int = 500  # ten episodes cannot tell .60 from .98; five hundred give +-1 to 4 points
    num_envs: int = 512  # lanes played at once
    split: str = "test"  # test | val | train
    decode: list[str] = field(default_factory=lambda: ["sampled", "greedy"])  # the first is the headline
    media: int = 4  # episodes in the GIF; 0 for none

    def __post_init__(self) -> None:
        if not 1 <= self.episodes <= 1_000_000:
            raise ValueError(f"episodes must be between 1 and 1000000, got {self.episodes}")
        if self.num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {self.num_envs}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split}")
        if sorted(self.decode) not in (["sampled"], ["greedy"], ["greedy", "sampled"]):
            raise ValueError(f"decode must be a list of sampled, greedy or both, got {self.decode}")
        if self.media < 0:
            raise ValueError(f"media must be at least 0, got {self.media}")


@dataclass
class Evaluation:
    """Everybody's score on the same episodes; `record` is what evaluation.json holds."""

    record: dict[str, Any]
    gif: bytes | None
    shape: tuple[int, int]


def evaluate(
    policy: Policy, family: Family, config: Config, training: np.ndarray | None, seed: int, device: torch.device
) -> Evaluation:
    """`training` are the episode seeds that the policy was trained on, if it was in this very environment: a test that repeats
    them is called what it is."""
    seeds = family.seeds(config.split, config.episodes)
    scores: dict[str, Score] = {}
    kept: dict[int, np.ndarray] = {}
    policy.eval()
    for decode in config.decode:
        player = PolicyPlayer(policy, decode == "greedy", seed, device)
        with bar(f"evaluate, {decode}", len(seeds)) as progress:
            played = play(player, family, config.split, seeds, config.num_envs, config.media, progress)
        scores[decode] = played.score
        kept = kept or played.actions
    references: dict[str, Player] = {"random": RandomPlayer(family, seed)}
    if family.accepts(family.config, needs_expert=True) is None:
        references["expert"] = ExpertPlayer(family)
    for name, reference in references.items():
        with bar(f"evaluate, {name}", len(seeds)) as progress:
            scores[name] = play(reference, family, config.split, seeds, config.num_envs, progress=progress).score
    if (optimum := family.optimum(seeds)) is not None:
        scores["optimum"] = optimum
    seen = np.zeros(len(seeds), bool) if training is None else family.seen_in_training(seeds, training)
    record = {
        "split": config.split,
        "episodes": len(seeds),
        "first_seed": int(seeds[0]),
        "trained_here": training is not None,
        "seen_in_training": float(seen.mean()),
        "scores": {name: summary(score) for name, score in scores.items()},
        # A mean over seen and unseen layouts could hide a policy that learned the seen ones by heart.
        "unseen_in_training": summary(select(scores[config.decode[0]], ~seen)) if seen.any() and not seen.all() else None,
        "per_episode": {
            "seen_in_training": seen,
            **{n: {"success": s.success, "return": s.returns, "length": s.lengths} for n, s in scores.items()},
        },
    }
    if not kept:
        return Evaluation(record, None, (0, 0))
    frames = side_by_side(family.render(seeds[: len(kept)], [kept[index][:FILMED] for index in range(len(kept))]))
    return Evaluation(record, encode_gif(frames), frames.shape[1:3])


def validate(policy: Policy, family: Family, episodes: int, seed: int, device: torch.device) -> Score:
    """What chooses `best` during training: the val split, sampled acting, no references."""
    policy.eval()
    seeds = family.seeds("val", episodes)
    return play(PolicyPlayer(policy, False, seed, device), family, "val", seeds, episodes).score


def select(score: Score, episodes: np.ndarray) -> Score:
    return Score(score.success[episodes], score.returns[episodes], score.lengths[episodes])


def summary(score: Score) -> dict[str, Any]:
    solved = score.success
    return {
        "episodes": len(solved),
        "success": float(solved.mean()),
        "success_interval": wilson(int(solved.sum()), len(solved)),
        "return": float(score.returns.mean()),
        "return_interval": bootstrap(score.returns),
        "steps_when_solved": float(score.lengths[solved].mean()) if solved.any() else None,
    }


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest near 0 and 1, where the usual one has no width."""
    share, z2n = successes / episodes, Z * Z / episodes
    middle = (share + z2n / 2) / (1 + z2n)
    half = Z / (1 + z2n) * math.sqrt(share * (1 - share) / episodes + z2n / (4 * episodes))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean, by resampling episodes."""
    random = np.random.Generator(np.random.Philox(0))
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def table(record: dict[str, Any], headline: str) -> Table:
    """The scores as people read them: the policy first, then what it should be compared with."""
    share = record["seen_in_training"]
    held_out = "all seen in training: nothing is held out" if share == 1 else f"{share:.1%} seen in training"
    if not record["trained_here"]:
        held_out = "of an environment that the policy was not trained in"
    shown = Table(title=f"{record['episodes']} {record['split']} episodes ({held_out})", title_justify="left")
    for name in ("", "success", "95 %", "return", "95 %", "steps"):
        shown.add_column(name, justify="left" if not name else "right")
    rows = [(f"{headline}, {name}" if name in ("sampled", "greedy") else name, score) for name, score in record["scores"].items()]
    if unseen := record["unseen_in_training"]:
        rows.insert(1, (f"  on the {unseen['episodes']} unseen", unseen))
    for name, score in rows:
        shown.add_row(
            name,
            f"{score['success']:.3f}",
            "{:.3f}-{:.3f}".format(*score["success_interval"]),
            f"{score['return']:.3f}",
            "{:.3f}-{:.3f}".format(*score["return_interval"]),
            "-" if score["steps_when_solved"] is None else f"{score['steps_when_solved']:.1f}",
        )
    return shown


def side_by_side(episodes: list[np.ndarray]) -> np.ndarray:
    """Several episodes' frames as one film [T,H,W,3]; the shorter ones hold their last frame."""
    longest = max(len(frames) for frames in episodes)
    held = [np.concatenate([frames, np.repeat(frames[-1:], longest - len(frames), axis=0)]) for frames in episodes]
    gap = ((0, 0), (0, 0), (0, GAP), (0, 0))
    return np.concatenate([np.pad(frames, gap, constant_values=255) for frames in held], axis=2)


def encode_gif(frames: np.ndarray, milliseconds: int = 150) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format="gif", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def save_media(evaluation: Evaluation, folder: Path) -> Path | None:
    if evaluation.gif is None:
        return None
    folder.mkdir(exist_ok=True)
    path = folder / "episodes.gif"
    path.write_bytes(evaluation.gif)
    return path
