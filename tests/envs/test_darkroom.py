"""The rules, compared with a slow environment written from the description alone; split and returns, compared with published
figures."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.error import InvalidAction

from envs.darkroom import Config, DarkRoom
from envs.darkroom.family import Data
from envs.darkroom.rules import room_optimum, room_random
from envs.play import ExpertPlayer, play
from trainers.evaluate.final import episode_seeds
from trainers.evaluate.rollout import RandomPlayer

GAMES = ["room", "key_to_door", "recall"]


class Slow:
    """One lane, one step at a time, with if and else."""

    def __init__(self, game: str, size: int, horizon: int, goals: list[int], cue: int):
        self.game, self.size, self.horizon, self.goals, self.cue = game, size, horizon, goals, cue
        self.row = self.column = size // 2
        self.key, self.steps = False, 0

    def seen(self) -> tuple[int, ...]:
        return self.row, self.column, {"room": 0, "key_to_door": int(self.key), "recall": self.cue}[self.game]

    def step(self, action: int) -> tuple[float, bool, bool]:
        if action == 0:
            self.row = min(self.row + 1, self.size - 1)
        elif action == 1:
            self.row = max(self.row - 1, 0)
        elif action == 2:
            self.column = min(self.column + 1, self.size - 1)
        elif action == 3:
            self.column = max(self.column - 1, 0)
        here = self.row * self.size + self.column
        self.steps += 1
        reward, terminated = 0.0, False
        if self.game == "key_to_door":
            if not self.key:
                self.key, reward = here == self.goals[0], float(here == self.goals[0])
            elif here == self.goals[1]:
                reward, terminated = 1.0, True
        else:
            reward = float(here == self.goals[self.cue])
        return reward, terminated, self.steps == self.horizon and not terminated


def family(game: str = "room", **values) -> DarkRoom:
    return DarkRoom(Config(game=game, data=Data(source="expert"), **values))


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("size", [3, 9, 12])
def test_the_rules_are_those_of_a_slow_reference(game: str, size: int):
    place = family(game, size=size, val_goals=2, test_goals=[[0, 0], [1, 0]], max_steps=7 if size == 3 else 0, schedule=[2, 1])
    lanes, repeats, tasks = 6, 3, place.seeds("train", 10)
    vector = place.vector(lanes, tasks=tasks, episodes_per_task=repeats)
    observation, info = vector.reset()
    assert observation in vector.observation_space
    generator, played = np.random.default_rng(0), []
    goals = place.cells(tasks).tolist()

    def begin(episode: int) -> Slow | None:
        if episode < 0:
            return None
        task, repeat = divmod(episode, repeats)
        played.append(episode)
        return Slow(game, size, place.max_steps, goals[task], [0, 0, 1][repeat] if game == "recall" else 0)

    slow = [begin(episode) for episode in info["episode_index"]]
    flag = {"room": None, "key_to_door": "key", "recall": "cue"}[game]
    while any(slow):
        actions = generator.integers(0, 5, lanes)
        observation, reward, terminated, truncated, info = vector.step(actions)
        for lane, one in enumerate(slow):
            if one is None:
                assert (reward[lane], terminated[lane], truncated[lane], info["episode_index"][lane]) == (0, False, False, -1)
                continue
            assert one.step(actions[lane]) == (reward[lane], terminated[lane], truncated[lane])
            ended = terminated[lane] or truncated[lane]
            seen = info["final_obs"][lane] if ended else {name: array[lane] for name, array in observation.items()}
            assert (*seen["position"], seen[flag] if flag else 0) == one.seen()
            if ended:
                slow[lane] = begin(info["episode_index"][lane])
                if slow[lane]:
                    assert (*observation["position"][lane], observation[flag][lane] if flag else 0) == slow[lane].seen()
    assert sorted(played) == list(range(30)), "each task's episodes, all of them, each once"


def test_the_published_split_is_reproduced():
    cells = [(row, column) for row in range(9) for column in range(9)]
    random.seed(0)
    random.shuffle(cells)
    goals = {name: [divmod(cell, 9) for cell in part.tolist()] for name, part in family().goals.items()}
    assert goals["test"] == [(4, 2), (5, 6), (6, 8), (7, 2), (3, 6), (0, 5), (5, 8), (5, 4)] == cells[73:]
    assert goals["train"] + goals["val"] == cells[:73]
    assert len(goals["val"]) == 8


def test_exact_returns_are_the_published_ones():
    place = family()
    test, trained = place.seeds("test", 8), np.concatenate([place.goals["train"], place.goals["val"]])
    assert place.optimum(test).returns.tolist() == [19, 18, 15, 16, 18, 16, 16, 20]
    assert place.random_return(test).mean() == pytest.approx(0.325, abs=5e-4)
    for goals, best, chance in ((trained, 16.47, 0.238), (np.arange(81), 16.54, 0.247)):
        assert room_optimum(9, 20, goals).mean() == pytest.approx(best, abs=5e-3)
        assert room_random(9, 20, goals).mean() == pytest.approx(chance, abs=5e-4)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("size", [9, 13])
def test_references_are_what_players_score(game: str, size: int):
    place = family(game, size=size)
    seeds = place.seeds("test", 200)
    best, optimum = play(ExpertPlayer(place), place, seeds, 64).score, place.optimum(seeds)
    for ours, exact in zip(
        (best.success, best.returns, best.lengths), (optimum.success, optimum.returns, optimum.lengths), strict=True
    ):
        assert np.array_equal(ours, exact)
    many = place.seeds("test", 8000)
    scored = play(RandomPlayer(place, 0), place, many, 2000).score.returns
    assert scored.mean() == pytest.approx(place.random_return(many).mean(), abs=5 * scored.std() / 8000**0.5)


def test_a_door_that_is_too_far_is_no_success():
    place = family("key_to_door", max_steps=9)
    seeds = place.seeds("test", 200)
    best, optimum = play(ExpertPlayer(place), place, seeds, 64).score, place.optimum(seeds)
    assert np.array_equal(best.returns, optimum.returns) and np.array_equal(best.success, optimum.success)
    assert set(optimum.returns.tolist()) == {1.0, 2.0} and 0 < optimum.success.mean() < 1


@pytest.mark.parametrize("game", GAMES)
def test_splits_share_no_goal(game: str):
    place = family(game)
    seeds = {name: place.seeds(name, 10_000) for name in ("train", "val", "test")}
    for name, others in (("train", ("val", "test")), ("val", ("train", "test")), ("test", ("train", "val"))):
        assert place.seen_in_training(seeds[name][:500], seeds[name]).all()
        for other in others:
            assert not place.seen_in_training(seeds[other][:500], seeds[name]).any()
            assert not set(place.cells(seeds[name]).ravel()) & set(place.cells(seeds[other]).ravel())
    pairs = place.cells(seeds["test"])[:56]
    assert (pairs[:, 0] != pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == 56, (
        "every ordered pair of the eight goals, once"
    )


def test_tasks_that_a_short_training_never_showed_are_unseen():
    place = DarkRoom(Config(data=Data(episodes=120, episodes_per_history=40)))
    seeds = place.seeds("train", 65)
    assert place.seen_in_training(seeds, episode_seeds(place, {})).sum() == 3, "three histories are three goals"


def test_returned_arrays_are_never_written_again():
    vector = family("key_to_door").vector(8, seeds=np.arange(40))
    observation, _ = vector.reset()
    kept = []
    for step in range(120):
        kept.append((observation, {name: value.copy() for name, value in observation.items()}))
        observation, _, _, _, info = vector.step(np.full(8, step % 5))
        kept.append(({"episode": info["episode_index"]}, {"episode": info["episode_index"].copy()}))
    for given, copy in kept:
        assert all(np.array_equal(given[name], copy[name]) for name in given)


@pytest.mark.parametrize("action", [-1, 5])
def test_an_action_that_does_not_exist_is_refused(action: int):
    vector = family().vector(2)
    vector.reset()
    with pytest.raises(InvalidAction, match="between 0 and 4"):
        vector.step(np.array([0, action]))


def test_a_task_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        family().vector(2, tasks=np.array([0, -1])).reset()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"test_goals": [[4, 9]]}, r"test_goals holds \[4, 9\], no \[row, column\] of a 9x9 grid"),
        ({"test_goals": [[4]]}, "no .row, column."),
        ({"test_goals": [[1, 1], [1, 1]]}, "twice"),
        ({"game": "dark"}, "game must be one of room, key_to_door, recall, got dark"),
        ({"size": 2}, "size must be between 3 and 31"),
        ({"val_goals": 73}, "val_goals must be between 1 and 72"),
        ({"val_goals": 1, "game": "recall", "schedule": [20, 20]}, "val_goals must be between 2"),
        ({"schedule": [3]}, "two or more"),
        ({"game": "recall"}, "episodes_per_history=40 does not fit .* try a multiple of 14"),
    ],
)
def test_bad_values_are_sentences(values: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Config(**{"data": Data(), **values})


def test_goals_can_be_chosen():
    place = family(test_goals=[[0, 0], [8, 8]])
    assert place.goals["test"].tolist() == [0, 80]
    assert place.optimum(place.seeds("test", 3)).returns.tolist() == [13, 13, 13]
    assert place.signature() != family().signature()


def test_larger_grids_keep_the_proportions():
    assert [family(size=size).max_steps for size in (9, 13, 17)] == [20, 29, 38]
    place = replace(Config(), size=17)
    assert len(DarkRoom(place).goals["test"]) == 17 * 17 - round(0.9 * 17 * 17)


def test_the_references_of_recall_follow_its_schedule():
    place = family(game="recall")  # five episodes of goal A, five of B, two of A, two of B
    seeds = place.seeds("test", 5)
    first, second = place.cells(seeds).T
    for turn in range(20):
        goals = second if 5 <= turn % 14 < 10 or turn % 14 > 11 else first
        assert np.array_equal(place.optimum(seeds, turn).returns, room_optimum(9, 20, goals))
        assert np.array_equal(place.random_return(seeds, turn), room_random(9, 20, goals))


def test_frames_of_recall_show_the_goal_of_their_episode():
    place = family(game="recall")  # five episodes of goal A, five of B
    seeds, still = place.seeds("test", 1), [np.array([4] * 3)]
    films = [place.render(np.repeat(seeds, 1), still, np.array([turn]))[0] for turn in (0, 4, 5)]
    assert np.array_equal(films[0], films[1]) and not np.array_equal(films[0], films[2])


def test_frames_show_the_episode():
    place = family()
    seeds = place.seeds("test", 2)  # goals (4, 2), (5, 6)
    films = place.render(seeds, [np.array([3, 3, 4]), np.array([0] * 20)])
    assert [film.shape for film in films] == [(4, 144, 144, 3), (21, 144, 144, 3)] and films[0].dtype == np.uint8
    assert len(np.unique(films[0].reshape(4, -1), axis=0)) == 3, "two moves, and being paid twice looks the same"
