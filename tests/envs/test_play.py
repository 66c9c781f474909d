"""An action that is not finite stops its own episode and no other; workers step one half of the lanes while a player thinks about
the other."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from counting import SPACES, vector
from toy import Config, Toy

from envs.play import ExpertPlayer, play
from policies import act, bc_gru, bc_mlp
from trainers.evaluate import episodes
from trainers.evaluate.rollout import PolicyPlayer


class Breaks(ExpertPlayer):
    """The expert, except that its second action in the third episode is NaN."""

    def act(self, observation, lanes, episode, step_index):
        action = super().act(observation, lanes, episode, step_index).copy()
        action[(episode == 2) & (step_index == 1)] = np.nan
        return action


def test_the_episode_counts_as_not_solved():
    family = Toy(Config())
    seeds = family.seeds("test", 6)
    whole, broken = (play(kind(family), family, seeds, num_envs=2, keep=6) for kind in (ExpertPlayer, Breaks))
    assert whole.score.success.all() and not whole.stopped.any()
    assert broken.stopped.tolist() == [False, False, True, False, False, False]
    assert not broken.score.success[2] and broken.score.lengths[2] == 1 and len(broken.actions[2]) == 1
    others = np.arange(6) != 2
    assert np.array_equal(broken.score.lengths[others], whole.score.lengths[others]) and broken.score.success[others].all()


def test_it_is_counted_and_said(monkeypatch: pytest.MonkeyPatch):
    family, said = Toy(Config()), []
    policy = bc_mlp.BCMLP(bc_mlp.Config(), family.spaces)
    with torch.no_grad():
        policy.mlp[-1].bias.fill_(torch.nan)
    monkeypatch.setattr(episodes, "say", said.append)
    score = episodes.validate(policy, family, 4, 0, torch.device("cpu"))
    assert not score.success.any()
    assert len(said) == 1 and "4 of 4 episodes" in said[0] and "not finite" in said[0]


class Thinks:
    """Its actions follow from what it sees. For its first decisions it waits until the workers have stepped the other half."""

    def __init__(self, file: Path, by_halves: bool):
        self.file, self.by_halves, self.asked = file, by_halves, 0

    def start(self, vector: Any) -> None: ...

    def act(self, observation: Any, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        assert np.array_equal(observation["state"], np.stack([100 + episode, step_index], axis=1))
        until = time.monotonic() + 60
        while self.by_halves and self.asked < 4 and self._steps() < 2 * self.asked:
            assert time.monotonic() < until, "nothing happens while it thinks"
            time.sleep(0.001)
        self.asked += 1
        return (observation["state"].sum(1, keepdims=True) / 1000).astype(np.float32)

    def _steps(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0


def test_workers_step_one_half_while_the_player_thinks_about_the_other(tmp_path: Path):
    played = []
    for name in ("whole", "halves"):
        file = tmp_path / name
        family = SimpleNamespace(has_success=False, max_lanes=None, spaces=SPACES)
        family.vector = lambda lanes, seeds, file=file: vector(lanes, len(seeds), fault=str(file))
        played.append(play(Thinks(file, name == "halves"), cast(Any, family), np.arange(9), 4, keep=9))
    whole, halves = played
    assert np.array_equal(whole.score.returns, halves.score.returns) and whole.score.returns.all()
    assert whole.score.lengths.tolist() == halves.score.lengths.tolist() == [(100 + n) % 3 + 2 for n in range(9)]
    assert all(np.array_equal(whole.actions[index], halves.actions[index]) for index in range(9))


@pytest.mark.parametrize("policy", ["bc_gru", "act"])
def test_what_a_policy_remembers_belongs_to_its_lane_when_halves_are_played(policy: str):
    """Workers step halves; without workers, all lanes are stepped."""
    torch.manual_seed(0)
    made = bc_gru.BCGRU(bc_gru.Config(), SPACES) if policy == "bc_gru" else act.ACT(act.Config(execute=3), SPACES)
    player = PolicyPlayer(made.eval(), True, 0, torch.device("cpu"))
    played = []
    for workers in (0, 2):
        family = SimpleNamespace(has_success=False, max_lanes=None, spaces=SPACES)
        family.vector = lambda lanes, seeds, workers=workers: vector(lanes, len(seeds), workers)
        played.append(play(player, cast(Any, family), np.arange(9), 4, keep=9).actions)
    for index in range(9):
        np.testing.assert_allclose(*(actions[index] for actions in played), atol=1e-5)
