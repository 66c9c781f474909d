"""Play episodes with all processes of a run: each plays every n-th one, and all get all results.

A player's random numbers depend on the episode's number among all, so the results are those of a single process.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from conf.ranks import here
from envs import play as alone
from envs.base import Family, Score
from envs.play import Observation, Played, Player, Progress
from trainers.loop.processes import gathered


class Share:
    """Plays every n-th episode. It tells its player their numbers among all episodes."""

    def __init__(self, player: Player):
        self.player, self.by_halves = player, getattr(player, "by_halves", False)

    def start(self, vector: VectorEnv) -> None:
        self.player.start(vector)

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        return self.player.act(observation, lanes, episode * here().count + here().rank, step_index)


def play(
    player: Player,
    family: Family,
    seeds: np.ndarray,
    num_envs: int,
    keep: int = 0,
    progress: Progress = lambda done, total: None,
) -> Played:
    """As `envs.play.play`. Actions are kept by the first process alone, which makes the pictures."""
    rank, count = here().rank, here().count
    if count == 1 or len(seeds) < count:
        return alone.play(player, family, seeds, num_envs, keep, progress)
    mine = alone.play(Share(player), family, seeds[rank::count], -(-num_envs // count), -(-(keep - rank) // count), progress)
    parts = gathered(mine)
    success = _merged([part.score.success for part in parts if part.score.success is not None]) if family.has_success else None
    score = Score(success, _merged([part.score.returns for part in parts]), _merged([part.score.lengths for part in parts]))
    kept = {index * count + other: taken for other, part in enumerate(parts) for index, taken in part.actions.items()}
    return Played(score, kept if rank == 0 else {}, _merged([part.stopped for part in parts]))


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    merged = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    for rank, part in enumerate(parts):
        merged[rank :: len(parts)] = part
    return merged
