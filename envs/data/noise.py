"""Noise on the executed action. The expert's action stays the label, so a policy sees how to recover from mistakes.

    none     no noise
    uniform  `env.data.noise` is the share of steps that execute a random action
    dart     every step adds a normal draw; its standard deviation is drawn once per episode, uniform up to `env.data.noise`
             (DART, Laskey et al. 2017, arXiv 1703.09327, with fixed amounts)
    burst    dart in bursts of 2 to 5 steps that push to one side, 6 to 13 steps apart. Between bursts the expert's own actions
             lead back, which gives whole chunks of actions that were executed as labelled

With several joined by +, the episode's seed chooses one for each episode; where tasks take turns, so that every task has all
of them. The noise is a function of the data's seed, the episode's seed and the step.
"""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.data.config import DataConfig
from envs.spaces import random_actions

QUIET, LOUD = (6, 14), (2, 6)  # steps of a gap and of a burst: the least, and one more than the most
LEAST = 1 / 7  # smallest standard deviation of a burst, as a share of the amount: weaker ones teach nothing


class Noise:
    """Draws the noise of the episodes `seeds` [E], of up to `max_steps` steps each."""

    def __init__(self, data: DataConfig, space: spaces.Space, seeds: np.ndarray, max_steps: int, tasks_in_turn: int = 1):
        kinds, shape = data.noise_kind.split("+"), (max_steps, *(space.shape or ()))
        self.space = space
        self.kept = np.ones((len(seeds), max_steps), bool)  # where the label is kept; elsewhere `added` replaces it
        self.added = np.zeros((len(seeds), *shape), space.dtype)
        for episode, seed in enumerate(seeds.tolist()):
            random = np.random.Generator(np.random.Philox(key=[data.seed, seed]))
            match kinds[seed // tasks_in_turn % len(kinds)]:
                case "uniform":
                    self.kept[episode] = random.random(max_steps) >= data.noise
                    drawn = random_actions(space, random.random(shape))
                    self.added[episode][~self.kept[episode]] = drawn[~self.kept[episode]]
                case "dart":
                    self.added[episode] = random.normal(0, random.uniform(0, data.noise), shape)
                case "burst":
                    self.added[episode] = _bursts(data.noise, shape, random)

    def executed(self, label: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        """The actions [n, *A] to execute instead of the labels [n, *A] at these steps [n] of these episodes [n]."""
        kept = self.kept[episode, step_index].reshape(-1, *[1] * (label.ndim - 1))
        action = np.where(kept, label, 0) + self.added[episode, step_index]
        return np.clip(action, self.space.low, self.space.high) if isinstance(self.space, spaces.Box) else action


def _bursts(amount: float, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    added, deviation = np.zeros(shape), random.uniform(LEAST * amount, amount)
    start = int(random.integers(0, QUIET[1] - QUIET[0]))
    while start < len(added):
        stop = start + int(random.integers(*LOUD))
        here = added[start:stop]
        here[:] = random.normal(0, deviation, shape[1:]) + random.normal(0, deviation / 2, here.shape)
        start = stop + int(random.integers(*QUIET))
    return added
