"""MiniGrid and BabyAI: every registered id, with missions as word tokens.

Papers: Chevalier-Boisvert et al., "Minigrid & Miniworld" (2023), arXiv 2306.13831; "BabyAI" (2019), arXiv 1810.08272.
The modality called `grid` is what MiniGrid calls image: 7x7 cells of (object, colour, state), not pixels.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import minigrid
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minigrid import envs as rules
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.minigrid_env import MiniGridEnv

from conf.errors import BadRequest
from envs.base import Family, Needs, Score
from envs.data.config import DataConfig
from envs.deal import Deal
from envs.minigrid.bank import bank, reset, simulator
from envs.minigrid.bot import CANNOT, Bot, Simulator
from envs.minigrid.engine import VERSION, Engine
from envs.minigrid.errands import ERRANDS, ErrandPlanner
from envs.minigrid.missions import kind
from envs.minigrid.planner import Planner
from envs.minigrid.rules import Fetch, Memory, rules_of
from envs.minigrid.searcher import Searcher
from envs.minigrid.vector import BatchedVector
from envs.minigrid.wanderer import Wanderer
from envs.play import ExpertPlayer, play
from envs.processes import ProcessVector
from envs.spaces import Spaces
from envs.text import VOCABULARY

PLANNED = {  # classes with MiniGrid's core rules that the planner solves, and their ids
    rules.EmptyEnv: "MiniGrid-Empty-*",
    rules.FourRoomsEnv: "MiniGrid-FourRooms-*",
    rules.DoorKeyEnv: "MiniGrid-DoorKey-*",
    rules.MultiRoomEnv: "MiniGrid-MultiRoom-*",
    rules.LockedRoomEnv: "MiniGrid-LockedRoom-*",
    rules.CrossingEnv: "MiniGrid-SimpleCrossing*, MiniGrid-LavaCrossing*",
    rules.LavaGapEnv: "MiniGrid-LavaGap*",
    rules.DistShiftEnv: "MiniGrid-DistShift*",
}
SEARCHED = {
    kind: PLANNED[kind] for kind in (rules.EmptyEnv, rules.FourRoomsEnv, rules.CrossingEnv, rules.LavaGapEnv, rules.DistShiftEnv)
}  # worlds without doors
WITH_ERRANDS = (  # ids with their own rules that have an expert too
    "MiniGrid-Unlock*, MiniGrid-BlockedUnlockPickup-*, MiniGrid-KeyCorridor*, MiniGrid-ObstructedMaze-*, MiniGrid-Fetch-*, "
    "MiniGrid-GoTo*, MiniGrid-PutNear-*, MiniGrid-RedBlueDoors-*, MiniGrid-Memory*, most BabyAI-*"
)
EXACT = (Engine, Fetch, Memory)  # rules under which the planner's plans are the shortest
LANES = 64  # of the real MiniGrid: more are not faster
SHARED = 250  # episodes from which on worker processes are worth the second that they take to start
TILE = 16  # pixels of a rendered cell
MINIGRID_WORDS = 18  # the longest mission of MiniGrid's own ids, which is LockedRoom's
BABYAI_WORDS = 72  # the longest sentence of BabyAI's grammar: twice "put the red ball in front of you next to ... and put ..."
BABYAI_ERRANDS = 8  # the most places that such a sentence sends the agent to; BabyAI's step limit is proportional to it


@dataclass
class MiniGridData(DataConfig):
    # expert: knows the whole world. searcher: knows only what it has seen, so it demonstrates how to look for the goal.
    EXPERTS: ClassVar[tuple[str, ...]] = ("expert", "searcher")


@dataclass
class Config:
    id: str = "MiniGrid-DoorKey-8x8-v0"  # any registered MiniGrid-* or BabyAI-* id; Empty-8x8 has one layout only
    max_steps: int = 0  # truncate after this many steps; 0 keeps the id's own limit (rewards depend on it)
    straight: bool = False  # among several optimal actions, prefer walking on to turning; false: draw one of them
    num_workers: int | None = None  # processes that play ids unknown to the engine; null for one a core, 0 for none but this one
    data: MiniGridData = field(default_factory=MiniGridData)

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ValueError(f"max_steps must be at least 1, or 0 for the id's own limit, got {self.max_steps}")
        if self.num_workers is not None and not 0 <= self.num_workers <= 256:
            raise ValueError(f"num_workers must be between 0 and 256, or null for one a core, got {self.num_workers}")


class MiniGrid(Family):
    """One id with its configuration. `batched`: whether the engine plays it. `planned`: whether there is an expert."""

    action_names = [action.name for action in Actions]  # noqa: RUF012  (replaces a property and is never changed)

    def __init__(self, config: Config) -> None:
        self.config = config
        env = simulator(config.id)
        self.batched = rules_of(env) is not None
        self.max_steps = config.max_steps or _longest_episode(env)
        self.rules = rules_of(env)
        self.planned = has_expert(env)
        if not self.batched:
            self.max_lanes, self.record_batch, self.keeps_failures = LANES, 32 * LANES, False
        view = env.agent_view_size
        high = np.array([max(table.values()) for table in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)], np.uint8)
        modalities = {
            "grid": spaces.Box(np.zeros((view, view, 3), np.uint8), np.tile(high, (view, view, 1)), dtype=np.uint8),
            "direction": spaces.Discrete(4),
            "mission": spaces.Box(0, VOCABULARY - 1, (_longest_mission(env),), np.uint8),
        }
        self.spaces = Spaces(spaces.Dict(modalities), spaces.Discrete(len(Actions)))

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        ids = [id for id in gymnasium.registry if id.startswith(("MiniGrid-", "BabyAI-"))]
        if config.id not in ids:
            part = [id for id in (Config.id, *cls.suggested_ids(), *ids) if config.id and config.id.lower() in id.lower()]
            close = part or difflib.get_close_matches(config.id, ids, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]}?" if close else "https://minigrid.farama.org lists them."
            return f"There is no MiniGrid or BabyAI id {config.id}. {hint}"
        entry = str(gymnasium.spec(config.id).entry_point)
        if ".wfc" in entry and not any((Path(rules.__file__).parent / "wfc" / "patterns").glob("*.png")):
            return (
                f"{config.id} cannot be made: it builds its mazes from pictures (minigrid/envs/wfc/patterns/*.png) that the "
                f"installed minigrid {minigrid.__version__} does not contain. Choose another id."
            )
        if ".wfc" in entry and not all(importlib.util.find_spec(name) for name in ("imageio", "networkx")):
            return f'{config.id} builds its mazes with extra packages: pip install "minigrid[wfc]".'
        needs_expert = needs == "expert" or (needs == "data" and config.data.needs_expert)
        if needs_expert and not has_expert(simulator(config.id)):
            return f"There is no expert for {config.id}. Ids that have one: {', '.join(PLANNED.values())}, {WITH_ERRANDS}."
        if needs_expert and config.data.source == "searcher" and type(simulator(config.id)) not in SEARCHED:
            return f"env.data.source=searcher opens no doors; it searches {', '.join(SEARCHED.values())}."
        if needs == "data" and config.data.detours and rules_of(simulator(config.id)) is None:
            return f"env.data.detours is not available in {config.id}, which the engine does not play; leave it out."
        return super().accepts(config, needs)

    @classmethod
    def suggested_ids(cls) -> list[str]:
        """The ids that have an expert."""
        patterns = [pattern for names in (*PLANNED.values(), WITH_ERRANDS) for pattern in names.split(", ")]
        return [id for id in gymnasium.registry if any(fnmatch.fnmatchcase(id, pattern) for pattern in patterns)]

    def make_vector(self, deal: Deal) -> BatchedVector | ProcessVector:
        """A task is a layout, given by its seed."""
        if self.batched:
            return BatchedVector(bank(self.config.id, self.config.max_steps), deal, self.spaces)
        make = partial(Simulator, self.config.id, self.config.max_steps, self.spaces.observation["mission"].shape[0])  # type: ignore[index]
        workers = self.config.num_workers if deal.episodes is None or deal.episodes >= SHARED else 0
        return ProcessVector(make, deal, self.spaces, workers)

    def expert(self) -> Planner | Searcher | Bot:
        if sentence := self.accepts(self.config, needs="expert"):
            raise BadRequest(sentence)
        if not self.batched:
            return Bot()
        if self.config.data.source == "searcher":
            return Searcher(self.config.data.seed, self.config.straight)
        kind = ErrandPlanner if self.rules in ERRANDS else Planner
        return kind(self.config.data.seed, self.config.straight)

    def wanderer(self) -> Wanderer:
        return Wanderer(self.config.data.seed, self.config.data.detours)

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return terminated & (reward > 0)

    def optimum(self, seeds: np.ndarray, episode: int = 0) -> Score | None:
        """The planner's episodes, where its plans are the shortest: the shortest episode has the highest return."""
        if not self.planned or self.rules not in EXACT:
            return None
        knows_all = replace(self.config, data=replace(self.config.data, source="expert"))
        return play(ExpertPlayer(MiniGrid(knows_all)), self, seeds, 256).score

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Compares layouts. Making one takes MiniGrid 0.05 ms (Empty) to 2 ms (BossLevel), once per process, so the 6000 of a
        training run take up to 10 s. For ids that the engine plays, most are in the bank already."""
        made = bank(self.config.id, self.config.max_steps)
        known = {layout.tobytes() for layout in made.layouts(np.asarray(training))}
        return np.array([layout.tobytes() in known for layout in made.layouts(np.asarray(seeds))])

    def groups(self, seeds: np.ndarray) -> dict[str, list[str]]:
        """BabyAI's episodes by their kind of instruction, where there are several."""
        if self.batched or not self.config.id.startswith("BabyAI-"):
            return {}
        made = bank(self.config.id, self.config.max_steps)
        kinds = [kind(made.missions[number]) for number in made.layouts(np.asarray(seeds))["mission"].tolist()]
        return {"instruction": kinds} if len(set(kinds)) > 1 else {}

    @property
    def env_spec(self) -> EnvSpec:
        return gymnasium.spec(self.config.id)

    def signature(self) -> dict[str, Any]:
        limit = {"max_steps": self.config.max_steps} if self.config.max_steps else {}
        expert = {"straight": True} if self.config.straight else {}
        return {"id": self.config.id, **limit, **expert, "minigrid": minigrid.__version__, "engine": VERSION}

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray]:
        """Frames [T+1,H,W,3] of each episode, drawn by MiniGrid itself."""
        env, films = simulator(self.config.id), []
        for seed, episode in zip(seeds, actions, strict=True):
            reset(env, seed, self.config.max_steps)
            frames = [env.get_frame(tile_size=TILE)]
            for action in episode:
                env.step(int(action))
                frames.append(env.get_frame(tile_size=TILE))
            films.append(np.stack(frames))
        return films


def has_expert(env: MiniGridEnv) -> bool:
    if isinstance(env, RoomGridLevel):
        return env.spec is not None and not any(name in env.spec.id for name in CANNOT)
    return type(env) in PLANNED or rules_of(env) in ERRANDS


def _longest_mission(env: MiniGridEnv) -> int:
    """In words. One length for all of MiniGrid's ids and one for BabyAI's, so that a policy can be evaluated in other ids."""
    return BABYAI_WORDS if isinstance(env, RoomGridLevel) else MINIGRID_WORDS


def _longest_episode(env: MiniGridEnv) -> int:
    """Most BabyAI levels set their step limit at reset, depending on the mission. For these, a bound for every mission."""
    if env.max_steps:
        return env.max_steps
    assert isinstance(env, RoomGridLevel)
    return BABYAI_ERRANDS * env.room_size**2 * env.num_rows * env.num_cols
