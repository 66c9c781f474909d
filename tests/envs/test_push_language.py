"""Two cubes, two goals, and an instruction, which alone says which pair counts."""

from __future__ import annotations

import importlib.util

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
    assert {(*found.cubes, *found.goals) for found in pairs} and len({found.asked for found in pairs}) == 12
    first = [(found.asked[0] == next(iter(found.cubes)), found.asked[1] == next(iter(found.goals))) for found in pairs]
    assert np.abs(np.mean(first, 0) - 0.5).max() < 0.1
    for found in pairs:
        assert min(np.linalg.norm(cube - goal) for cube in found.cubes.values() for goal in found.goals.values()) > layout.FARTHER


def test_an_instruction_needs_the_task():
    with pytest.raises(ValueError, match=r"add env\.task=language"):
        Config(instruction="shuffled")
