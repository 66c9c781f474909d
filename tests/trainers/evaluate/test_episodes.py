from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from envs.base import Family
from envs.minigrid import Config as MiniGridConfig
from envs.minigrid import MiniGrid
from envs.play import ExpertPlayer, play
from policies.bc_mlp import BCMLP
from policies.bc_mlp import Config as BCConfig
from trainers.evaluate.base import Config
from trainers.evaluate.episodes import evaluate, table
from trainers.evaluate.pictures import GAP, LABEL, ROW
from trainers.evaluate.rollout import PolicyPlayer, RandomPlayer

CPU = torch.device("cpu")


def family(id: str = "MiniGrid-DoorKey-5x5-v0", **values) -> MiniGrid:
    return MiniGrid(MiniGridConfig(id=id, **values))


@pytest.mark.slow
def test_every_player_plays_exactly_the_same_episodes_whatever_the_lanes():
    place, seeds = family(), family().seeds("test", 30)
    for make in (lambda: ExpertPlayer(place), lambda: RandomPlayer(place, 0)):
        scores = [play(make(), place, seeds, lanes).score for lanes in (1, 7, 64)]
        for score in scores[1:]:
            assert np.array_equal(score.success, scores[0].success)
            assert np.array_equal(score.lengths, scores[0].lengths)
            assert np.array_equal(score.returns, scores[0].returns)


def test_a_sampled_policy_does_not_depend_on_the_lanes():
    place = family(max_steps=30)
    policy = BCMLP(BCConfig(), place.spaces).eval()
    runs = [
        play(PolicyPlayer(policy, False, 0, CPU), place, place.seeds("test", 24), lanes, keep=24).actions for lanes in (24, 5)
    ]
    for index in range(24):
        assert np.array_equal(runs[0][index], runs[1][index])


def test_kept_actions_replay_to_the_same_end():
    place, seeds = family(), family().seeds("test", 6)
    played = play(ExpertPlayer(place), place, seeds, 6, keep=6)
    vector = place.vector(6, seeds=seeds)
    for index in range(6):
        assert len(played.actions[index]) == played.score.lengths[index]
    vector.reset()
    longest = max(map(len, played.actions.values()))
    solved = np.zeros(6, bool)
    for step in range(longest):
        actions = np.array([played.actions[i][step] if step < len(played.actions[i]) else 6 for i in range(6)])
        _, reward, terminated, truncated, info = vector.step(actions)
        solved |= place.success(reward, terminated, truncated, info)
    assert solved.all()


def test_an_evaluation_has_its_references_and_its_film():
    place = family(max_steps=40)
    policy = BCMLP(BCConfig(), place.spaces)
    config = Config(episodes=20, media=2)
    result = evaluate(policy, place, config, place.seeds("train", 40), seed=0, device=CPU)
    scores = result.record["scores"]
    assert list(scores) == ["sampled", "greedy", "random", "expert", "optimum"]
    assert scores["optimum"]["success"] == scores["expert"]["success"] == 1
    assert scores["optimum"]["return"] >= scores["expert"]["return"] - 1e-12
    assert scores["random"]["success"] < 0.5 > scores["sampled"]["success"]
    seen = result.record["per_episode"].pop("seen_in_training")
    assert 0 < seen.mean() < 1 and result.record["unseen_in_training"]["episodes"] == (~seen).sum()
    for name, episodes in result.record["per_episode"].items():
        assert len(episodes["success"]) == 20
        assert math.isclose(np.mean(episodes["success"]), scores[name]["success"])
    (film,) = result.pictures  # bc_mlp makes no plan
    shown = Image.open(io.BytesIO(film.encoded))
    assert shown.n_frames > 5 and shown.size == film.shape[::-1] == (2 * (LABEL + GAP), 5 * 16 + ROW)


def test_a_test_split_that_repeats_the_training_split_is_called_that():
    for id, share in (("MiniGrid-Empty-5x5-v0", 1.0), ("MiniGrid-FourRooms-v0", 0.0)):
        place = family(id, max_steps=10)
        policy = BCMLP(BCConfig(), place.spaces)
        config = Config(episodes=5, media=0, decode=["greedy"])
        record = evaluate(policy, place, config, place.seeds("train", 20), 0, CPU).record
        assert record["seen_in_training"] == share
        assert ("none is held out" in str(table(record, "x").title)) == (share == 1)


def test_an_id_without_an_expert_is_still_scored():
    place = family("MiniGrid-Dynamic-Obstacles-5x5-v0", max_steps=5)
    policy = BCMLP(BCConfig(), place.spaces)
    config = Config(episodes=4, media=1, decode=["sampled"])
    record = evaluate(policy, place, config, place.seeds("train", 4), 0, CPU).record
    assert list(record["scores"]) == ["sampled", "random"]


class Bare(MiniGrid):
    """Has what a family must have, and nothing else."""

    has_success, max_lanes = False, 3
    render, optimum = Family.render, Family.optimum

    @classmethod
    def accepts(cls, config, needs="play"):
        return "it has no expert" if needs == "expert" else None

    def make_vector(self, deal):
        assert deal.num_envs <= 3
        return super().make_vector(deal)

    def success(self, *arguments):
        raise AssertionError("nobody knows")


def test_a_family_without_success_expert_and_pictures_is_scored_by_its_returns(capsys):
    place = Bare(MiniGridConfig(id="MiniGrid-Empty-5x5-v0", max_steps=15))
    policy = BCMLP(BCConfig(), place.spaces)
    result = evaluate(policy, place, Config(episodes=10, media=1), None, 0, CPU)
    assert list(result.record["scores"]) == ["sampled", "greedy", "random"] and result.record["headline"] == "return"
    assert result.record["scores"]["random"]["success"] is None
    assert not result.pictures and "Bare does not render" in capsys.readouterr().out
    assert table(result.record, "bc_mlp").row_count == 3
    result.record["scores"]["random"]["return_interval"] = (-0.1, -0.05)
    assert "-0.100 to -0.050" in [*table(result.record, "bc_mlp").columns[4].cells]


def test_a_family_may_ask_for_success_within_fewer_steps_and_for_doing_nothing():
    place = family(max_steps=60)
    place.success_within, place.no_op = (12, 60), 6
    policy = BCMLP(BCConfig(), place.spaces)
    record = evaluate(policy, place, Config(episodes=20, decode=["sampled"], media=0), None, 0, CPU).record
    scores, expert = record["scores"], record["per_episode"]["expert"]
    assert set(scores) == {"sampled", "random", "no-op", "expert", "optimum"} and scores["no-op"]["success"] == 0
    in_time = np.mean(np.array(expert["success"]) & (np.array(expert["length"]) <= 12))
    assert scores["expert"]["success_within"] == {"12": in_time, "60": 1.0} and 0 < in_time < 1
    assert "in 12 steps" in [column.header for column in table(record, "bc_mlp").columns]
