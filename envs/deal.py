"""Deal episodes to lanes, so that each listed episode is played exactly once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STRIDE = 1_000_000  # episodes between the beginnings of two endless streams


class Hand(NamedTuple):
    """The episodes dealt to some lanes; all -1 for a lane that has no episode left."""

    episode: np.ndarray  # [K] int64, the index into the dealt episodes
    seed: np.ndarray  # [K] int64, the episode seed
    task: np.ndarray  # [K] int64, the task; the episode seed where no tasks were listed


class Deal:
    """Lane k plays task k, then task k+N, ..., each task `episodes_per_task` times in a row.

    The list is divided among the lanes before anything is played, and a lane that finishes early idles. If free lanes took the
    next episode instead, short episodes would be over-represented. Without a list the stream is endless: seeds count up from
    `first` and start again at `stop`.
    """

    def __init__(
        self,
        num_envs: int,
        seeds: np.ndarray | None = None,
        tasks: np.ndarray | None = None,
        episodes_per_task: int = 1,
        first: int = 0,
        stop: int = 1 << 62,
    ) -> None:
        if episodes_per_task < 1:
            raise ValueError(f"episodes_per_task must be at least 1, got {episodes_per_task}")
        for name, listed in (("seeds", seeds), ("tasks", tasks)):
            if listed is not None and len(listed) == 0:
                raise ValueError(f"{name} must name at least one episode, got an empty list")
        self.seeds = None if seeds is None else np.asarray(seeds, np.int64)
        self.tasks = None if tasks is None else np.asarray(tasks, np.int64)
        if self.seeds is not None and self.tasks is not None and len(self.seeds) != len(self.tasks) * episodes_per_task:
            raise ValueError(
                f"seeds must name {len(self.tasks)} tasks x {episodes_per_task} episodes = "
                f"{len(self.tasks) * episodes_per_task} episodes, got {len(self.seeds)}"
            )
        self.num_envs = num_envs
        self.episodes_per_task = episodes_per_task
        self.first, self.stop = first, stop
        self.offset = 0  # from `first`, of an endless stream
        self.played = np.zeros(num_envs, np.int64)  # [N] episodes dealt to each lane so far

    @property
    def episodes(self) -> int | None:
        """The number of listed episodes; None for an endless stream."""
        if self.seeds is not None:
            return len(self.seeds)
        return None if self.tasks is None else len(self.tasks) * self.episodes_per_task

    def restart(self, seed: int | None = None) -> None:
        """Start the list again. An endless stream starts where `seed` says; without a seed it goes on."""
        if self.episodes is not None:
            self.played[:] = 0
        elif seed is not None:
            self.played[:] = 0
            self.offset = seed * STRIDE % (self.stop - self.first)

    def next(self, lanes: np.ndarray) -> Hand:
        """The next episode of each of these lanes [K]."""
        turn, repeat = np.divmod(self.played[lanes], self.episodes_per_task)
        index = turn * self.num_envs + lanes  # which task
        episode = index * self.episodes_per_task + repeat
        out = np.zeros(len(lanes), bool) if self.episodes is None else episode >= self.episodes
        self.played[lanes] += ~out
        episode = np.where(out, -1, episode)
        counted = self.first + (episode + self.offset) % (self.stop - self.first)
        seed = counted if self.seeds is None else self.seeds[episode]
        task = seed if self.tasks is None else self.tasks[np.where(out, -1, index)]
        return Hand(episode, np.where(out, -1, seed), np.where(out, -1, task))
