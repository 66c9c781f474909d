"""BabyAI's bot as an expert: it solves its missions, recovers from slips, and its failures stop nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf.errors import BadRequest
from envs.data import record
from envs.minigrid import Config, MiniGrid
from envs.minigrid.family import MiniGridData
from envs.minigrid.missions import kind
from envs.play import ExpertPlayer, play
from envs.text import text


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
    envs = {lane: simulator.env for lane, simulator in vector._local.simulators.items()}
    boxes = [lane for lane, env in envs.items() if "box" in env.mission]
    assert boxes
    for lane in boxes:
        env = envs[lane]
        env.grid.grid = [None if thing is not None and thing.type == "box" else thing for thing in env.grid.grid]
    solved = np.zeros(60, bool)
    for _ in range(40):
        _, reward, terminated, truncated, info = vector.step(expert.act(vector))
        solved |= made.success(reward, terminated, truncated, info)
    assert not solved[boxes].any() and solved.sum() == 60 - len(boxes)


def test_a_bot_that_circles_gives_up():
    """In this layout it puts off each of two keys for the other."""
    made = MiniGrid(Config(id="BabyAI-UnlockToUnlock-v0", max_steps=60))
    played = play(ExpertPlayer(made), made, np.array([1_500_000_001]), 1)
    assert played.score.lengths.tolist() == [60] and not played.score.success.any()


def test_its_episodes_can_be_recorded(tmp_path: Path):
    made = MiniGrid(Config(id="BabyAI-GoToLocal-v0", data=MiniGridData(episodes=20)))
    data = record.dataset(made, made.config.data, "train", tmp_path)
    assert len(data.ends) == 20 and data.columns["terminated"][data.ends - 1].all()
    assert (data.observations["mission"][:, 0] > 0).all()


def test_processes_record_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("envs.minigrid.family.SHARED", 1)
    columns = []
    for workers in (0, 2):
        data = MiniGridData(episodes=20)
        made = MiniGrid(Config(id="BabyAI-GoToLocal-v0", max_steps=5, num_workers=workers, data=data))
        told: list[int] = []
        dataset = record.dataset(made, data, "train", tmp_path / str(workers), lambda done, total, told=told: told.append(done))
        assert 0 < dataset.meta["left_out"] < 20 and told == sorted(told) and told[-1] == 20
        columns.append({**dataset.columns, "ends": dataset.ends})
    assert all(np.array_equal(columns[0][name], columns[1][name]) for name in columns[0])


def test_episodes_in_which_it_failed_are_left_out(tmp_path: Path):
    made = MiniGrid(Config(id="BabyAI-GoToLocal-v0", max_steps=5, data=MiniGridData(episodes=20)))
    data = record.dataset(made, made.config.data, "train", tmp_path)
    assert data.meta["episodes"] == len(data.ends) == 20 - data.meta["left_out"]
    assert data.columns["terminated"][data.ends - 1].all() and (data.ends - data.starts).max() <= 5
    assert 0 < data.meta["expert"]["success"] == len(data.ends) / 20 < 1
    hopeless = MiniGrid(Config(id="BabyAI-BossLevel-v0", max_steps=2, data=MiniGridData(episodes=3)))
    with pytest.raises(BadRequest, match="failed in all of 3 episodes"):
        record.dataset(hopeless, hopeless.config.data, "train", tmp_path)


def test_success_is_told_by_kind_of_instruction():
    made = MiniGrid(Config(id="BabyAI-GoToLocal-v0"))
    seeds = made.seeds("test", 30)
    groups = made.groups(seeds)["instruction"]
    assert set(groups) == {"go to ball", "go to box", "go to key"}
    observation, _ = made.vector(30, seeds=seeds).reset()
    for kinds, mission in zip(groups, observation["mission"], strict=True):
        assert text(mission).endswith(kinds.split()[-1])
    assert MiniGrid(Config()).groups(seeds) == {}


@pytest.mark.parametrize(
    ("mission", "expected"),
    [
        ("go to the red ball", "go to ball"),
        ("pick up a box on your left", "pick up box"),
        ("put the grey key in front of you next to a door", "put key next to door"),
        ("open the door behind you", "open door"),
        ("go to the red ball, then open a door", "several"),
        ("pick up a key after you go to the box", "several"),
    ],
)
def test_a_kind_is_what_is_to_be_done_with_what(mission: str, expected: str):
    assert kind(mission) == expected


def test_detours_need_the_engine():
    config = Config(id="BabyAI-GoToLocal-v0", data=MiniGridData(detours=1))
    assert "env.data.detours is not available in BabyAI-GoToLocal-v0" in str(MiniGrid.accepts(config, "data"))


def test_ids_that_it_never_solves_have_no_expert():
    assert "no expert" in str(MiniGrid.accepts(Config(id="BabyAI-KeyInBox-v0"), "data"))
    assert MiniGrid.accepts(Config(id="BabyAI-BossLevel-v0"), "data") is None
