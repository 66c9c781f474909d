"""What an environment family offers: vector environments, an expert, splits, references and a success rule.

A family is one file or one folder in `envs/`. Its YAML names its class (`_target_: envs.minigrid.MiniGrid`); the
dataclass called `Config` beside that class types the YAML. Spaces are known without starting a simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from conf.errors import BadRequest
from envs.adapter import Adapter, Native
from envs.annealed import AnnealedExpert
from envs.data.config import EPISODES_PER_DATA_SEED, DataConfig
from envs.deal import Deal
from envs.roles import Expert, Learner
from envs.spaces import Spaces

__all__ = ["SPLITS", "DataConfig", "Expert", "Family", "Learner", "Needs", "Score", "Spaces"]

# Episode seeds by split. The ranges never overlap; `best` is chosen on val, test is touched by the final evaluation only.
SPLITS = {"train": (0, 1_000_000_000), "val": (1_000_000_000, 1_500_000_000), "test": (1_500_000_000, 2_000_000_000)}

# What a mode needs of a family: that it can be played, that it has the episodes of `config.data`, or that it has an expert.
Needs = Literal["play", "data", "expert"]


@dataclass
class Score:
    """The scores of one player by episode, on the same episodes in the same order as the players it is compared with."""

    success: np.ndarray | None  # [E] bool; None in a family that knows no success
    returns: np.ndarray  # [E] float
    lengths: np.ndarray  # [E] int


class Family:
    """One environment family, constructed as `cls(config)`, where `config` is the dataclass called `Config` beside the class.

    A subclass must have the attributes `config`, `spaces` and `max_steps`, and the methods `accepts`, `make_vector`,
    `seen_in_training` and `signature`; `success`, unless it says `has_success = False`; `expert`, where there is one. The rest
    has defaults. The error of each method is its signature.
    """

    config: Any  # its field `data` is a DataConfig
    spaces: Spaces
    max_steps: int  # an episode is truncated after this many steps
    has_success: bool = True  # False where only returns are known: they are the headline then
    success_within: tuple[int, ...] = ()  # also report the share of episodes solved within these numbers of steps
    no_op: Any = None  # the action that does nothing; where there is one, playing it is a reference
    max_lanes: int | None = None  # the most lanes that an evaluation plays at once, for simulators that are costly or heavy
    record_batch: int = 1024  # episodes recorded at once, the block that noise is a function of; fewer where a lane is costly
    task_period: int = 1  # episodes of a task after which its goals repeat

    @property
    def adapter(self) -> Adapter:
        """How episodes that were recorded elsewhere are read: by default they have our modalities and actions already."""
        return Native(self.spaces)

    @property
    def env_spec(self) -> EnvSpec | None:
        """Of the registered environment that this family plays, so that whoever gets its episodes can make it again."""
        return None

    @property
    def action_names(self) -> list[str]:
        """Short names of the discrete actions, for pictures."""
        return [str(action) for action in range(int(self.spaces.action.n))]  # type: ignore[attr-defined]

    @classmethod
    def accepts(cls, config: Any, needs: Needs = "play") -> str | None:
        """A sentence if this configuration cannot do what is needed, else None. Called before anything is made.

        Subclasses ask this one too: it knows what the class itself lacks.
        """
        if needs == "data" and config.data.detours and cls.wanderer is Family.wanderer:
            return f"env.data.detours is not available in {cls.__name__}, which has no way to wander; leave it out."
        return config.data.missing() if needs == "data" else None

    @classmethod
    def suggested_ids(cls) -> list[str]:
        """What tab completion offers for `env.id=`, of families that have one."""
        return []

    def vector(
        self,
        num_envs: int,
        split: str | None = None,
        tasks: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
        episodes_per_task: int = 1,
    ) -> VectorEnv:
        """Lanes that play the episodes `seeds`, or `tasks` (each `episodes_per_task` times in a row), each once; without either,
        the endless stream of a split. Lane k plays episode k, k+N, ...

        Same-step autoreset; `info["episode_index"]` [N] is the index into these episodes, or -1 once a lane ran out; arrays that
        were returned are never written again.
        """
        if split is not None and seeds is not None:
            raise ValueError("seeds name the episodes already: give seeds or split, not both")
        split = split or "train"
        first, stop = int(self.seeds(split, 1)[0]), SPLITS[split][1]
        return self.make_vector(Deal(num_envs, seeds, tasks, episodes_per_task, first, stop))

    def make_vector(self, deal: Deal) -> VectorEnv:
        raise NotImplementedError("make_vector(deal) -> VectorEnv that plays what `deal` deals to its lanes")

    def seeds(self, split: str, episodes: int) -> np.ndarray:
        """The first episode seeds of a split. Training seeds move with `data.seed`; val and test are the same for everybody."""
        low, high = SPLITS[split]
        if split == "train":
            low += self.config.data.seed * EPISODES_PER_DATA_SEED
        assert low + episodes <= high
        return np.arange(low, low + episodes)

    def unobserved(self) -> Family:
        """The same episodes for players that do not look at observations, and so need no costly ones."""
        return self

    def expert(self) -> Expert:
        raise BadRequest(f"{type(self).__name__} has no expert")

    def learner(self, source: str, vector: VectorEnv, episodes: int, random: np.random.Generator) -> Learner:
        """One of `config.data.SOURCES` for the lanes of `vector`, each of which plays one history of so many episodes."""
        assert source == "annealed_expert"
        return AnnealedExpert(self.expert(), vector, episodes, random)

    def lanes_per_learner(self, source: str) -> int:
        """How many neighbouring lanes share one learner, and so have to share a task."""
        return 1

    def wanderer(self) -> Expert:
        """Plays `data.detours`; its actions are -1 in lanes whose detours are over. Played one episode a lane."""
        raise BadRequest(f"{type(self).__name__} has no way to wander; leave out env.data.detours")

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Which lanes [N] have just solved their episode, from what `vector.step` returned. Not asked without `has_success`."""
        raise NotImplementedError("success(reward, terminated, truncated, info) -> bool [N]")

    def optimum(self, seeds: np.ndarray, episode: int = 0) -> Score | None:
        """The best possible score on exactly these episodes, where it can be computed; of tasks, on this episode of each."""
        return None

    def random_return(self, seeds: np.ndarray, episode: int = 0) -> np.ndarray | None:
        """The exact expectation [E] of what random play scores, where it can be computed; of tasks, on this episode of each."""
        return None

    def task_names(self, seeds: np.ndarray) -> list[str]:
        """A name for the hidden part of each seed's task: equal names, equal tasks."""
        return [str(seed) for seed in seeds]

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Which of the episodes `seeds` [E] have a layout or task that occurs among `training`: all, and nothing is held out."""
        raise NotImplementedError("seen_in_training(seeds, training) -> bool [E]")

    def signature(self) -> dict[str, Any]:
        """What, besides `data`, decides how an episode looks: `id`, arguments, versions. Part of the dataset's address."""
        raise NotImplementedError("signature() -> dict")

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray] | None:
        """Frames [T+1,H,W,3] uint8 of each episode, replayed from its seed and its actions; None in a family without pictures.
        `episodes` counts the episodes of the task from 0, where tasks are played several times in a row."""
        return None
