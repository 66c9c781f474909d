"""References for the streams of a policy: random play, the source of its histories, and the optimum or the expert."""

from __future__ import annotations

import numpy as np
import torch

from envs.base import Family, Score
from envs.data import histories
from envs.play import ExpertPlayer
from envs.play import play as play_once
from envs.spaces import random_actions
from policies.base import Memory, Policy, Window
from policies.noise import Noise, Purpose, fold
from trainers.evaluate.streams import Streams, StreamSpec, play


class RandomActions(Policy):
    """Acts uniformly at random."""

    memory_scope = "history"
    window = Window()

    def __init__(self, family: Family):
        super().__init__()
        self.space = family.spaces.action

    def start(self, num_envs: int, device: torch.device) -> Memory:
        return {}

    def act(
        self, observation: dict[str, torch.Tensor], memory: Memory, noise: Noise, greedy: bool = False
    ) -> tuple[torch.Tensor, Memory]:
        uniform = noise.uniform(*(self.space.shape or ())).numpy()  # references are played on the CPU
        return torch.from_numpy(random_actions(self.space, uniform)), memory


def references(spec: StreamSpec, seed: int) -> dict[str, Streams]:
    """Random play, the sources of the histories, and the optimum or else the expert, on exactly these tasks."""
    family, tasks = spec.family, spec.tasks
    scores = {}
    indices = range(spec.episodes if family.task_period > 1 else 1)  # with a period of 1, all episodes of a task are alike
    exact = [family.random_return(tasks, index) for index in indices]
    if exact[0] is None:
        scores["random"] = play(RandomActions(family), spec, False, fold(seed, Purpose.RANDOM_PLAY), torch.device("cpu"))
    else:
        returns = np.stack(exact, axis=1)  # type: ignore[arg-type]  # a family knows all of them or none
        scores["random"] = Streams(returns, np.zeros_like(returns, bool), np.zeros_like(returns), {}, spec.policy_episodes, True)
    data = family.config.data
    for number, source in enumerate(data.learners):
        played = pooled(family, tasks, family.lanes_per_learner(source))
        random = np.random.Generator(np.random.Philox(key=[seed, fold(Purpose.HEALTH, number)]))
        block = histories.play(family, source, played, data.episodes_per_history, random)
        shown = slice(0, spec.episodes)  # judge a longer history by as many episodes as the policy
        lengths = block["episode_length"].reshape(len(played), -1)[:, shown]
        policy_episodes = max(1, lengths.shape[1] - spec.primed)
        scores[source] = Streams(block["return"][:, shown], block["success"][:, shown], lengths, {}, policy_episodes)
    if best := [optimum for index in indices if (optimum := family.optimum(tasks, index)) is not None]:
        returns, success, lengths = (
            np.stack([getattr(one, x) for one in best], axis=1) for x in ("returns", "success", "lengths")
        )
        scores["optimum"] = Streams(returns, success, lengths, {}, spec.policy_episodes)
    elif family.accepts(family.config, needs="expert") is None:
        scores["expert"] = _once(play_once(ExpertPlayer(family), family, tasks, len(tasks)).score)
    return scores


def pooled(family: Family, tasks: np.ndarray, pool: int) -> np.ndarray:
    """The tasks of all lanes for learners that share `pool` neighbouring lanes: each task gets whole pools, with at least as many
    lanes as it has streams."""
    if pool == 1:
        return tasks
    _, first, count = np.unique(family.task_names(tasks), return_index=True, return_counts=True)
    return np.repeat(tasks[first], -(-count // pool) * pool)


def _once(score: Score) -> Streams:
    success = np.zeros(len(score.returns), bool) if score.success is None else score.success
    return Streams(score.returns[:, None], success[:, None], score.lengths[:, None], {})
