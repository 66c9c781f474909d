"""The expert that searches: it knows only what it has seen, and still finds the goal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.data import record
from envs.minigrid import Config, MiniGrid
from envs.minigrid.codes import EMPTY, GOAL
from envs.minigrid.family import MiniGridData
from envs.play import ExpertPlayer, play

FOUR_ROOMS = "MiniGrid-FourRooms-v0"


def family(id: str = FOUR_ROOMS, **data) -> MiniGrid:
    return MiniGrid(Config(id=id, straight=True, data=MiniGridData(source="searcher", **data)))


@pytest.mark.parametrize("id", [FOUR_ROOMS, "MiniGrid-LavaCrossingS9N3-v0", "MiniGrid-Empty-Random-6x6-v0"])
def test_it_finds_the_goal_later_than_who_knows_it(id):
    made, seeds = family(id), np.arange(60)
    found, best = play(ExpertPlayer(made), made, seeds, 16).score, made.optimum(seeds)
    assert found.success.mean() > 0.95 and best.success.all()
    assert (found.lengths >= best.lengths).all()
    if id == FOUR_ROOMS:
        assert 1.3 * best.lengths.mean() < found.lengths.mean() < 2.5 * best.lengths.mean()


def test_a_goal_that_was_not_seen_changes_nothing():
    """In two worlds that differ only in the goal's place, the actions are the same until one of the goals is in view."""
    made = family()
    parted = 0
    for seed in range(12):
        vector, expert = made.vector(2, seeds=np.array([seed, seed])), made.expert()
        observation, _ = vector.reset()
        engine = vector.engine
        goal = np.flatnonzero(GOAL[engine.codes[1]])
        empty = np.flatnonzero(engine.codes[1] == EMPTY)
        away = empty[[np.abs(empty - goal[0]).argmax()]]
        lane = np.array([1])
        engine._write(lane, engine.home[lane] + goal, engine.codes[1, goal], np.array([EMPTY], np.uint8))
        engine._write(lane, engine.home[lane] + away, engine.codes[1, away], engine.codes[0, goal])
        vector.seeds[1] = vector.seeds[0]
        observation = vector._observe(slice(None))
        for _ in range(60):
            if (observation["grid"][..., 0] == 8).any():  # MiniGrid's number of the goal
                break
            action = expert.act(vector)
            assert action[0] == action[1]
            observation, _, terminated, truncated, _ = vector.step(action)
            assert not (terminated | truncated).any()
            parted += 1
    assert parted > 50


def test_what_it_remembers_is_what_the_observation_shows():
    made = family()
    vector, expert = made.vector(8, seeds=np.arange(8)), made.expert()
    observation, _ = vector.reset()
    expert.act(vector)
    visible = (observation["grid"][..., 0] != 0).sum((1, 2))  # 0: not seen
    inner = expert.seen[:, expert.inner].sum(1)
    assert (inner <= visible).all() and (inner > 0).all()
    before = expert.seen.copy()
    for _ in range(10):
        vector.step(expert.act(vector))
        assert (expert.seen >= before).all()
        before = expert.seen.copy()


@pytest.mark.slow
def test_actions_do_not_depend_on_the_lanes():
    made = family()
    one, many = (play(ExpertPlayer(made), made, np.arange(12), lanes, keep=12) for lanes in (1, 12))
    for episode in range(12):
        assert np.array_equal(one.actions[episode], many.actions[episode])


def test_its_episodes_can_be_recorded(tmp_path: Path):
    made = family(episodes=30)
    data = record.dataset(made, made.config.data, "train", tmp_path)
    assert len(data.ends) == 30 and data.columns["terminated"][data.ends - 1].mean() > 0.9


def test_worlds_with_doors_are_refused():
    sentence = MiniGrid.accepts(Config(id="MiniGrid-DoorKey-8x8-v0", data=MiniGridData(source="searcher")), "data")
    assert sentence is not None and "MiniGrid-FourRooms" in sentence
