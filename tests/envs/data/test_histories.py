"""Recorded histories are complete, in order, the same for the same recipe, and have the figures that collect shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs import minigrid
from envs.base import DataConfig
from envs.darkroom import Config, DarkRoom
from envs.darkroom.family import Data
from envs.data.histories import describe
from envs.data.record import dataset
from envs.data.store import Dataset


def test_every_learner_gets_a_history_at_least():
    assert Data(source="explorer+ppo").histories(50) == (2, 25)
    assert Data(source="explorer").histories(39) == (1, 39)
    assert Data(source="explorer+ppo").histories(400) == (10, 40)


def recorded(root: Path, game: str = "room", split: str = "train", **data) -> Dataset:
    family = DarkRoom(Config(game=game, data=Data(**{"val_episodes": 40, **data})))
    return dataset(family, family.config.data, split, root)


@pytest.mark.parametrize("game", ["room", "key_to_door"])
def test_a_history_is_one_task_replayed(tmp_path, monkeypatch, game):
    """For any block size, playing the recorded actions again gives the recorded rewards."""
    monkeypatch.setattr(DarkRoom, "record_batch", 100)
    data = recorded(tmp_path, game, episodes=130, episodes_per_history=10)
    assert (len(data.history_ends), len(data.ends), data.meta["histories"]) == (13, 130, 13)
    assert np.array_equal(data.history_ends, data.ends[9::10]) and data.history_ends[-1] == len(data)
    family = DarkRoom(Config(game=game))
    starts = np.concatenate([[0], data.history_ends[:-1]])
    for history, (start, end) in enumerate(zip(starts, data.history_ends, strict=True)):
        vector = family.vector(1, tasks=family.seeds("train", 13)[history : history + 1], episodes_per_task=10)
        observation, _ = vector.reset()
        for step in range(start, end):
            for name, column in data.observations.items():
                assert np.array_equal(observation[name][0], column[step])
            observation, reward, terminated, truncated, _ = vector.step(data.columns["action"][step : step + 1])
            played = reward[0], terminated[0], truncated[0]
            assert played == tuple(data.columns[name][step] for name in ("reward", "terminated", "truncated"))
    assert data.meta["expert"]["return"] == pytest.approx(data.columns["reward"].sum() / 130)
    assert np.mean(data.meta["return_by_episode"]) == pytest.approx(data.meta["expert"]["return"])


def test_histories_are_a_function_of_the_recipe(tmp_path):
    few = {"episodes": 400, "episodes_per_history": 10}
    assert recorded(tmp_path / "a", **few).fingerprint == recorded(tmp_path / "b", **few).fingerprint
    others = [{"seed": 1}, {"source": "ppo"}, {"episodes_per_history": 20}, {"source": "q_learning"}]
    found = {recorded(tmp_path / "a", **few | other).folder for other in [{}, *others]}
    assert len(found) == 5 and len({Dataset(folder).fingerprint for folder in found}) == 5
    pool = replace(Data().ppo, pool=5)
    assert recorded(tmp_path / "a", **few, ppo=pool).folder in found, "what the explorer does not read makes no new dataset"
    assert recorded(tmp_path / "a", **few, source="ppo", ppo=pool).folder not in found
    assert recorded(tmp_path / "a", split="val", **few).folder not in found


def test_sources_share_a_dataset_in_equal_parts(tmp_path):
    data = recorded(tmp_path, source="explorer+annealed_expert", episodes=300, episodes_per_history=10)
    logp = data.columns["logp"].reshape(30, 200)
    assert np.isnan(logp[:15]).any(1).all() and not np.isnan(logp[15:]).any()
    assert data.meta["floor_known"] == pytest.approx(1 - np.isnan(logp).mean())
    assert data.meta["floor"] == pytest.approx(-np.nanmean(logp), rel=1e-5)
    by_episode = -np.nanmean(logp.reshape(30, 10, 20), axis=(0, 2))
    assert data.meta["floor_by_episode"] == pytest.approx(by_episode.tolist(), rel=1e-5)


def test_learners_of_a_pool_share_a_goal(tmp_path):
    data = recorded(tmp_path, source="ppo", episodes=600, episodes_per_history=20)
    paid = data.columns["reward"].reshape(30, 400) > 0
    position = data.observations["position"].reshape(30, 400, 2)
    goals = [{tuple(place) for place in _after(position[h], paid[h])} for h in range(30)]
    for pool in range(3):
        assert len(set.union(*goals[10 * pool : 10 * pool + 10])) <= 1


def _after(position: np.ndarray, paid: np.ndarray) -> np.ndarray:
    """The positions after the rewarded steps, as far as the same episode shows them."""
    inside = np.arange(len(paid)) % 20 != 19
    return position[np.flatnonzero(paid & inside) + 1]


def test_fewer_episodes_than_a_history_make_one_short_history(tmp_path):
    data = recorded(tmp_path, episodes=7)
    assert (data.meta["histories"], data.meta["episodes"]) == (1, 7)
    assert recorded(tmp_path, episodes=95).meta["episodes"] == 80, "and what is left over makes none"


def test_any_family_with_an_expert_has_annealed_histories(tmp_path):
    place = minigrid.MiniGrid(minigrid.Config(id="MiniGrid-Empty-5x5-v0", max_steps=30))
    data = DataConfig(source="annealed_expert", episodes=60, episodes_per_history=12)
    made = dataset(place, data, "train", tmp_path)
    assert len(made.history_ends) == 5 and len(made.ends) == 60
    returns = np.array(made.meta["return_by_episode"])
    assert returns[-2:].mean() > 0.8 > returns[:2].mean()
    assert made.meta["floor_by_episode"][0] == pytest.approx(np.log(7), abs=1e-5) and made.meta["floor_by_episode"][-1] == 0
    grid = made.observations["grid"]
    begin = made.starts.reshape(5, 12)
    assert all((grid[begin[h]] == grid[begin[h, 0]]).all() for h in range(5)), "every episode begins in the same layout"


def test_what_collect_says(tmp_path):
    data = recorded(tmp_path, episodes=800)
    words = describe(data.meta)
    for part in ("20 histories", "return by episode 1: ", "40: ", "entropy floor", "% of the actions whose probability is known"):
        assert part in words
    assert describe(recorded(tmp_path, source="expert", episodes=30).meta) == ""


@pytest.mark.parametrize(
    ("data", "values", "sentence"),
    [
        (
            DataConfig,
            {"source": "explorer"},
            "data.source must be one of expert, annealed_expert, the id of a Minari dataset, got explorer",
        ),
        (Data, {"source": "sarsa"}, "annealed_expert, the id of a Minari dataset, or several of explorer, "),
        (Data, {"source": "explorer+expert"}, "got explorer\\+expert"),
        (Data, {"episodes_per_history": 0}, "data.episodes_per_history must be between 1"),
        (Data, {"noise": 0.1}, "data.source=explorer explores by itself; data.noise and data.detours are for the expert"),
        (Data, {"detours": 1}, "data.source=explorer explores by itself; data.noise and data.detours are for the expert"),
        (DataConfig, {"detours": 101}, "data.detours must be between 0 and 100, got 101"),
    ],
)
def test_bad_values_are_sentences(data, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        data(**values)
