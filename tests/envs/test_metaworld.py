"""Meta-World plays as the package does, a seed names one episode, bit for bit, and an instruction says which task it is."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from envs.base import SPLITS
from envs.data.noise import Noise
from envs.metaworld import Config, MetaWorld, camera
from envs.metaworld.config import Data
from envs.metaworld.language import SENTENCES, wordings
from envs.metaworld.tasks import BENCHMARKS, CLASS_OF, DIFFICULTY, NAMES
from envs.play import ExpertPlayer, play
from envs.text import WORDS

needs_package = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs pip install 'iolaus[metaworld]'")

TEST = SPLITS["test"][0]
# One whose package environment plays differently once it was reset before, one with rejected draws, and one of neither kind.
SOME = ["basketball-v3", "push-v3", "drawer-close-v3"]


def metaworld(**values) -> MetaWorld:
    return MetaWorld(Config(**{"num_workers": 0, "tasks": SOME, **values}))


def states(family: MetaWorld, seeds: np.ndarray, lanes: int, steps: int = 6) -> dict[int, np.ndarray]:
    """By seed, the states [steps, 39] under one and the same sequence of actions, and the instruction."""
    family.config.max_steps = steps
    vector = family.vector(lanes, seeds=seeds)
    observation, info = vector.reset()
    shown: dict[int, list[np.ndarray]] = {int(seed): [] for seed in seeds}
    while ((episode := info["episode_index"]) >= 0).any():
        action = np.zeros((lanes, 4), np.float32)
        for lane in np.flatnonzero(episode >= 0):
            mine = shown[int(seeds[episode[lane]])]
            action[lane] = np.random.default_rng(len(mine)).uniform(-1, 1, 4)
            mine.append(np.concatenate([observation["state"][lane], observation["mission"][lane]]))
        observation, _, _, _, info = vector.step(action)
    vector.close()
    return {seed: np.stack(rows) for seed, rows in shown.items()}


def check_parity(task: str) -> None:
    """An environment after other episodes, against a fresh one of the package with the same places."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    from envs.metaworld.simulator import TaskEnv

    used = TaskEnv(task)
    for seed in (1, 2):
        used.reset(seed)
        used.env.step(np.full(4, 0.5, np.float32))
    ours = used.reset(3)
    theirs = ALL_V3_ENVIRONMENTS[task]()
    places = {"env_cls": type(theirs), "rand_vec": used.env._last_rand_vec.copy(), "partially_observable": False}
    theirs.set_task(Task(task, pickle.dumps(places)))
    shown, _ = theirs.reset()
    random = np.random.default_rng(0)
    for _ in range(10):
        np.testing.assert_array_equal(ours, shown)
        action = random.uniform(-1, 1, 4).astype(np.float32)
        ours, reward, _, _, info = used.env.step(action)
        shown, their_reward, _, _, their_info = theirs.step(action)
        assert (reward, info["success"]) == (their_reward, their_info["success"])


@needs_package
@pytest.mark.parametrize("task", [name if name in SOME[:2] else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_the_physics_is_the_packages(task: str):
    check_parity(task)


@pytest.mark.slow
@needs_package
def test_a_seed_is_one_episode_whatever_plays_it_and_no_global_generator_is_asked():
    seeds = TEST + np.arange(4)
    before = np.random.get_state()[1].copy()
    alone = {int(seed): states(metaworld(), np.array([seed]), 1)[int(seed)] for seed in seeds}
    assert np.array_equal(before, np.random.get_state()[1])
    for lanes, workers in ((1, 0), (2, 2)):  # one lane plays them all; two lanes change their tasks from episode to episode
        together = states(metaworld(num_workers=workers), seeds[::-1], lanes)
        assert all(np.array_equal(together[seed], shown) for seed, shown in alone.items())
    first = np.stack([rows[0] for rows in alone.values()])
    assert len(np.unique(first, axis=0)) == len(seeds)  # the fourth is of the first's task, in another place


@needs_package
def test_experts_solve_held_out_episodes_and_results_are_told_by_task():
    family = metaworld()
    seeds = family.seeds("test", 6)
    score = play(ExpertPlayer(family), family, seeds, 3).score
    assert score.success is not None and score.success.all() and score.lengths.max() < 200
    groups = family.groups(seeds)
    assert groups["task"] == [SOME[seed % 3] for seed in seeds.tolist()]
    assert groups["difficulty"] == [CLASS_OF[task] for task in groups["task"]]


@needs_package
def test_names_are_the_packages():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3

    assert sorted(ALL_V3_ENVIRONMENTS) == NAMES == BENCHMARKS["mt50"] and list(MT10_V3) == BENCHMARKS["mt10"]


@needs_package
def test_shuffling_changes_the_instruction_and_nothing_else():
    seeds = TEST + np.arange(6)
    right, shuffled = (states(metaworld(instruction=told), seeds, 3, steps=2) for told in ("right", "shuffled"))
    assert all(np.array_equal(right[seed][:, :39], shuffled[seed][:, :39]) for seed in right)
    assert 0 < sum((right[seed] != shuffled[seed]).any() for seed in right) < 6


@pytest.mark.slow
@needs_package
def test_results_are_told_by_task(launch: Callable):
    done = launch(
        "debug=fdr",
        "policy=bc_mlp",
        "env=metaworld",
        f"env.tasks=[{','.join(SOME[1:])}]",
        "env.max_steps=20",
        "env.num_workers=0",
        "env.data.episodes=4",
        "env.data.val_episodes=2",
    )
    assert "by difficulty" in done.stdout and "by task" in done.stdout


def test_every_class_has_its_tasks():
    assert {name: len(tasks) for name, tasks in DIFFICULTY.items()} == {"easy": 28, "medium": 11, "hard": 6, "very hard": 5}
    assert set(BENCHMARKS["mt10"]) < set(NAMES) == set(SENTENCES) and len(NAMES) == 50


def test_test_wordings_are_new_and_made_of_the_words_of_the_tasks_own_training_wordings():
    said: dict[str, str] = {}
    for task in NAMES:
        seen, held_out = wordings(task)
        assert seen and held_out and not set(seen) & set(held_out)
        assert (
            {word for line in held_out for word in line.split()} <= {word for line in seen for word in line.split()} <= set(WORDS)
        )
        assert all(said.setdefault(line, task) == task for line in (*seen, *held_out)), task


def test_noise_kinds_take_turns_within_each_task():
    data = Data(noise=0.5, noise_kind="none+dart")
    noise = Noise(data, metaworld().spaces.action, np.arange(12), 5, tasks_in_turn=3)
    assert (noise.added != 0).any((1, 2)).tolist() == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tasks": "psh-v3"}, "did you mean push-v3"),
        ({"tasks": "push"}, "did you mean push-v3"),
        ({"tasks": ["push-v3", "mt10"]}, "mixes a benchmark with tasks"),
        ({"tasks": ["push-v3", "push-v3"]}, "twice"),
        ({"tasks": []}, "empty list"),
        ({"tasks": "xyzzy"}, "the tasks are assembly-v3"),
        ({"tasks": "push-v3", "instruction": "shuffled"}, "several tasks only"),
    ],
)
def test_tasks_that_do_not_exist_are_refused(values: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        Config(**values)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'iolaus[metaworld]'" in str(MetaWorld.accepts(Config()))


@needs_package
@pytest.mark.skipif(camera.missing() is not None, reason="needs EGL or OSMesa")
def test_an_image_takes_the_places_of_things_out_of_the_state():
    family = metaworld(image=True, image_size=48, tasks=["push-v3", "door-open-v3"])
    seeds = family.seeds("test", 4)
    vector = family.vector(2, seeds=seeds)
    observation, _ = vector.reset()
    assert family.spaces.observation.contains({name: value[0] for name, value in observation.items()})
    assert observation["state"].shape == (2, 4)
    bright = observation["image"].astype(int)
    green = (bright[..., 1] > bright[..., 0] + 60) & (bright[..., 1] > bright[..., 2] + 60)
    assert green.any((1, 2)).all()  # the goal is seen, since it is nowhere else
    first = observation["image"].copy()
    vector.close()
    family.config.max_steps = 1
    vector = family.vector(1, seeds=seeds[[2, 0]])  # after another episode of its task, in an environment that is kept
    vector.reset()
    assert np.array_equal(vector.step(np.ones((1, 4), np.float32))[0]["image"][0], first[0])
    vector.close()
    (frames,) = family.render(seeds[:1], [np.full((3, 4), 0.5, np.float32)]) or [np.empty(0)]
    assert frames.shape[0] == 4 and frames.dtype == np.uint8 and (frames[0] != frames[3]).any()


def test_without_a_graphics_library_there_is_no_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(camera.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert MetaWorld.accepts(Config()) is None
    assert "apt-get install" in str(MetaWorld.accepts(Config(image=True)))
