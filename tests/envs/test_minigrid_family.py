"""The family's contract: dealing, idle lanes, fallback ids, missions, splits, rendering, and whether anything is held out."""

import dataclasses
import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from omegaconf import OmegaConf

from envs import text
from envs.base import SPLITS, Spaces
from envs.minigrid import Config, MiniGrid
from envs.minigrid.bank import bank
from envs.minigrid.vector import BatchedVector
from envs.processes import ProcessVector

FALLBACK = ["BabyAI-GoToLocal-v0", "MiniGrid-Dynamic-Obstacles-5x5-v0"]


def family(id: str = "MiniGrid-DoorKey-5x5-v0", **options) -> MiniGrid:
    return MiniGrid(Config(id=id, **options))


def rollout(vector, actions: np.ndarray) -> list[tuple]:
    """reset, then one step for each row of actions [T,N]."""
    observation, info = vector.reset()
    trace = [(observation, None, None, None, info)]
    return trace + [vector.step(row) for row in actions]


@pytest.mark.parametrize("id", ["MiniGrid-DoorKey-5x5-v0", "MiniGrid-LockedRoom-v0", *FALLBACK])
def test_observations_fit_the_spaces_and_are_never_overwritten(id):
    made = family(id, max_steps=9)
    vector = made.vector(5, seeds=np.arange(12))
    assert isinstance(vector, BatchedVector if made.batched else ProcessVector)
    actions = np.random.default_rng(0).integers(0, 7, (30, 5))
    trace, kept = [], []
    for step in rollout(vector, actions):
        trace.append(step)
        kept.append({name: array.copy() for name, array in step[0].items()})
        assert step[0] in vector.observation_space
        for lane in range(5):
            assert {name: array[lane] for name, array in step[0].items()} in made.spaces.observation
    for step, copies in zip(trace, kept, strict=True):
        for name, copy in copies.items():
            np.testing.assert_array_equal(step[0][name], copy)


def test_grid_bounds_size_embeddings_by_channel():
    high = family().spaces.observation["grid"].high
    assert high.shape == (7, 7, 3) and high[0, 0].tolist() == [10, 5, 2] and (high == high[0, 0]).all()
    spaces = family().spaces
    assert Spaces.from_json(spaces.to_json()) == spaces


@pytest.mark.parametrize("id", FALLBACK)
def test_fallback_ids_are_the_real_environment(id):
    made, seeds = family(id), np.array([11, 12, 13, 14])
    vector = made.vector(2, seeds=seeds)
    actions = np.random.default_rng(1).integers(0, 7, (400, 2))
    envs = [gymnasium.make(id, disable_env_checker=True).unwrapped for _ in range(2)]
    lane_seeds, ended = [[11, 13], [12, 14]], [0, 0]
    observation, _ = vector.reset()
    real = [env.reset(seed=lane_seeds[lane][0])[0] for lane, env in enumerate(envs)]
    for row in actions:
        for lane in range(2):
            if ended[lane] < 2:
                np.testing.assert_array_equal(observation["grid"][lane], real[lane]["image"])
                assert observation["direction"][lane] == real[lane]["direction"]
                assert real[lane]["mission"] == text.text(observation["mission"][lane])
        observation, reward, terminated, truncated, info = vector.step(row)
        for lane, env in enumerate(envs):
            if ended[lane] == 2:
                assert not (terminated[lane] or truncated[lane]) and reward[lane] == 0
                continue
            real[lane], *outcome, _ = env.step(int(row[lane]))
            assert (reward[lane], terminated[lane], truncated[lane]) == tuple(outcome)
            if terminated[lane] or truncated[lane]:
                np.testing.assert_array_equal(info["final_obs"][lane]["grid"], real[lane]["image"])
                ended[lane] += 1
                if ended[lane] < 2:
                    real[lane], _ = env.reset(seed=lane_seeds[lane][1])
    assert sum(ended) >= 1, "no episode ended, so autoreset was not seen"


@pytest.mark.parametrize("id", ["MiniGrid-Empty-Random-5x5-v0", "MiniGrid-Dynamic-Obstacles-Random-5x5-v0"])
def test_exactly_the_listed_episodes_are_played_and_then_lanes_idle(id):
    vector = family(id, max_steps=6).vector(3, seeds=np.arange(7))
    trace = rollout(vector, np.random.default_rng(0).integers(0, 3, (40, 3)))
    finished: list[list[int]] = [[], [], []]
    for (_, _, _, _, before), (_, reward, terminated, truncated, after) in itertools.pairwise(trace):
        done = terminated | truncated
        assert ("_final_obs" in after) == done.any()
        assert (reward[before["episode_index"] < 0] == 0).all() and not done[before["episode_index"] < 0].any()
        for lane in np.flatnonzero(done):
            finished[lane].append(int(before["episode_index"][lane]))
    assert finished == [[0, 3, 6], [1, 4], [2, 5]]
    assert trace[-1][4]["episode_index"].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("id", ["MiniGrid-DoorKey-5x5-v0", "MiniGrid-Unlock-v0"])
def test_more_lanes_than_episodes(id):
    vector = family(id, max_steps=4).vector(9, seeds=np.arange(2))
    trace = rollout(vector, np.full((6, 9), 2))
    assert trace[0][4]["episode_index"].tolist() == [0, 1] + [-1] * 7
    assert sum(int((step[2] | step[3]).sum()) for step in trace[1:]) == 2
    assert trace[-1][0] in vector.observation_space


@pytest.mark.parametrize("id", ["MiniGrid-DoorKey-5x5-v0", "MiniGrid-Unlock-v0"])
@pytest.mark.parametrize("action", [-1, 7])
def test_an_action_that_does_not_exist_is_an_error(id, action):
    vector = family(id).vector(2, seeds=np.arange(2))
    vector.reset()
    with pytest.raises(InvalidAction):
        vector.step(np.array([0, action]))


def test_reset_deals_from_the_top_again():
    vector = family().vector(2, seeds=np.arange(4))
    actions = np.random.default_rng(0).integers(0, 7, (20, 2))
    first, second = rollout(vector, actions), rollout(vector, actions)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0]["grid"], other[0]["grid"])
        np.testing.assert_array_equal(one[4]["episode_index"], other[4]["episode_index"])


def test_without_seeds_the_stream_follows_the_split():
    for split, (low, high) in SPLITS.items():
        vector = family(max_steps=2).vector(3, split=split)
        trace = rollout(vector, np.full((10, 3), 6))
        assert trace[-1][4]["episode_index"].tolist() == [15, 16, 17]
        assert ((low <= vector.seeds) & (vector.seeds < high)).all()


def test_a_task_is_a_layout_played_several_times_in_a_row():
    made = family(max_steps=3)
    vector = made.vector(2, tasks=np.array([5, 6, 7]), episodes_per_task=2)
    once = made.vector(3, seeds=np.array([5, 6, 7]))
    layouts = once.reset()[0]["grid"]
    starts = [step[0]["grid"] for step in rollout(vector, np.full((12, 2), 6))[::3]]
    for episode, (lane0, lane1) in enumerate(zip([0, 0, 2, 2], [1, 1], strict=False)):
        np.testing.assert_array_equal(starts[episode][0], layouts[lane0])
        np.testing.assert_array_equal(starts[episode][1], layouts[lane1])
    np.testing.assert_array_equal(starts[2][0], layouts[2])
    np.testing.assert_array_equal(starts[3][0], layouts[2])


def test_layouts_are_made_once_a_process():
    made = bank("MiniGrid-DoorKey-6x6-v0", 0)
    assert made is bank("MiniGrid-DoorKey-6x6-v0", 0)
    first = made.layouts(np.arange(100))
    made.env.reset = None  # making a layout again fails
    np.testing.assert_array_equal(made.layouts(np.arange(100)), first)
    del made.env.reset


def test_an_own_step_limit_changes_truncation_and_reward():
    made = family("MiniGrid-Empty-5x5-v0", max_steps=20)
    assert made.max_steps == 20 and family("MiniGrid-Empty-5x5-v0").max_steps == 100
    score = made.optimum(np.array([0]))
    assert score.lengths.tolist() == [5] and score.returns.tolist() == [1 - 0.9 * (5 / 20)]


@pytest.mark.parametrize("id", ["BabyAI-GoToLocal-v0", "BabyAI-GoToObj-v0", "BabyAI-MiniBossLevel-v0", "BabyAI-PutNextS5N2-v0"])
def test_no_babyai_episode_is_longer_than_the_family_says(id):
    limits = bank(id, 0).layouts(np.arange(40))["max_steps"]
    assert 0 < limits.max() <= family(id).max_steps


def test_success_is_reaching_the_goal():
    reward, terminated = np.array([0.5, 0.0, 0.0]), np.array([True, True, False])
    assert family().success(reward, terminated, ~terminated, {}).tolist() == [True, False, False]


def test_one_layout_is_seen_and_a_thousand_are_not():
    training, test = np.arange(300), SPLITS["test"][0] + np.arange(50)
    assert family("MiniGrid-Empty-8x8-v0").seen_in_training(test, training).all()
    assert family("MiniGrid-DoorKey-8x8-v0").seen_in_training(test, training).mean() < 0.2
    assert family("MiniGrid-DoorKey-8x8-v0").seen_in_training(training[:50], training).all()


@pytest.mark.parametrize("id, size", [("MiniGrid-DistShift1-v0", (7, 9)), ("MiniGrid-Unlock-v0", (6, 11))])
def test_rendering_replays_an_episode(id, size):
    frames, short = family(id).render(np.array([3, 4]), [np.array([1, 2, 2]), np.array([0])])
    assert frames.shape == (4, size[0] * 16, size[1] * 16, 3) and frames.dtype == np.uint8
    assert len(short) == 2
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize(
    "id, needs, sentence",
    [
        ("MiniGrid-DoorKey-8x8-v0", "data", None),
        ("MiniGrid-Unlock-v0", "play", None),
        ("BabyAI-BossLevel-v0", "play", None),
        ("MiniGrid-Unlock-v0", "data", None),
        ("BabyAI-KeyInBox-v0", "data", "no expert for BabyAI-KeyInBox-v0. Ids that have one: MiniGrid-Empty-"),
        ("MiniGrid-Playground-v0", "data", "MiniGrid-DoorKey-"),
        ("MiniGrid-DorKey-8x8-v0", "play", "Did you mean MiniGrid-DoorKey-8x8-v0?"),
        ("MiniGrid-WFC-MazeSimple-v0", "play", "does not contain"),
        ("DoorKey", "play", "Did you mean MiniGrid-DoorKey-8x8-v0?"),
        ("lavagap", "play", "Did you mean MiniGrid-LavaGap"),
        ("CartPole-v1", "play", "no MiniGrid or BabyAI id CartPole-v1. https://"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(id, needs, sentence):
    answer = MiniGrid.accepts(Config(id=id), needs)
    assert answer is None if sentence is None else sentence in answer


def test_most_ids_are_in_the_engine_and_have_an_expert():
    ids = [id for id in gymnasium.registry if id.startswith("MiniGrid-")]
    played = [id for id in ids if MiniGrid.accepts(Config(id=id)) is None]
    assert all("WFC" in id for id in set(ids) - set(played))  # minigrid comes without their pictures
    assert sum(family(id).batched for id in played) >= 0.85 * len(ids)
    assert sum(MiniGrid.accepts(Config(id=id), "expert") is None for id in played) >= 0.8 * len(ids)


def test_config_merges_and_checks():
    schema = OmegaConf.structured(Config)
    merged = OmegaConf.to_object(OmegaConf.merge(schema, {"id": "MiniGrid-FourRooms-v0", "data": {"noise": 0.1}}))
    assert isinstance(merged, Config) and merged.data.noise == 0.1
    with pytest.raises(ValueError, match=r"max_steps must be .* got -1"):
        Config(max_steps=-1)


def test_signature_says_what_decides_an_episode():
    plain, limited = family().signature(), family(max_steps=7).signature()
    assert plain["id"] == "MiniGrid-DoorKey-5x5-v0" and plain["minigrid"] and "max_steps" not in plain
    assert limited == plain | {"max_steps": 7}
    assert dataclasses.replace(Config(), id="x").data == Config().data
