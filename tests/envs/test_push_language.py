"""Two cubes, two goals, and an instruction, which alone says which pair counts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from envs.base import SPLITS
from envs.push import Config, Push, language, layout
from envs.text import WORDS, text

needs_bullet = pytest.mark.skipif(importlib.util.find_spec("pybullet") is None, reason="needs pip install 'iolaus[push]'")

TEST = SPLITS["test"][0]


def solved(family: Push, seeds: np.ndarray) -> np.ndarray:
    """Which of these episodes the expert solves."""
    vector, expert = family.vector(8, seeds=seeds), family.expert()
    episode, result = vector.reset()[1]["episode_index"], np.zeros(len(seeds), bool)
    while (episode >= 0).any():
        _, reward, terminated, truncated, info = vector.step(expert.act(vector))
        playing = episode >= 0
        result[episode[playing]] |= family.success(reward, terminated, truncated, info)[playing]
        episode = info["episode_index"]
    vector.close()
    return result


@needs_bullet
def test_the_expert_does_what_is_asked_and_a_shuffled_instruction_misleads_it():
    values = {"task": "language", "image": False, "num_workers": 0, "max_steps": 50}
    assert solved(Push(Config(**values)), TEST + np.arange(8)).mean() > 0.9
    assert solved(Push(Config(**values, instruction="shuffled")), TEST + np.arange(8)).mean() < 0.6


@needs_bullet
def test_shuffling_changes_the_instruction_and_nothing_else():
    seeds = TEST + np.arange(8)
    shown = []
    for told in ("right", "shuffled"):
        vector = Push(Config(task="language", image=False, num_workers=0, instruction=told)).vector(8, seeds=seeds)
        shown.append(vector.reset()[0])
        vector.close()
    right, shuffled = shown
    assert np.array_equal(right["state"], shuffled["state"])
    assert 0 < (right["mission"] != shuffled["mission"]).any(1).sum() < 8


def test_wordings_of_the_test_split_are_new_and_made_of_words_from_training():
    random = np.random.default_rng(0)
    training, test = ({text(language.instruction(("red", "blue"), seed, random)) for _ in range(200)} for seed in (0, TEST))
    assert len(training) == 6 and len(test) == 3 and not training & test
    assert {word for line in test for word in line.split()} <= {word for line in training for word in line.split()} <= set(WORDS)


def test_a_layout_does_not_tell_what_is_asked():
    pairs = [layout.two_pairs(np.random.default_rng(seed)) for seed in range(300)]
    assert len({(*found.cubes, *found.goals) for found in pairs}) == 24  # every order of the four colours
    assert len({found.asked for found in pairs}) == 12
    first = [(found.asked[0] == next(iter(found.cubes)), found.asked[1] == next(iter(found.goals))) for found in pairs]
    assert np.abs(np.mean(first, 0) - 0.5).max() < 0.1
    for found in pairs:
        assert min(np.linalg.norm(cube - goal) for cube in found.cubes.values() for goal in found.goals.values()) > layout.FARTHER


@needs_bullet
@pytest.mark.slow
def test_the_recipe_trains_and_is_judged_with_the_instruction_of_another_episode(launch: Callable, here: Path):
    tiny = ("env.max_steps=10", "env.image_size=32", "env.num_workers=0", "eval.episodes=3", "eval.media=0")
    training = ("trainer.max_steps=2", "trainer.batch_size=16", "trainer.eval_every=0", "trainer.eval_episodes=0", "logger=none")
    launch("experiment=language_push", "env.data.episodes=8", "env.data.val_episodes=2", *tiny, *training, "hydra.run.dir=run")
    words = ("mode=eval", "experiment=language_push", "ckpt_path=run", "env.instruction=shuffled", *tiny)
    launch(*words, "hydra.run.dir=shuffled")
    for name in ("run", "shuffled"):
        assert {"greedy", "random", "expert"} <= set(json.loads((here / name / "summary.json").read_text())["scores"])


def test_an_instruction_needs_the_task():
    with pytest.raises(ValueError, match=r"add env\.task=language"):
        Config(instruction="shuffled")
