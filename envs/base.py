"""The contract of an environment family: vector environments, an expert, splits, references and a success rule.

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
    """One player's scores by episode. Players that are compared play the same episodes in the same order."""

    success: np.ndarray | None  # [E] bool; None in a family that does not define success
    returns: np.ndarray  # [E] float
    lengths: np.ndarray  # [E] int


class Family:
    """One environment family, constructed as `cls(config)`, where `config` is the dataclass called `Config` beside the class.

    A subclass must have the attributes `config`, `spaces` and `max_steps`, and the methods `accepts`, `make_vector`,
    `seen_in_training` and `signature`; `success`, unless `has_success = False`; and `expert`, if there is one. The rest has
    defaults. A method that is missing raises an error that shows its signature.
    """

    config: Any  # its field `data` is a DataConfig
    spaces: Spaces
    max_steps: int  # an episode is truncated after this many steps
    has_success: bool = True  # False if only returns are known: then they are the headline
    success_within: tuple[int, ...] = ()  # also report the share of episodes solved within these numbers of steps
    no_op: Any = None  # the action that does nothing, if there is one: playing it is then a reference
    max_lanes: int | None = None  # the most lanes that an evaluation plays at once, for simulators that need much time or memory
    record_batch: int = 1024  # episodes recorded at once; part of the dataset's address; fewer where a lane needs much memory
    keeps_failures: bool = True  # False: episodes in which the expert acted and failed are not recorded
    expert_takes_over: bool = True  # False: the expert only finishes what it began, and cannot go on from states of others
    task_period: int = 1  # episodes of a task after which its goals repeat
    tasks_in_turn: int = 1  # neighbouring episode seeds that are of different tasks, in a family that plays several by turns

    @property
    def adapter(self) -> Adapter:
        """Converts episodes that were recorded elsewhere. By default they already have our modalities and actions."""
        return Native(self.spaces)

    @property
    def env_spec(self) -> EnvSpec | None:
        """The spec of the registered environment that this family plays. Exported episodes carry it."""
        return None

    @property
    def action_names(self) -> list[str]:
        """Short names of the discrete actions, for pictures."""
        return [str(action) for action in range(int(self.spaces.action.n))]  # type: ignore[attr-defined]

    @classmethod
    def accepts(cls, config: Any, needs: Needs = "play") -> str | None:
        """A sentence if this configuration does not provide what is needed, else None. Called before anything is made.

        Subclasses also call this method: it checks what the class itself lacks.
        """
        if needs == "data" and config.data.detours and cls.wanderer is Family.wanderer:
            return f"env.data.detours is not available in {cls.__name__}, which has no way to wander; leave it out."
        return config.data.missing() if needs == "data" else None

    @classmethod
    def suggested_ids(cls) -> list[str]:
        """The ids that tab completion offers for `env.id=`, in families that have ids."""
        return []

    def vector(
        self,
        num_envs: int,
        split: str | None = None,
        tasks: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
        episodes_per_task: int = 1,
    ) -> VectorEnv:
        """A vector environment that plays each of the episodes `seeds` once, or each of `tasks` `episodes_per_task` times in a
        row; without either, the endless stream of a split. Lane k plays episode k, k+N, ...

        Same-step autoreset. `info["episode_index"]` [N] is the index into these episodes, -1 in a lane that has no episode left.
        Returned arrays are never written again.
        """
        if split is not None and seeds is not None:
            raise ValueError("seeds name the episodes already: give seeds or split, not both")
        split = split or "train"
        first, stop = int(self.seeds(split, 1)[0]), SPLITS[split][1]
        return self.make_vector(Deal(num_envs, seeds, tasks, episodes_per_task, first, stop))

    def make_vector(self, deal: Deal) -> VectorEnv:
        raise NotImplementedError("make_vector(deal) -> VectorEnv that plays what `deal` deals to its lanes")

    def seeds(self, split: str, episodes: int) -> np.ndarray:
        """The first episode seeds of a split. Training seeds depend on `data.seed`; val and test are always the same."""
        low, high = SPLITS[split]
        if split == "train":
            low += self.config.data.seed * EPISODES_PER_DATA_SEED
        assert low + episodes <= high
        return np.arange(low, low + episodes)

    def unobserved(self) -> Family:
        """The same episodes for players that ignore observations, so that slow ones (images) need not be made."""
        return self

    def expert(self) -> Expert:
        raise BadRequest(f"{type(self).__name__} has no expert")

    def learner(self, source: str, vector: VectorEnv, episodes: int, random: np.random.Generator) -> Learner:
        """The learner `source`, one of `config.data.SOURCES`, for the lanes of `vector`. Each lane plays one history of
        `episodes` episodes."""
        assert source == "annealed_expert"
        return AnnealedExpert(self.expert(), vector, episodes, random)

    def lanes_per_learner(self, source: str) -> int:
        """How many neighbouring lanes share one learner, and so must have the same task."""
        return 1

    def wanderer(self) -> Expert:
        """Plays `data.detours`. Its actions are -1 in lanes whose detours are over. Each lane plays one episode."""
        raise BadRequest(f"{type(self).__name__} has no way to wander; leave out env.data.detours")

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Which lanes [N] have just solved their episode, from what `vector.step` returned. Called only if `has_success`."""
        raise NotImplementedError("success(reward, terminated, truncated, info) -> bool [N]")

    def optimum(self, seeds: np.ndarray, episode: int = 0) -> Score | None:
        """The best possible score on exactly these episodes, if it can be computed. For tasks: on episode `episode` of each."""
        return None

    def random_return(self, seeds: np.ndarray, episode: int = 0) -> np.ndarray | None:
        """The exact expected return [E] of random play, if it can be computed. For tasks: on episode `episode` of each."""
        return None

    def groups(self, seeds: np.ndarray) -> dict[str, list[str]]:
        """Ways to divide these episodes [E] into groups whose success is reported too: {"task": [the task of each episode]}."""
        return {}

    def task_names(self, seeds: np.ndarray) -> list[str]:
        """A name for the hidden part of each seed's task. Equal names mean equal tasks."""
        return [str(seed) for seed in seeds]

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Which of the episodes `seeds` [E] have a layout or task that occurs among the seeds `training`."""
        raise NotImplementedError("seen_in_training(seeds, training) -> bool [E]")

    def signature(self) -> dict[str, Any]:
        """Everything besides `data` that decides what an episode is: `id`, arguments, versions. Part of the dataset's address."""
        raise NotImplementedError("signature() -> dict")

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray] | None:
        """Frames [T+1,H,W,3] uint8 of each episode, replayed from its seed and actions; None in a family without pictures. Where
        tasks are played several times in a row, `episodes` is each episode's index within its task."""
        return None
