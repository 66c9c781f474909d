"""Any Gymnasium id, and episodes imported from and exported to Minari."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from conf.errors import BadRequest
from envs.adapter import Adapter
from envs.data import record
from envs.data.config import DataConfig
from envs.data.minari import export
from envs.gym import Config, Gym
from envs.gym.family import Data
from envs.minigrid import Config as MiniGridConfig
from envs.minigrid import MiniGrid
from envs.play import play
from trainers.evaluate.rollout import RandomPlayer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")  # it reminds authors of links


def balance(observation: np.ndarray) -> int:
    """A pole stays up if the cart follows it."""
    return int(observation[2] + 0.3 * observation[3] > 0)


@pytest.fixture
def cartpole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Minari dataset of thirty episodes that are cut off after sixty steps."""
    minari = pytest.importorskip("minari", reason="pip install 'iolaus[minari]'")
    pytest.importorskip("h5py", reason="pip install 'iolaus[minari]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env, episodes = gymnasium.make("CartPole-v1", max_episode_steps=60), []
    for seed in range(30):
        observations, actions, ended = [env.reset(seed=seed)[0]], [], (False, False)
        while not any(ended):
            actions.append(balance(observations[-1]))
            observation, _, *ended, _ = env.step(actions[-1])
            observations.append(observation)
        flags = [[False] * (len(actions) - 1) + [bool(flag)] for flag in ended]
        episodes.append(
            minari.data_collector.EpisodeBuffer(
                observations=np.stack(observations),
                actions=np.array(actions),
                rewards=[1.0] * len(actions),
                terminations=flags[0],
                truncations=flags[1],
            )
        )
    minari.create_dataset_from_buffers("cartpole/balance-v0", episodes, env="CartPole-v1")
    return "cartpole/balance-v0"


def test_a_minari_dataset_becomes_ours(cartpole: str, tmp_path: Path):
    config = Config(data=Data(source=cartpole, val_episodes=5))
    train, val = (record.dataset(Gym(config), config.data, split, tmp_path / "data") for split in ("train", "val"))
    assert (len(train.ends), len(val.ends)) == (25, 5)
    assert train.observations["state"].dtype == np.float32 and train.columns["action"].dtype == np.int64
    first = gymnasium.make("CartPole-v1").reset(seed=0)[0]
    assert np.array_equal(train.observations["state"][0], first)
    assert train.columns["truncated"][train.ends - 1].all() and not train.columns["terminated"].any()


@pytest.mark.slow
def test_it_can_be_learned_from(cartpole: str, launch: Callable[..., Any], here: Path, tmp_path: Path):
    words = ("env=gym", f"env.data.source={cartpole}", "policy=bc_mlp", "trainer.max_steps=150", "trainer.batch_size=64")
    small = (
        "trainer.eval_episodes=0",
        "eval.episodes=6",
        "eval.media=1",
        "logger=none",
        "env.max_steps=100",
        "hydra.run.dir=run",
    )
    launch(*words, *small, MINARI_DATASETS_PATH=str(tmp_path / "minari"))
    scores = json.loads((here / "run/summary.json").read_text())["scores"]
    assert scores["greedy"]["return"] > 60 > scores["random"]["return"]  # random play falls after some twenty steps


def test_mode_export_writes_a_minari_dataset(launch: Callable[..., Any], here: Path, tmp_path: Path):
    pytest.importorskip("h5py", reason="pip install 'iolaus[minari]'")
    words = ("mode=export", "env.id=MiniGrid-DoorKey-5x5-v0", "env.data.episodes=6", "env.data.val_episodes=2")
    done = launch(*words, "env.data.export_to=minigrid/six-v0", MINARI_DATASETS_PATH=str(tmp_path / "minari"))
    assert "minari.load_dataset('minigrid/six-v0')" in done.stdout and (tmp_path / "minari/minigrid/six-v0").exists()
    again = launch(*words, check=False)
    assert again.returncode == 2 and "env.data.export_to=" in again.stderr


@pytest.mark.parametrize("words", [{"source": "cartpole/expert-v0"}, {"export_to": "minigrid/six-v0"}])
def test_a_missing_minari_is_named_before_anything_is_recorded(words: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'iolaus[minari]'" in str(DataConfig(**words).missing())
    assert DataConfig().missing() is None


def test_our_episodes_go_to_minari_and_come_back_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    minari = pytest.importorskip("minari", reason="pip install 'iolaus[minari]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    config = MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0")
    config.data.episodes, config.data.val_episodes = 12, 3
    ours = record.dataset(MiniGrid(config), config.data, "train", tmp_path / "data")
    export(ours, "minigrid/doorkey-v0", gymnasium.spec(config.id), "twelve episodes of the planner")
    assert minari.load_dataset("minigrid/doorkey-v0").recover_environment().unwrapped.mission.startswith("use the key")
    config.data.source = "minigrid/doorkey-v0"
    parts = [record.dataset(MiniGrid(config), config.data, split, tmp_path / "data") for split in ("train", "val")]
    assert [len(part.ends) for part in parts] == [10, 2]  # a fifth at most is held out
    for name, column in ours.columns.items():
        assert np.array_equal(np.concatenate([part.columns[name] for part in parts]), column), name


def test_our_episodes_of_another_task_are_refused_although_the_spaces_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("minari", reason="pip install 'iolaus[minari]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    config = MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0")
    config.data.episodes, config.data.val_episodes = 4, 1
    export(record.dataset(MiniGrid(config), config.data, "train", tmp_path / "data"), "minigrid/four-v0", None, "")
    other = MiniGridConfig(id="MiniGrid-Empty-5x5-v0", max_steps=20)
    other.data.source = "minigrid/four-v0"
    with pytest.raises(BadRequest, match=r"env\.id is MiniGrid-DoorKey-5x5-v0 there and MiniGrid-Empty-5x5-v0 here, env\.max_st"):
        record.dataset(MiniGrid(other), other.data, "train", tmp_path / "data")
    other.max_steps, other.id = config.max_steps, config.id
    assert len(record.dataset(MiniGrid(other), other.data, "train", tmp_path / "data").ends) == 3


def test_labels_that_were_not_executed_are_not_exported(tmp_path: Path):
    pytest.importorskip("minari", reason="pip install 'iolaus[minari]'")
    config = MiniGridConfig(id="MiniGrid-DoorKey-5x5-v0")
    config.data.episodes, config.data.val_episodes, config.data.noise = 3, 1, 0.5
    ours = record.dataset(MiniGrid(config), config.data, "train", tmp_path / "data")
    with pytest.raises(BadRequest, match=r"without env\.data\.noise"):
        export(ours, "minigrid/noisy-v0", None, "")


def test_a_return_of_punishments_is_judged_at_the_end():
    """MountainCar pays -1 a step and asks for -110: a first step is no success."""
    family = Gym(Config(id="MountainCar-v0"))
    played = play(RandomPlayer(family, 0), family, family.seeds("test", 2), 1)
    assert played.score.returns.tolist() == [-200, -200] and not played.score.success.any()
    family = Gym(Config(id="MountainCar-v0", success_return=-200))
    assert play(RandomPlayer(family, 0), family, family.seeds("test", 2), 1).score.success.all()


def test_other_spaces_are_refused(cartpole: str, tmp_path: Path):
    config = Config(id="MountainCar-v0", data=Data(source=cartpole))
    with pytest.raises(BadRequest, match="recorded in other spaces"):
        record.dataset(Gym(config), config.data, "train", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]


def test_a_damaged_file_is_refused_and_leaves_nothing(cartpole: str, tmp_path: Path):
    [file] = (tmp_path / "minari").rglob("main_data.hdf5")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    config = Config(data=Data(source=cartpole))
    with pytest.raises(BadRequest, match="is its file whole"):
        record.dataset(Gym(config), config.data, "train", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["env.id=CartPol-v1"], "did you mean CartPole-v1"),
        (["env.id=evil:Env-v0"], "trusted_packages=[evil]"),
        (["env.package=evil_package"], "trusted_packages=[evil_package]"),
        ([], "env=gym has no expert to record"),
        (["env.data.source=cartpole/nowhere-v0"], "is no Minari dataset on this machine"),
    ],
)
def test_mistakes_are_sentences(words: list[str], sentence: str, launch: Callable[..., Any], here: Path):
    done = launch("env=gym", "policy=bc_mlp", *words, check=False)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.Box(-1, 1, (2, 2), np.float32),
        spaces.MultiDiscrete([3, 4]),
        spaces.MultiBinary(3),
    ],
)
def test_actions_survive_both_ways(space: spaces.Space):
    space.seed(0)
    adapter = Adapter(spaces.Box(-1, 1, (2,)), space)
    actions = np.stack([space.sample() for _ in range(20)])
    for theirs, ours in zip(actions, adapter.encode(actions), strict=True):
        assert adapter.spaces.action.contains(ours) and np.array_equal(adapter.decode(ours), theirs)


def test_observations_find_their_modality():
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "joints": spaces.Dict({"arm": spaces.Box(-1, 1, (2,)), "grip": spaces.Discrete(2)}),
            "told": spaces.Text(12),
        }
    )
    space.seed(0)
    adapter = Adapter(space, spaces.Discrete(2))
    seen = adapter.observation({**space.sample(), "told": "go to the red door"})
    assert set(seen) == {"camera", "joints_arm", "joints_grip", "told"}
    assert adapter.spaces.observation.contains(seen)
    assert seen["told"][:5].all() and not seen["told"][5:].any()
