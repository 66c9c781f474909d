"""Play episodes with a policy (or with random actions) in a vector environment, and count what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.base import Family, Score
from policies.base import Memory, Policy
from policies.noise import Noise, Purpose, fold

Observation = dict[str, np.ndarray]
Progress = Callable[[int, int], None]  # episodes done, episodes in all


@dataclass
class Played:
    score: Score
    actions: dict[int, np.ndarray]  # those of the episodes that were to be kept


class Player(Protocol):
    def start(self, vector: VectorEnv) -> None: ...

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """Actions [n] of the lanes [n] that still play, from their observations {name: [n, ...]}."""
        ...


class PolicyPlayer:
    """A policy as a player: it holds the lanes' memory and clears it where a new episode begins (one whose memory outlives
    episodes is played by `trainers/evaluate/streams.py`)."""

    def __init__(self, policy: Policy, greedy: bool, seed: int, device: torch.device):
        self.policy, self.greedy, self.device = policy, greedy, device
        self.seed = fold(seed, Purpose.ACTING)

    def start(self, vector: VectorEnv) -> None:
        self.fresh = self.policy.start(vector.num_envs, self.device)
        self.memory = {name: value.clone() for name, value in self.fresh.items()}

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, moment: np.ndarray) -> np.ndarray:
        lane, row, when = (torch.from_numpy(x).to(self.device) for x in (lanes, episode, moment))
        seen = {name: torch.from_numpy(value).to(self.device) for name, value in observation.items()}
        memory = {name: value[lane] for name, value in self.memory.items()}
        memory = _cleared(memory, {name: value[lane] for name, value in self.fresh.items()}, when == 0)
        # A draw belongs to an episode and a moment in it, not to the lane that happens to play it.
        action, memory = self.policy.act(seen, memory, Noise(self.seed, when, row), self.greedy)
        for name, value in memory.items():
            self.memory[name].index_copy_(0, lane, value)
        return action.cpu().numpy()


class RandomPlayer:
    """Uniformly random actions: the reference that every score is shown beside."""

    def __init__(self, family: Family, seed: int):
        self.space, self.seed = family.spaces.action, fold(seed, Purpose.RANDOM_PLAY)

    def start(self, vector: VectorEnv) -> None:
        pass

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, moment: np.ndarray) -> np.ndarray:
        noise = Noise(self.seed, torch.from_numpy(moment), torch.from_numpy(episode))
        if isinstance(self.space, spaces.Discrete):
            return (noise.uniform() * int(self.space.n)).long().numpy()
        assert isinstance(self.space, spaces.Box)
        return self.space.low + noise.uniform(*self.space.shape).numpy() * (self.space.high - self.space.low)


class ExpertPlayer:
    """The family's expert, who may look behind the observation."""

    def __init__(self, family: Family):
        self.expert = family.expert()

    def start(self, vector: VectorEnv) -> None:
        self.vector = vector

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, moment: np.ndarray) -> np.ndarray:
        return self.expert.act(self.vector)[lanes]


@torch.inference_mode()
def play(
    player: Player,
    family: Family,
    split: str,
    seeds: np.ndarray,
    num_envs: int,
    keep: int = 0,
    progress: Progress = lambda done, total: None,
) -> Played:
    """Exactly the episodes `seeds`, each once. The actions of the first `keep` are kept, to be rendered."""
    num_envs = min(num_envs, len(seeds))
    vector = family.vector(num_envs, split, seeds=seeds)
    observation, info = vector.reset()
    episode, moment = info["episode"], np.zeros(num_envs, np.int64)
    score = Score(np.zeros(len(seeds), bool), np.zeros(len(seeds)), np.zeros(len(seeds), np.int64))
    actions: dict[int, list[np.ndarray]] = {index: [] for index in range(min(keep, len(seeds)))}
    finished = 0
    player.start(vector)
    while len(lanes := np.flatnonzero(episode >= 0)):  # a lane that ran out of episodes costs nothing more
        chosen = player.act({name: x[lanes] for name, x in observation.items()}, lanes, episode[lanes], moment[lanes])
        for lane in np.flatnonzero(episode[lanes] < keep):
            actions[int(episode[lanes[lane]])].append(chosen[lane])
        action = np.zeros((num_envs, *chosen.shape[1:]), chosen.dtype)
        action[lanes] = chosen
        observation, reward, terminated, truncated, info = vector.step(action)
        played = episode[lanes]
        score.returns[played] += reward[lanes]
        score.lengths[played] += 1
        score.success[played] |= family.success(reward, terminated, truncated, info)[lanes]
        ended = terminated | truncated
        moment = np.where(ended, 0, moment + 1)
        episode = info["episode"]
        if ended.any():
            finished += int(ended[lanes].sum())
            progress(finished, len(seeds))
    vector.close()
    return Played(score, {index: np.array(taken) for index, taken in actions.items()})


def _cleared(memory: Memory, fresh: Memory, begins: torch.Tensor) -> Memory:
    """One masked write: lanes where an episode begins get the memory of a start."""
    return {name: torch.where(begins.view(-1, *[1] * (value.dim() - 1)), fresh[name], value) for name, value in memory.items()}
