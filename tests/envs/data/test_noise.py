"""Noise on the expert's actions: how much, when, and the same for a seed whichever episodes are recorded with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from gymnasium import spaces

from envs.data.config import DataConfig
from envs.data.noise import Noise

BOX = spaces.Box(-1, 1, (3,), np.float32)
STEPS = 100


@dataclass
class Data(DataConfig):
    NOISE_KINDS: ClassVar[tuple[str, ...]] = ("uniform", "dart", "burst", "none")


def deviations(kind: str, amount: float, seeds: np.ndarray, space: spaces.Space = BOX) -> np.ndarray:
    """[E, T, A] what is executed for labels of 0."""
    noise = Noise(Data(noise=amount, noise_kind=kind), space, seeds, STEPS)
    label = np.zeros((len(seeds), *(space.shape or ())), space.dtype)
    played = [noise.executed(label, np.arange(len(seeds)), np.full(len(seeds), step)) for step in range(STEPS)]
    return np.stack(played, 1)


def test_a_seed_has_its_noise_whatever_it_is_recorded_with():
    many = deviations("none+dart+burst", 0.5, np.arange(12))
    assert np.array_equal(many[5:7], deviations("none+dart+burst", 0.5, np.arange(5, 7)))
    assert not np.array_equal(many[1], many[4])


def test_kinds_take_turns():
    size = np.abs(deviations("none+dart+burst", 0.5, np.arange(9))).reshape(3, 3, -1).max((0, 2))
    assert size[0] == 0 and size[1] > 0 and size[2] > 0


def test_dart_moves_every_step_by_a_deviation_of_its_episode():
    spread = deviations("dart", 0.3, np.arange(200)).std((1, 2))
    assert spread.min() < 0.03 and 0.25 < spread.max() < 0.35
    assert 0.13 < spread.mean() < 0.17


def test_bursts_are_short_and_lean_to_one_side():
    moved = deviations("burst", 0.5, np.arange(200))
    loud = (moved != 0).any(-1)
    assert 0.2 < loud.mean() < 0.35
    ends = [np.flatnonzero(np.diff(np.pad(row.astype(int), 1))) for row in loud]
    bursts = np.concatenate([np.diff(row)[::2] for row in ends])
    gaps = np.concatenate([np.diff(row)[1::2] for row in ends])
    assert set(bursts) <= {1, 2, 3, 4, 5} and set(gaps) == set(range(6, 14))  # 1: cut off by the end
    inside = np.stack([moved[:, :-1][loud[:, :-1] & loud[:, 1:]].ravel(), moved[:, 1:][loud[:, :-1] & loud[:, 1:]].ravel()])
    assert np.corrcoef(inside)[0, 1] > 0.5
    assert np.abs(moved).max() <= 1


def test_uniform_replaces_a_share_of_the_steps():
    moved = deviations("uniform", 0.25, np.arange(100))
    slips = (moved != 0).any(-1)
    assert 0.23 < slips.mean() < 0.27 and 0.5 < moved[slips].std() < 0.65
    discrete = deviations("uniform", 0.5, np.arange(100), spaces.Discrete(4))
    assert np.bincount(discrete.ravel()) / discrete.size == pytest.approx([0.625, 0.125, 0.125, 0.125], abs=0.02)


def test_kinds_are_checked():
    with pytest.raises(ValueError, match=r"data.noise_kind must be one of uniform, none, or several joined by \+; got burst"):
        DataConfig(noise=0.1, noise_kind="uniform+burst")
    assert Data().recipe() == Data(noise_kind="burst").recipe(), "without an amount the kind decides nothing"
