"""An action that is not finite stops its own episode and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import Config, Toy

from envs.play import ExpertPlayer, play
from policies import bc_mlp
from trainers.evaluate import episodes


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
