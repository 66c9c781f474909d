"""Recording in a family with features that MiniGrid lacks: vector actions, images, floats, slow lanes, a slash in its id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.base import DataConfig, Family, Spaces
from envs.data import hashes, statistics
from envs.data.record import dataset
from envs.data.store import Dataset
from envs.data.windows import Window, Windows
from envs.deal import Deal
from envs.minigrid import Config, MiniGrid
from envs.minigrid.family import MiniGridData

BOX = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32))


class Walks(VectorEnv):
    """An episode lasts 1 + seed mod 4 steps and shows its seed and its step; solved if `info` says so."""

    def __init__(self, deal: Deal, spaces: Spaces):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.deal = deal.num_envs, deal
        self.single_action_space, self.action_space = spaces.action, batch_space(spaces.action, deal.num_envs)

    def reset(self, *, seed=None, options=None):
        self.step_index = np.zeros(self.num_envs, np.int64)
        self.hand = self.deal.next(np.arange(self.num_envs))
        self.alive = self.hand.episode >= 0
        return self.seen(), {"episode_index": self.hand.episode}

    def seen(self):
        state = np.stack([self.hand.seed % 1000 / 7, self.step_index / 3], 1).astype(np.float32)
        image = np.broadcast_to((self.step_index % 2)[:, None, None, None], (self.num_envs, 84, 84, 3)).astype(np.uint8)
        return {"state": state, "image": image}

    def step(self, actions):
        assert all(action in self.single_action_space for action in actions[self.alive])
        self.step_index = self.step_index + 1
        terminated = self.alive & (self.step_index > self.hand.seed % 4)
        self.alive = self.alive & ~terminated
        episode = np.where(self.alive, self.hand.episode, -1)
        info = {"episode_index": episode, "is_success": terminated & (self.hand.seed % 2 == 0)}
        return self.seen(), np.ones(self.num_envs), terminated, np.zeros(self.num_envs, bool), info


class Expert:
    def __init__(self, action: spaces.Space):
        self.action = action

    def act(self, vector):
        if isinstance(self.action, spaces.Discrete):
            return vector.step_index % 2
        return np.stack([vector.step_index / 8, vector.hand.seed % 4], 1)  # float64, as scripts like to


class WalksFamily(Family):
    record_batch = 3
    max_steps = 4

    def __init__(self, action: spaces.Space = BOX, id: str = "ALE/Walks-v5"):
        self.config, self.id = None, id
        image, state = spaces.Box(0, 255, (84, 84, 3), np.uint8), spaces.Box(-1e3, 1e3, (2,), np.float32)
        self.spaces = Spaces(spaces.Dict({"state": state, "image": image}), action)

    def make_vector(self, deal):
        return Walks(deal, self.spaces)

    def seeds(self, split, episodes):
        return np.arange(episodes)

    def expert(self):
        return Expert(self.spaces.action)

    def success(self, reward, terminated, truncated, info):
        return info["is_success"]

    def signature(self):
        return {"id": self.id}


class Other(WalksFamily):
    pass


DATA = DataConfig(episodes=10, noise=0.5)


@pytest.mark.parametrize("action", [BOX, spaces.Discrete(4)], ids=["box", "discrete"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_episodes_are_recorded_whole_and_in_order(tmp_path, action, noise):
    data = dataset(WalksFamily(action), replace(DATA, noise=noise), "train", tmp_path)
    lengths = 1 + np.arange(10) % 4
    assert np.array_equal(data.ends, np.cumsum(lengths))
    seed, step_index = np.repeat(np.arange(10), lengths), np.arange(len(data)) - np.repeat(data.starts, lengths)
    assert np.array_equal(data.observations["state"], np.stack([seed / 7, step_index / 3], 1).astype(np.float32))
    assert np.array_equal(data.observations["image"][:, 0, 0, 0], step_index % 2)
    label = step_index % 2 if isinstance(action, spaces.Discrete) else np.stack([step_index / 8, seed % 4], 1)
    assert np.array_equal(data.columns["action"], label) and data.columns["action"].dtype == action.dtype
    assert data.meta["expert"] == {"success": 0.5, "return": lengths.mean()}
    assert ("executed_action" in data.columns) == bool(noise)
    if noise:
        differs = (data.columns["executed_action"] != data.columns["action"]).reshape(len(data), -1)
        assert 0.1 < differs.any(1).mean() < 0.9
        assert all(executed in action for executed in data.columns["executed_action"])
        assert (differs.all(1) == differs.any(1)).all(), "a random action replaces the whole vector"


def test_the_noise_is_a_function_of_the_recipe(tmp_path):
    def fingerprint(name: str, data: DataConfig) -> str:
        return dataset(WalksFamily(), data, "train", tmp_path / name).fingerprint

    assert fingerprint("a", DATA) == fingerprint("b", DATA) != fingerprint("c", replace(DATA, seed=1))


def test_the_address_follows_the_class_and_is_one_folder(tmp_path):
    def folder(family: Family) -> Dataset:
        return dataset(family, DATA, "train", tmp_path).folder

    assert folder(WalksFamily()).parent == tmp_path and folder(WalksFamily()).name.startswith("ALE-Walks-v5-train-")
    assert len({folder(WalksFamily()), folder(Other()), folder(WalksFamily(id="ALE-Walks-v5"))}) == 3


@pytest.mark.parametrize("block", [1, 1 << 26], ids=["row by row", "at once"])
def test_float_rows_are_told_apart(monkeypatch, block):
    """As integers all of these would be zero."""
    monkeypatch.setattr(hashes, "BLOCK", block)
    state, nothing = (np.arange(40) % 2 / 2).astype(np.float32)[:, None], np.zeros((40, 2))
    found = hashes.row_hashes([state, nothing])
    assert len(set(found[::2].tolist())) == len(set(found[1::2].tolist())) == 1 and found[0] != found[1]
    assert len(set(hashes.row_hashes([nothing]).tolist())) == 1


def test_a_floor_counts_what_is_seen_of_a_window(tmp_path):
    """The action is the step modulo 2, and so is the image. Every state occurs once, since it shows the seed and the step."""
    windows = Windows(dataset(WalksFamily(spaces.Discrete(4)), DATA, "train", tmp_path), Window())
    image, whole = statistics.floor(windows, ["image"]), statistics.floor(windows)
    assert image.known and image.entropy == pytest.approx(0) and image.chance == pytest.approx(np.log(4))
    assert not whole.known and "not countable" in str(whole) and f"{whole.entropy:.3f}" not in str(whole)
    windows.dataset.observations["image"] = np.zeros((len(windows), 1), np.uint8)
    entropy = statistics.label_entropy(windows.dataset.columns["action"])
    assert statistics.floor(windows, ["image"]).entropy == pytest.approx(entropy)


def test_episodes_in_which_the_expert_failed_can_be_left_out(tmp_path):
    """With 16 steps the planner reaches the goal of some layouts only."""
    whole, solved = (
        dataset(MiniGrid(Config("MiniGrid-FourRooms-v0", max_steps=16, data=data)), data, "train", tmp_path)
        for data in (MiniGridData(episodes=30), MiniGridData(episodes=30, keep_failures=False))
    )
    succeeded = np.repeat(whole.columns["terminated"][whole.ends - 1], whole.ends - whole.starts)
    assert 0 < len(solved.ends) == 30 - solved.meta["left_out"] < 30 == len(whole.ends)
    assert np.array_equal(solved.columns["action"], whole.columns["action"][succeeded])
    with pytest.raises(ValueError, match="keep_failures=false is for episodes of the expert"):
        DataConfig(source="annealed_expert", keep_failures=False)
