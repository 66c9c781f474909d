"""Push has PandaPush-v3's physics, and a seed names one episode, bit for bit, in any lane and process and after any other."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conf.errors import BadRequest
from envs.data import minari
from envs.push import Config, Push
from envs.push.config import Camera

pytestmark = pytest.mark.skipif(importlib.util.find_spec("pybullet") is None, reason="needs pip install 'iolaus[push]'")

SEEDS = np.arange(1_500_000_000, 1_500_000_008)


def push(**values) -> Push:
    return Push(Config(**{"num_workers": 0, **values}))


def episodes(family: Push, seeds: np.ndarray, lanes: int) -> dict[int, np.ndarray]:
    """By seed, all that the expert's episode shows, as bytes."""
    vector, expert = family.vector(lanes, seeds=seeds), family.expert()
    observation, info = vector.reset()
    shown: dict[int, list[np.ndarray]] = {int(seed): [] for seed in seeds}
    for _ in range(400):
        episode = info["episode_index"]
        if (episode < 0).all():
            break
        for lane in np.flatnonzero(episode >= 0):
            shown[int(seeds[episode[lane]])] += [value[lane].ravel().view(np.uint8) for value in observation.values()]
        observation, _, _, _, info = vector.step(expert.act(vector))
    vector.close()
    return {seed: np.concatenate(rows) for seed, rows in shown.items()}


def test_the_physics_is_panda_gyms():
    import gymnasium
    import panda_gym  # noqa: F401  (registers it)

    seed = 7
    theirs = gymnasium.make("PandaPush-v3")
    shown, _ = theirs.reset(seed=seed)
    vector = push(image=False).vector(1, seeds=np.array([seed]))
    ours, _ = vector.reset()
    random = np.random.default_rng(0)
    for _ in range(40):
        parts = (shown["observation"][:3], shown["achieved_goal"], shown["desired_goal"])
        np.testing.assert_array_equal(ours["state"][0], np.concatenate(parts))
        action = random.uniform(-1, 1, 3).astype(np.float32)
        shown, *_ = theirs.step(action)
        ours, *_ = vector.step(action[None])
    theirs.close()
    vector.close()


def test_a_seed_is_one_episode_whatever_lane_or_process_plays_it():
    seeds = SEEDS[:3]
    alone = {int(seed): episodes(push(image_size=24), np.array([seed]), 1)[int(seed)] for seed in seeds}
    for lanes, workers in ((1, 0), (2, 2)):  # one lane plays them one after the other
        together = episodes(push(image_size=24, num_workers=workers), seeds[::-1], lanes)
        assert all(np.array_equal(together[seed], shown) for seed, shown in alone.items())


def test_the_expert_solves_it_and_no_episode_begins_solved():
    family = push(image=False)
    vector, expert = family.vector(8, seeds=SEEDS), family.expert()
    observation, info = vector.reset()
    state = observation["state"]
    assert (np.linalg.norm(state[:, 3:6] - state[:, 6:9], axis=1) > 0.1).all()
    solved = np.zeros(8, bool)
    for _ in range(family.max_steps):
        playing = info["episode_index"] >= 0
        _, reward, terminated, truncated, info = vector.step(expert.act(vector))
        solved |= playing & family.success(reward, terminated, truncated, info)
    assert solved.all()
    vector.close()


def test_an_episode_is_truncated_after_max_steps():
    vector = push(image=False, max_steps=3).vector(2, seeds=SEEDS[:2])
    vector.reset()
    ends = [vector.step(np.zeros((2, 3), np.float32))[3].tolist() for _ in range(3)]
    assert ends == [[False, False], [False, False], [True, True]]
    vector.close()


def test_the_image_shows_cube_and_goal():
    vector = push().vector(8, seeds=SEEDS)
    image = vector.reset()[0]["image"].astype(int)
    red, green, blue = np.moveaxis(image, -1, 0)
    assert ((green > red + 60) & (green > blue + 60)).sum((1, 2)).min() >= 3
    assert ((red > green + 60) & (red > blue + 60)).sum((1, 2)).min() >= 3
    vector.close()


def test_films_are_replayed_from_seed_and_actions():
    (frames,) = push(image=False).render(SEEDS[:1], [np.full((3, 3), 0.5, np.float32)])
    assert frames.shape[0] == 4 and frames.dtype == np.uint8 and (frames[0] != frames[3]).any()


def test_camera_and_task_name_the_dataset():
    families = [push(), push(camera=Camera(yaw=90)), push(max_steps=50), push(task="language")]
    assert len({json.dumps(family.signature()) for family in families}) == len(families)


def test_episodes_of_another_camera_are_refused():
    here, there = push(), push(camera=Camera(yaw=90)).signature()
    signatures = ({"class": "envs.push.family.Push", **one} for one in (there, here.signature()))
    with pytest.raises(
        BadRequest, match=r"env\.camera\.yaw is 90 there and 60\.0 here\. Choose the values that it was made with"
    ):
        minari.refuse_other_episodes("push/some-v0", *signatures, here)


def test_collecting_keeps_the_terminal_clean(launch: Callable, here: Path):
    done = launch(
        "mode=collect", "env=push", "env.max_steps=20", "env.image=false", "env.data.episodes=4", "env.data.val_episodes=2"
    )
    printed = done.stdout + done.stderr
    assert "4 episodes" in printed
    assert not [word for word in ("build time", "argv", "bullet") if word in printed.lower()]
