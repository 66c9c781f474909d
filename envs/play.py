"""Play dealt episodes in a vector environment. Recording, references and evaluation all use this loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.base import Family, Score
from envs.processes import ProcessVector
from envs.vector import DealtVector

Observation = dict[str, np.ndarray]
Progress = Callable[[int, int], None]  # episodes done, episodes in all


class Step(NamedTuple):
    """One step of all lanes [N], or of half of them."""

    lanes: np.ndarray  # [N]
    observation: Observation  # before the action
    episode: np.ndarray  # [N] index into the dealt episodes; -1 in a lane that has run out
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, Any]
    after: Observation  # the state that the step led to; where the episode ended, its last observation, not the next one's first

    @property
    def done(self) -> np.ndarray:
        return self.terminated | self.truncated


def steps(vector: VectorEnv, act: Callable[[Observation, np.ndarray], np.ndarray]) -> Iterator[Step]:
    """Step until every lane has run out of episodes, then close. `act(observation, episode)` returns the actions of all lanes."""
    if isinstance(vector, DealtVector):
        vector.stack_final_obs = True
    observation, info = vector.reset()
    lanes = np.arange(vector.num_envs)
    while ((episode := info["episode_index"]) >= 0).any():
        action = act(observation, episode)
        following, reward, terminated, truncated, info = vector.step(action)
        yield Step(lanes, observation, episode, action, reward, terminated, truncated, info, ended_in(following, info))
        observation = following
    vector.close()


def steps_by_halves(vector: ProcessVector, act: Callable[[np.ndarray, Observation, np.ndarray], np.ndarray]) -> Iterator[Step]:
    """As `steps`, of one half of the lanes after the other: the workers step one half while `act(lanes, observation, episode)`
    thinks about the other. It returns actions of all lanes, whatever they are in the half that it was not asked about."""
    vector.stack_final_obs = True
    observation, info = vector.reset()
    seen = [{name: array[lanes] for name, array in observation.items()} for lanes in vector.halves]
    episodes = [info["episode_index"][lanes] for lanes in vector.halves]
    actions = [np.empty(0)] * 2
    stepping: int | None = None  # the half that the workers step

    def finished(half: int) -> Step:
        following, reward, terminated, truncated, info = vector.finish_step(half)
        lanes, before, episode = vector.halves[half], seen[half], episodes[half]
        seen[half], episodes[half] = following, info["episode_index"]
        return Step(lanes, before, episode, actions[half], reward, terminated, truncated, info, ended_in(following, info))

    for half in itertools.cycle((0, 1)):
        plays = bool((episodes[half] >= 0).any())
        if plays:
            action = act(vector.halves[half], seen[half], episodes[half])
            actions[half] = action[vector.halves[half]]
        if stepping is not None:
            yield finished(stepping)
        stepping = half if plays else None
        if plays:
            vector.begin_step(action, half)
        elif not any((episode >= 0).any() for episode in episodes):
            break
    vector.close()


def ended_in(observation: Observation, info: dict[str, Any]) -> Observation:
    """The observation that a step led to. Where the next episode has begun, it is the last observation of the one that ended."""
    final = info.get("final_obs", observation)
    if isinstance(final, dict):
        return final
    after = {name: array.copy() for name, array in observation.items()}
    for lane in np.flatnonzero(info["_final_obs"]):
        for name, value in final[lane].items():
            after[name][lane] = value
    return after


def succeeded(family: Family, step: Step) -> np.ndarray:
    """Which lanes [N] have just solved their episode; none in a family that does not define success."""
    if not family.has_success:
        return np.zeros(len(step.reward), bool)
    return family.success(step.reward, step.terminated, step.truncated, step.info)


class Player(Protocol):
    """A player that asks the vector environment nothing after `start` may say so by an attribute `by_halves = True`."""

    def start(self, vector: VectorEnv) -> None: ...

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        """Actions [n] for the lanes [n] that still play, from their observations {name: [n, ...]}. `step_index` [n] counts the
        steps of each episode from 0."""
        ...


class ExpertPlayer:
    """The family's expert, which may use the simulator's full state."""

    def __init__(self, family: Family):
        self.expert = family.expert()

    def start(self, vector: VectorEnv) -> None:
        self.vector = vector

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        return self.expert.act(self.vector)[lanes]


class ConstantPlayer:
    """The same action at every step, such as doing nothing."""

    def __init__(self, action: Any):
        self.action = action

    def start(self, vector: VectorEnv) -> None: ...

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(self.action)] * len(lanes))


@dataclass
class Played:
    score: Score
    actions: dict[int, np.ndarray]  # index of a kept episode -> its actions
    stopped: np.ndarray  # [E] bool: the player chose an action that is not finite, and later steps did not count


def play(
    player: Player,
    family: Family,
    seeds: np.ndarray,
    num_envs: int,
    keep: int = 0,
    progress: Progress = lambda done, total: None,
) -> Played:
    """Play each of the episodes `seeds` once. Keep the actions of the first `keep` episodes, for rendering.

    An action that is not finite stops its episode. The episode counts as not solved, with the return it had so far."""
    num_envs = min(num_envs, len(seeds), family.max_lanes or num_envs)
    vector = family.vector(num_envs, seeds=seeds)
    success = np.zeros(len(seeds), bool) if family.has_success else None
    score = Score(success, np.zeros(len(seeds)), np.zeros(len(seeds), np.int64))
    actions: dict[int, list[np.ndarray]] = {index: [] for index in range(min(keep, len(seeds)))}
    finished, step_index = 0, np.zeros(num_envs, np.int64)
    stopped = np.zeros(len(seeds), bool)
    space = family.spaces.action
    neutral = np.zeros_like(space.low).clip(space.low, space.high) if isinstance(space, spaces.Box) else 0
    player.start(vector)

    def act(lanes: np.ndarray, observation: Observation, episode: np.ndarray) -> np.ndarray:
        playing = episode >= 0  # the player is not asked about lanes that have run out of episodes
        lanes, episode = lanes[playing], episode[playing]
        chosen = player.act({name: x[playing] for name, x in observation.items()}, lanes, episode, step_index[lanes])
        finite = np.isfinite(chosen).reshape(len(chosen), -1).all(1)
        if not finite.all():  # the lane plays a neutral action until its episode ends, because the other lanes go on
            stopped[episode[~finite]] = True
            chosen = np.where(finite.reshape(-1, *[1] * (chosen.ndim - 1)), chosen, neutral).astype(chosen.dtype)
        for row in np.flatnonzero((episode < keep) & ~stopped[episode]):
            actions[int(episode[row])].append(chosen[row])
        action = np.repeat(chosen[:1], num_envs, axis=0)  # idle lanes get any valid action; it has no effect
        action[lanes] = chosen
        return action

    if isinstance(vector, ProcessVector) and vector.halves and getattr(player, "by_halves", False):
        played = steps_by_halves(vector, act)
    else:
        played = steps(vector, partial(act, np.arange(num_envs)))
    for step in played:
        playing = (step.episode >= 0) & ~stopped[step.episode]
        episode = step.episode[playing]
        score.returns[episode] += step.reward[playing]
        score.lengths[episode] += 1
        if success is not None:
            success[episode] |= succeeded(family, step)[playing]
        step_index[step.lanes] = np.where(step.done, 0, step_index[step.lanes] + 1)
        if step.done.any():
            finished += int(step.done[step.episode >= 0].sum())
            progress(finished, len(seeds))
    return Played(score, {index: np.array(taken) for index, taken in actions.items()}, stopped)
