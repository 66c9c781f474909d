"""Tabular PPO (Schulman et al. 2017, arXiv 1707.06347): the source of published Dark Room histories.

One softmax table of logits and one of values for every learner. `pool` neighbouring histories feed one learner, as parallel
environments do: a pool of 100 is the published recipe, in which only 73 different learners exist and can be memorised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.darkroom.q_learning import draw
from envs.darkroom.rules import ACTIONS

DISCOUNT = 0.99
TRACE = 0.95  # of generalised advantage estimation
CLIP = 0.2
VALUE_SHARE = 0.5  # of the value loss
BETAS = (0.9, 0.999)  # of Adam


@dataclass
class Config:
    """`env.data.ppo.*`"""

    pool: int = 10  # histories that share one learner
    n_steps: int = 20  # steps between updates: 20 learns within ten episodes, 80 leaves the policy untouched for four
    epochs: int = 10  # gradient steps of an update
    lr: float = 0.1  # of Adam

    def __post_init__(self) -> None:
        for name in ("pool", "n_steps", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.pool > 1024:
            raise ValueError(f"pool must be at most 1024, got {self.pool}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


class PPO:
    """Whole batches without minibatches. Gradients of tables are sums over visits, so they are written out by hand."""

    def __init__(
        self,
        config: Config,
        states: int,
        state: Callable[[dict[str, np.ndarray]], np.ndarray],
        lanes: int,
        random: np.random.Generator,
    ) -> None:
        self.config, self.state, self.random = config, state, random
        learners = -(-lanes // config.pool)
        self.learner = np.arange(lanes) // config.pool  # [N]
        self.table = self.learner * states  # [N] first row of each lane's learner
        self.rows = learners * states
        self.logits = np.zeros((ACTIONS, self.rows), np.float32)  # actions first: sums over them run along the rows
        self.values = np.zeros(self.rows, np.float32)
        self.adam = [Adam(self.logits, config.lr), Adam(self.values, config.lr)]
        self.steps: list[tuple[np.ndarray, ...]] = []  # since the last update
        self._look_up()

    def act(self, observation: dict[str, np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = self.table + self.state(observation)
        action = draw(self.cumulated[:, row], self.random)
        logp = self.logp.take(action * self.rows + row)
        self.acted = row, action, logp, episode >= 0
        return action, logp

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        done = terminated | truncated  # a horizon is an end here, as in the published runs
        self.steps.append((*self.acted, reward, done))
        if len(self.steps) == self.config.n_steps:
            self._update(self.table + self.state(after))
            self.steps = []
            self._look_up()

    def _look_up(self) -> None:
        """The tables that acting reads."""
        self.logp = log_softmax(self.logits)  # [A, rows]
        self.cumulated = np.exp(self.logp).cumsum(0)

    def _update(self, after: np.ndarray) -> None:
        row, action, before, counted, reward, done = (np.stack(column) for column in zip(*self.steps, strict=True))  # [T, N]
        value = self.values[row]
        ahead, advantage = self.values[after], np.zeros_like(reward)
        running = np.zeros(reward.shape[1], np.float32)
        for t in reversed(range(len(reward))):
            surprise = reward[t] + np.float32(DISCOUNT) * np.where(done[t], 0, ahead) - value[t]
            running = surprise + np.float32(DISCOUNT * TRACE) * np.where(done[t], 0, running)
            advantage[t], ahead = running, value[t]
        target = (advantage + value)[counted]
        owner = np.broadcast_to(self.learner, row.shape)[counted]
        learners = self.learner[-1] + 1
        visits = np.maximum(np.bincount(owner, minlength=learners), 1).astype(np.float32)
        centred = advantage[counted] - (_sums(owner, advantage[counted], learners) / visits)[owner]
        spread = np.sqrt(_sums(owner, centred**2, learners) / np.maximum(visits - 1, 1)) + np.float32(1e-8)
        gain = centred / (spread * visits)[owner]  # each learner's own mean
        share = (VALUE_SHARE * 2 / visits)[owner]
        state, entry, before = row[counted], (action * self.rows + row)[counted], before[counted]
        for _ in range(self.config.epochs):
            logp = log_softmax(self.logits)
            ratio = np.exp(logp.take(entry) - before)
            inside = np.where(gain > 0, ratio < 1 + CLIP, ratio > 1 - CLIP)  # the clip: beyond it the gradient is zero
            pull = _sums(entry, gain * ratio * inside, self.logits.size).reshape(self.logits.shape)
            self.adam[0].step(np.exp(logp) * pull.sum(0) - pull)
            self.adam[1].step(_sums(state, share * (self.values[state] - target), self.rows))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(0)  # [A, rows]
    return shifted - np.log(np.exp(shifted).sum(0))


def _sums(owner: np.ndarray, values: np.ndarray, owners: int) -> np.ndarray:
    return np.bincount(owner, values, owners).astype(np.float32)


class Adam:
    def __init__(self, weights: np.ndarray, lr: float) -> None:
        self.weights, self.lr, self.steps = weights, lr, 0
        self.mean, self.square = np.zeros_like(weights), np.zeros_like(weights)

    def step(self, gradient: np.ndarray) -> None:
        """Changes the weights in place."""
        self.steps += 1
        for average, value, beta in ((self.mean, gradient, BETAS[0]), (self.square, gradient * gradient, BETAS[1])):
            average *= beta
            average += (1 - beta) * value
        rate = self.lr / (1 - BETAS[0] ** self.steps)
        self.weights -= rate * self.mean / (np.sqrt(self.square / (1 - BETAS[1] ** self.steps)) + 1e-8)
