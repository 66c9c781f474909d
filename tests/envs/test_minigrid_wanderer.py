"""Detours: the agent visits other places first, and the expert labels every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.base import DataConfig
from envs.data import record
from envs.data.store import Dataset
from envs.minigrid import Config, MiniGrid


def recorded(folder: Path, id: str, detours: int, episodes: int = 60) -> tuple[MiniGrid, Dataset]:
    family = MiniGrid(Config(id=id, data=DataConfig(episodes=episodes, detours=detours)))
    return family, record.dataset(family, family.config.data, "train", folder)


@pytest.mark.parametrize("id", ["MiniGrid-FourRooms-v0", "MiniGrid-DoorKey-6x6-v0", "MiniGrid-MultiRoom-N2-S4-v0"])
def test_every_step_of_a_detour_is_labelled_by_the_expert(tmp_path: Path, id: str):
    family, data = recorded(tmp_path, id, detours=2)
    for episode in range(20):
        steps = slice(int(data.starts[episode]), int(data.ends[episode]))
        vector, expert = family.vector(1, seeds=family.seeds("train", 60)[episode : episode + 1]), family.expert()
        observation, _ = vector.reset()
        for row in range(steps.start, steps.stop):
            assert np.array_equal(data.observations["grid"][row], observation["grid"][0])
            assert data.columns["action"][row] == expert.act(vector)[0]
            observation = vector.step(data.columns["executed_action"][row : row + 1])[0]


def test_detours_lead_astray_and_then_end(tmp_path: Path):
    _, straight = recorded(tmp_path, "MiniGrid-FourRooms-v0", detours=0)
    _, data = recorded(tmp_path, "MiniGrid-FourRooms-v0", detours=3)
    assert len(data) > 1.5 * len(straight)
    astray = data.columns["executed_action"] != data.columns["action"]
    shares = [astray[low:high].mean() for low, high in zip(data.starts, data.ends, strict=True)]
    assert min(shares) == 0 and max(shares) > 0.3  # some episodes have none
    solved = data.columns["terminated"][data.ends - 1]
    assert solved.mean() > 0.9 and not astray[data.ends[solved] - 1].any()  # the last step is the expert's


def test_detours_are_a_function_of_the_seed(tmp_path: Path):
    _, one = recorded(tmp_path / "one", "MiniGrid-FourRooms-v0", detours=2)
    _, two = recorded(tmp_path / "two", "MiniGrid-FourRooms-v0", detours=2)
    assert one.fingerprint == two.fingerprint
