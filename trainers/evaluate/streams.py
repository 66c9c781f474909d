"""Streams: a policy with frozen weights plays many episodes of one task in a row and keeps its memory between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from conf.ranks import here
from envs.base import Family, Learner
from envs.play import ended_in
from policies.base import Policy
from policies.noise import Noise, Purpose, fold
from trainers.loop.processes import gathered

LAST = 10  # episodes whose mean return is the headline
FOUND = 5  # a stream counts as found if it solved one of this many last episodes

Progress = Callable[[int, int], None]


@dataclass
class Streams:
    """Results by stream [S] and episode [E]. References that do not change over episodes have one episode."""

    returns: np.ndarray  # [S, E]
    success: np.ndarray  # [S, E] bool
    lengths: np.ndarray  # [S, E]
    actions: dict[tuple[int, int], np.ndarray]  # (stream, episode) -> actions, for the kept ones
    policy_episodes: int = 1 << 30  # number of episodes at the end that the policy played itself
    expected: bool = False  # the returns are exact expectations: nothing was played, and the rest is unknown

    @property
    def last(self) -> np.ndarray:
        """Mean return [S] of the last episodes."""
        return self.returns[:, -min(LAST, self.policy_episodes) :].mean(1)

    @property
    def last_lengths(self) -> np.ndarray:
        return self.lengths[:, -min(LAST, self.policy_episodes) :].mean(1)

    @property
    def found(self) -> np.ndarray:
        return self.success[:, -min(FOUND, self.policy_episodes) :].sum(1) > 0


@dataclass(frozen=True)
class StreamSpec:
    """What is played: `episodes` episodes of each task, one lane per task, `num_envs` lanes at a time."""

    family: Family
    split: str
    tasks: np.ndarray  # [S]
    episodes: int
    num_envs: int
    primed: int = 0  # first episodes, which the source of the histories plays and the policy watches

    @property
    def policy_episodes(self) -> int:
        """The number of episodes that the policy plays."""
        return self.episodes - self.primed

    def vector(self, rows: np.ndarray) -> VectorEnv:
        return self.family.vector(len(rows), self.split, tasks=self.tasks[rows], episodes_per_task=self.episodes)

    def source(self, vector: VectorEnv, seed: int) -> Learner:
        """The learner that the policy watches first. It draws for all lanes at once, so its episodes depend on `num_envs`."""
        alone = [source for source in self.family.config.data.learners if self.family.lanes_per_learner(source) == 1]
        random = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFF, Purpose.ACTING]))
        return self.family.learner(alone[0], vector, self.episodes, random)


def play(
    policy: Policy,
    spec: StreamSpec,
    greedy: bool,
    seed: int,
    device: torch.device,
    keep: int = 0,
    progress: Progress = lambda done, total: None,
) -> Streams:
    """Play everything that `spec` lists. Keep the actions of the first and the last episode of the first `keep` streams."""
    mine, streams = [], len(spec.tasks)
    num_envs = min(spec.num_envs, spec.family.max_lanes or spec.num_envs, -(-streams // here().count))
    for start in range(here().rank * num_envs, streams, here().count * num_envs):
        rows = np.arange(start, min(start + num_envs, streams))
        advance = partial(_advance, progress, start * spec.episodes, streams * spec.episodes)
        mine.append((start, _play(policy, spec, rows, greedy, fold(seed, Purpose.ACTING), device, keep, advance)))
    parts = [part for _, part in sorted((one for found in gathered(mine) for one in found), key=itemgetter(0))]
    returns, success, lengths = (np.concatenate([getattr(part, x) for part in parts]) for x in ("returns", "success", "lengths"))
    kept = {key: taken for part in parts for key, taken in part.actions.items()}
    return Streams(returns, success, lengths, kept, spec.policy_episodes)


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


@torch.inference_mode()
def _play(
    policy: Policy,
    spec: StreamSpec,
    rows: np.ndarray,
    greedy: bool,
    seed: int,
    device: torch.device,
    keep: int,
    advance: Callable[[int], None],
) -> Streams:
    """Play the streams `rows` side by side. A policy's random numbers depend on the stream and its step, not on the lane.
    `advance` is told how many episodes are done."""
    shape = (len(rows), spec.episodes)
    found = Streams(np.zeros(shape), np.zeros(shape, bool), np.zeros(shape), {})
    taken: dict[tuple[int, int], list[np.ndarray]] = {
        (int(row), index): [] for row in rows[rows < keep] for index in sorted({0, spec.episodes - 1})
    }
    vector = spec.vector(rows)
    observation, info = vector.reset()
    memory = policy.start(len(rows), device)
    source = spec.source(vector, seed + int(rows[0])) if spec.primed else None
    first = np.ones(len(rows), bool)
    space = spec.family.spaces.action
    idle = np.zeros((len(rows), *(space.shape or ())), space.dtype)  # [N, *A]
    told: dict[str, np.ndarray] = {
        "previous_action": idle.copy(),
        "previous_reward": np.zeros(len(rows), np.float32),
    }
    lanes, step, done = np.arange(len(rows)), 0, 0  # lanes that still play; their step; episodes that have ended
    while len(lanes):
        index = info["episode_index"][lanes] % spec.episodes
        # Of the episodes shown, the policy watches every k-th and the last, as in training.
        watches = (index >= spec.primed) | ((spec.primed - 1 - index) % policy.window.every == 0)
        awake = lanes[watches]
        action = idle.copy()
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
            now_playing = np.where(info["episode_index"] >= 0, info["episode_index"] % spec.episodes, -1)
            shown, _ = source.act(observation, now_playing)
            watched = (now_playing < spec.primed).reshape(-1, *[1] * (action.ndim - 1))
            action = np.where(watched, shown, action)
        for row, episode in taken:
            if info["episode_index"][row - rows[0]] == (row - rows[0]) * spec.episodes + episode:
                taken[row, episode].append(action[row - rows[0]])
        observation, reward, terminated, truncated, info = vector.step(action)
        if source:
            source.learn(ended_in(observation, info), reward, terminated, truncated)
        found.returns[lanes, index] += reward[lanes]
        found.lengths[lanes, index] += 1
        if spec.family.has_success:
            found.success[lanes, index] |= spec.family.success(reward, terminated, truncated, info)[lanes]
        told["previous_action"][awake], told["previous_reward"][awake] = action[awake], reward[awake]
        first, step = terminated | truncated, step + 1
        if first.any():
            advance(done := done + int(first.sum()))
        plays = info["episode_index"][lanes] >= 0
        if not plays.all():
            lanes, memory = lanes[plays], {name: value[torch.from_numpy(plays).to(device)] for name, value in memory.items()}
    vector.close()
    found.actions = {key: np.array(actions) for key, actions in taken.items()}
    return found
