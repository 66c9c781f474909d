"""BabyAI's bot as an expert: it solves its missions, recovers from slips, and its failures stop nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.data import record
from envs.minigrid import Config, MiniGrid
from envs.minigrid.family import MiniGridData
from envs.play import ExpertPlayer, play


@pytest.mark.parametrize("id", ["BabyAI-GoToLocal-v0", "BabyAI-PickupLoc-v0", "BabyAI-PutNextLocal-v0", "BabyAI-UnlockLocal-v0"])
def test_it_solves_its_missions(id):
    made = MiniGrid(Config(id=id))
    assert play(ExpertPlayer(made), made, made.seeds("test", 8), 3).score.success.all()


def test_it_goes_on_after_slips():
    made, rng = MiniGrid(Config(id="BabyAI-GoToObj-v0")), np.random.default_rng(0)
    vector, expert, solved = made.vector(4, seeds=np.arange(8)), made.expert(), 0
    _, info = vector.reset()
    while (info["episode_index"] >= 0).any():
        actions = np.where(rng.random(4) < 0.3, rng.integers(0, 7, 4), expert.act(vector))
        _, reward, terminated, truncated, info = vector.step(actions)
        solved += int(made.success(reward, terminated, truncated, info).sum())
    assert solved == 8


def test_a_mission_that_cannot_be_solved_any_more_ends_at_the_limit():
    """The box that should be fetched is opened first, so it is gone."""
    made = MiniGrid(Config(id="BabyAI-PickupLoc-v0", max_steps=40))
    seeds = np.arange(60)
    vector, expert = made.vector(60, seeds=seeds), made.expert()
    vector.reset()
    boxes = [lane for lane in range(60) if "box" in vector.missions[lane]]
    assert boxes
    for lane in boxes:
        env = vector.envs[lane]
        env.grid.grid = [None if thing is not None and thing.type == "box" else thing for thing in env.grid.grid]
    solved = np.zeros(60, bool)
    for _ in range(40):
        _, reward, terminated, truncated, info = vector.step(expert.act(vector))
        solved |= made.success(reward, terminated, truncated, info)
    assert not solved[boxes].any() and solved.sum() == 60 - len(boxes)


def test_its_episodes_can_be_recorded(tmp_path: Path):
    made = MiniGrid(Config(id="BabyAI-GoToLocal-v0", data=MiniGridData(episodes=20)))
    data = record.dataset(made, made.config.data, "train", tmp_path)
    assert len(data.ends) == 20 and data.columns["terminated"][data.ends - 1].all()
    assert (data.observations["mission"][:, 0] > 0).all()


def test_ids_that_it_never_solves_have_no_expert():
    assert "no expert" in str(MiniGrid.accepts(Config(id="BabyAI-KeyInBox-v0"), "data"))
    assert MiniGrid.accepts(Config(id="BabyAI-BossLevel-v0"), "data") is None
