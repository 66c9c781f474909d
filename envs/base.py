"""What an environment family offers: vector environments, an expert, splits, references and a success rule.

A family is one file or one folder in `envs/`. Its YAML names its class (`_target_: envs.minigrid.MiniGrid`); the
dataclass called `Config` beside that class types the YAML. Spaces are known without starting a simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.annealed import AnnealedExpert

# Episode seeds by split. The ranges never overlap; `best` is chosen on val, test is touched by the final evaluation only.
SPLITS = {"train": (0, 1_000_000_000), "val": (1_000_000_000, 1_500_000_000), "test": (1_500_000_000, 2_000_000_000)}
EPISODES_PER_DATA_SEED = 1_000_000  # train episodes of `env.data.seed=s` start at s times this


@dataclass
class DataConfig:
    """`env.data.*`: everything that decides which episodes are recorded (and so the dataset's address).

    `expert` records single episodes. The other sources are learners that get better from episode to episode of one task: they
    record whole histories, and as many of them as fit into `episodes` (at least one, if need be a shorter one).
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("annealed_expert",)  # that record histories; families that know more add them

    # Who chooses the actions: the expert, a learner, or several learners in equal shares (explorer+ppo+ppo: a third and two).
    source: str = "expert"
    episodes: int = 6000  # training episodes
    val_episodes: int = 200  # episodes for the validation loss
    episodes_per_history: int = 40  # how long a learner stays with one task; the expert has no histories
    noise: float = 0.0  # share of steps that execute a random action; the label stays the expert's
    detours: int = 0  # up to so many random places are visited before the expert is followed, who labels every step of it
    seed: int = 0  # another seed, other training layouts and other tie-breaks

    def __post_init__(self) -> None:
        known = ("expert", *self.SOURCES)
        if self.source not in known and not set(self.learners) <= set(self.SOURCES):
            several = f", or several of {', '.join(self.SOURCES)} joined by +" if len(self.SOURCES) > 1 else ""
            raise ValueError(f"data.source must be one of {', '.join(known)}{several}, got {self.source}")
        for name in ("episodes", "val_episodes", "episodes_per_history"):
            if not 1 <= getattr(self, name) <= EPISODES_PER_DATA_SEED:
                raise ValueError(f"data.{name} must be between 1 and {EPISODES_PER_DATA_SEED}, got {getattr(self, name)}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"data.noise is a probability below 1, got {self.noise}")
        if (self.noise or self.detours) and self.learners:
            raise ValueError(f"data.source={self.source} explores by itself; data.noise and data.detours are for the expert")
        if not 0 <= self.detours <= 100:
            raise ValueError(f"data.detours must be between 0 and 100, got {self.detours}")
        if not 0 <= self.seed < 1000:
            raise ValueError(f"data.seed must be between 0 and 999, got {self.seed}")

    @property
    def learners(self) -> list[str]:
        """The sources of learning histories; none where the expert's single episodes are recorded."""
        return [] if self.source == "expert" else self.source.split("+")

    def histories(self, episodes: int) -> tuple[int, int]:
        """How many histories, and of how many episodes each, are made of so many episodes: of each learner one at least."""
        length = max(1, min(self.episodes_per_history, episodes // max(1, len(self.learners))))
        return episodes // length, length

    def recipe(self) -> dict[str, Any]:
        """What of this decides how an episode looks; their number is told by the seeds."""
        return {"source": self.source, "noise": self.noise, "detours": self.detours, "seed": self.seed}


@dataclass(frozen=True)
class Spaces:
    """What a policy sees and does: one entry a modality (`grid`, `direction`, `mission`, `image`, `state`), and the action."""

    observation: spaces.Dict
    action: spaces.Space

    def to_json(self) -> dict[str, Any]:
        return {
            "observation": {name: _space_to_json(space) for name, space in self.observation.items()},
            "action": _space_to_json(self.action),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Spaces:
        observation = spaces.Dict({name: _space_from_json(space) for name, space in record["observation"].items()})
        return cls(observation, _space_from_json(record["action"]))


class Expert(Protocol):
    """Who labels states. It may look at the simulator's state (`vector`), not only at what the policy sees."""

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The best action [N] in the present state of every lane, whatever was executed before."""
        ...


class Learner(Protocol):
    """Who plays the histories of many lanes at once and gets better at it, from nothing but what a policy sees and is paid."""

    def act(self, observation: dict[str, np.ndarray], turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N], and the log-probability [N] that each had: NaN where there is no saying. `turn` [N] counts the episodes
        of the lane's history from 0; -1 in a lane whose history is over."""
        ...

    def learn(self, after: dict[str, np.ndarray], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:
        """What came of these actions; `after` is what each step ended in, also where the next episode has begun."""
        ...


@dataclass
class Score:
    """How one player did, episode by episode: the same episodes in the same order as everybody it is compared with."""

    success: np.ndarray  # [E] bool
    returns: np.ndarray  # [E] float
    lengths: np.ndarray  # [E] int


class Family:
    """One environment family, constructed as `cls(config)`, where `config` is the dataclass called `Config` beside the class.

    Subclasses fill in the methods; the error of each is its signature.
    """

    config: Any  # its field `data` is a DataConfig
    spaces: Spaces
    max_steps: int  # an episode is truncated after this many steps
    cycle: int = 1  # after so many episodes of a task what is asked for begins anew
    lanes: int = 1024  # episodes recorded at once, the block that noise is a function of; fewer where a lane is costly

    @property
    def action_names(self) -> list[str]:
        """Short names of the discrete actions, for pictures."""
        return [str(action) for action in range(int(self.spaces.action.n))]  # type: ignore[attr-defined]

    @classmethod
    def accepts(cls, config: Any, needs_expert: bool) -> str | None:
        """A sentence if this configuration cannot run here (unknown id, no expert), else None. Called before anything is made."""
        raise NotImplementedError("accepts(config, needs_expert) -> sentence or None")

    def vector(
        self,
        num_envs: int,
        split: str = "train",
        tasks: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
        episodes_per_task: int = 1,
    ) -> VectorEnv:
        """Same-step autoreset. Lane k plays seeds[k], seeds[k+N], ...; `info["episode"]` [N] is the index into `seeds`, or -1
        once a lane ran out; arrays that were returned are never written again."""
        raise NotImplementedError("vector(num_envs, split, tasks, seeds, episodes_per_task) -> VectorEnv")

    def seeds(self, split: str, episodes: int) -> np.ndarray:
        """The first episode seeds of a split. Training seeds move with `data.seed`; val and test are the same for everybody."""
        low, high = SPLITS[split]
        if split == "train":
            low += self.config.data.seed * EPISODES_PER_DATA_SEED
        assert low + episodes <= high
        return np.arange(low, low + episodes)

    def expert(self) -> Expert:
        raise NotImplementedError("expert() -> Expert, or BadRequest with a sentence")

    def learner(self, source: str, vector: VectorEnv, episodes: int, random: np.random.Generator) -> Learner:
        """One of `config.data.SOURCES` for the lanes of `vector`, each of which plays one history of so many episodes."""
        assert source == "annealed_expert"
        return AnnealedExpert(self.expert(), vector, episodes, random)

    def pool(self, source: str) -> int:
        """How many neighbouring lanes share one learner, and so have to share a task."""
        return 1

    def wanderer(self) -> Expert:
        """Who makes `data.detours`; its actions are -1 in lanes whose detours are over. Played one episode a lane."""
        raise NotImplementedError("wanderer() -> Expert, where a configuration with data.detours is accepted")

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Which lanes [N] have just solved their episode, from what `vector.step` returned."""
        raise NotImplementedError("success(reward, terminated, truncated, info) -> bool [N]")

    def optimum(self, seeds: np.ndarray, turn: int = 0) -> Score | None:
        """The best possible score on exactly these episodes, where it can be computed; of tasks, on their episode `turn`."""
        return None

    def random_return(self, seeds: np.ndarray, turn: int = 0) -> np.ndarray | None:
        """The exact expectation [E] of what random play scores, where it can be computed; of tasks, on their episode `turn`."""
        return None

    def task_names(self, seeds: np.ndarray) -> list[str]:
        """What is hidden in the task that each seed names: equal names, equal tasks."""
        return [str(seed) for seed in seeds]

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Which of the episodes `seeds` [E] have a layout or task that occurs among `training`: all, and nothing is held out."""
        raise NotImplementedError("seen_in_training(seeds, training) -> bool [E]")

    def signature(self) -> dict[str, Any]:
        """What, besides `data`, decides how an episode looks: `id`, arguments, versions. Part of the dataset's address."""
        raise NotImplementedError("signature() -> dict")

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], turns: np.ndarray | None = None) -> list[np.ndarray]:
        """Frames [T+1,H,W,3] uint8 of each episode, replayed from its seed and its actions, for GIFs. `turns`: the which of its
        task's episodes each is, where tasks are played several times in a row."""
        raise NotImplementedError("render(seeds, actions, turns) -> list of frames")


def _space_to_json(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"type": "discrete", "n": int(space.n)}
    if isinstance(space, spaces.Box):
        shape, dtype = list(space.shape), str(space.dtype)
        bounds = {}
        for name, bound in (("low", space.low), ("high", space.high)):
            first = bound.flat[0].item()
            bounds[name] = first if (bound == first).all() else bound.tolist()
        return {"type": "box", "shape": shape, "dtype": dtype, **bounds}
    raise TypeError(f"a space of type {type(space).__name__} has no JSON form; use Box or Discrete")


def _space_from_json(record: dict[str, Any]) -> spaces.Space:
    if record["type"] == "discrete":
        return spaces.Discrete(record["n"])
    dtype = np.dtype(record["dtype"])
    low, high = (np.broadcast_to(np.asarray(record[name], dtype), record["shape"]) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)
