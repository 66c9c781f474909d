"""Dark Room and its kin: a grid whose goal is never shown, so that it has to be found and then remembered across episodes.

From algorithm distillation (Laskin et al. 2022), arXiv 2210.14215; grid, horizon and split as in dicp (Son et al. 2025), CCCAD. A
task is a goal (or two). A policy without memory can only imitate wandering, so this tests learning in context.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from envs.base import SPLITS, Family, Needs, Score
from envs.darkroom import ppo
from envs.darkroom.explorer import Explorer
from envs.darkroom.ppo import PPO
from envs.darkroom.q_learning import QLearning
from envs.darkroom.render import film
from envs.darkroom.rules import ACTIONS, GAMES, cell_of, door_optimum, door_random, room_optimum, room_random, split
from envs.darkroom.vector import DarkRoomVector
from envs.darkroom.walker import Walker
from envs.data.config import DataConfig
from envs.deal import Deal
from envs.play import ended_in
from envs.roles import Learner
from envs.spaces import Spaces

VERSION = 1  # of the rules and the learners; a change makes every dataset anew
PUBLISHED_SIZE = 9
HORIZONS = {"room": 20, "key_to_door": 50, "recall": 20}  # at the published size; in proportion at others


@dataclass
class Data(DataConfig):
    SOURCES: ClassVar[tuple[str, ...]] = ("explorer", "ppo", "q_learning", "annealed_expert")

    source: str = "explorer"
    episodes: int = 260_000  # a hundred learners for each of the 65 training goals
    val_episodes: int = 3200  # ten for each of the 8 validation goals
    ppo: ppo.Config = field(default_factory=ppo.Config)

    def recipe(self) -> dict[str, Any]:
        return super().recipe() | ({"ppo": asdict(self.ppo)} if "ppo" in self.learners else {})


@dataclass
class Config:
    game: str = "room"  # room | key_to_door | recall
    size: int = PUBLISHED_SIZE  # of the square's side
    max_steps: int = 0  # of an episode; 0 for the published 20 (key_to_door: 50), in proportion to the size
    split_seed: int = 0  # which goals are held out; 0 gives the published 73 and 8
    val_goals: int = 8  # goals out of the 73 that choose the best checkpoint and are not trained on
    test_goals: list[list[int]] = field(default_factory=list)  # [row, column] of each; empty: those of the split_seed
    # recall: episodes of goal A, of B, of A, ... and again. Slow learners need longer ones, which a window can thin out again:
    # [50, 50, 20, 20] and every=10 shows 5, 5, 2, 2.
    schedule: list[int] = field(default_factory=lambda: [5, 5, 2, 2])
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if self.game not in GAMES:
            raise ValueError(f"game must be one of {', '.join(GAMES)}, got {self.game}")
        if not 3 <= self.size <= 31:
            raise ValueError(f"size must be between 3 and 31, got {self.size}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must be at least 1, or 0 for the published horizon, got {self.max_steps}")
        if len(self.schedule) < 2 or min(self.schedule) < 1:
            raise ValueError(f"schedule must be two or more numbers of episodes, each at least 1, got {self.schedule}")
        for goal in self.test_goals:
            if len(goal) != 2 or not all(0 <= coordinate < self.size for coordinate in goal):
                raise ValueError(
                    f"test_goals holds {goal}, no [row, column] of a {self.size}x{self.size} grid, which counts from 0"
                )
        if len({tuple(goal) for goal in self.test_goals}) < len(self.test_goals):
            raise ValueError(f"test_goals names a goal twice: {self.test_goals}")
        least = 1 if self.game == "room" else 2  # a task of two goals needs two
        cells = self.size**2
        test = len(self.test_goals) or max(1, cells - round(0.9 * cells))
        if test < least:
            raise ValueError(f"test_goals must name at least {least} goals for the game {self.game}, got {test}")
        if not least <= self.val_goals <= cells - test - least:
            raise ValueError(f"val_goals must be between {least} and {cells - test - least} here, got {self.val_goals}")
        round_trip = sum(self.schedule)
        if self.game == "recall" and self.data.learners and self.data.episodes_per_history % round_trip:
            raise ValueError(
                f"data.episodes_per_history={self.data.episodes_per_history} does not fit the schedule {self.schedule}, which "
                f"repeats after {round_trip} episodes; try a multiple of {round_trip}, here and in eval.episodes_per_task "
                "(experiment=recall has everything that recall needs)"
            )


class DarkRoom(Family):
    record_batch = 65_536

    def __init__(self, config: Config) -> None:
        self.config = config
        self.size = config.size
        self.max_steps = config.max_steps or round(HORIZONS[config.game] * config.size / PUBLISHED_SIZE)
        test = [row * config.size + column for row, column in config.test_goals]
        self.goals = split(config.size, config.split_seed, config.val_goals, test)  # split -> cells
        self.flag = GAMES[config.game]
        modalities: dict[str, spaces.Space] = {"position": spaces.Box(0, config.size - 1, (2,), np.uint8)}
        if self.flag:
            modalities[self.flag] = spaces.Discrete(2)
        self.spaces = Spaces(spaces.Dict(modalities), spaces.Discrete(ACTIONS))
        self.schedule = np.repeat(np.arange(len(config.schedule)) % 2, config.schedule)  # the cue of each episode of a task
        self.task_period = len(self.schedule) if config.game == "recall" else 1

    @classmethod
    def accepts(cls, config: Config, needs: Needs = "play") -> str | None:
        if config.data.detours:
            return "env.data.detours is for env=minigrid; in Dark Room env.data.source=explorer looks for the goal by itself."
        return super().accepts(config, needs)  # Config has looked at everything else, and there is always an expert

    def make_vector(self, deal: Deal) -> DarkRoomVector:
        """A task is named by a seed, as everywhere: `cells` says which goals it stands for."""
        return DarkRoomVector(self.config.game, self.size, self.max_steps, self.schedule, self.cells, deal, self.spaces)

    def cells(self, seeds: np.ndarray) -> np.ndarray:
        """The goals [E, 2] of tasks: the n goals of a seed's split take turns, as first and, in another order, as second goal.
        In the game `room` the second has no meaning."""
        found = np.full((len(seeds), 2), -1)
        for name, (low, high) in SPLITS.items():
            mine, goals = (seeds >= low) & (seeds < high), self.goals[name]
            if not mine.any():
                continue
            lap, first = np.divmod(seeds[mine] - low, len(goals))
            second = (first + 1 + lap % max(1, len(goals) - 1)) % len(goals)  # every ordered pair once in n * (n - 1) tasks
            found[mine] = np.stack([goals[first], goals[second]], 1)
        if (found < 0).any():
            raise ValueError(f"tasks are named by the seeds of a split, got {seeds[found[:, 0] < 0][0]}")
        return found

    def expert(self) -> Walker:
        return Walker(self.size)

    def learner(self, source: str, vector: VectorEnv, episodes: int, random: np.random.Generator) -> Learner:
        states, lanes = self.size**2 * (2 if self.flag else 1), vector.num_envs
        match source:
            case "explorer":
                return Explorer(self.size, 2 if self.flag else 1, self.flag, lanes, random)
            case "ppo":
                return PPO(self.config.data.ppo, states, self.state, lanes, random)
            case "q_learning":
                return QLearning(states, self.state, lanes, episodes, random)
        return super().learner(source, vector, episodes, random)

    def lanes_per_learner(self, source: str) -> int:
        return self.config.data.ppo.pool if source == "ppo" else 1

    def state(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Everything that is seen as one number [N], for tables."""
        cell = cell_of(observation["position"], self.size)
        return cell + self.size**2 * observation[self.flag] if self.flag else cell

    def success(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Has been on the goal; has opened the door."""
        return terminated if self.config.game == "key_to_door" else reward > 0

    def optimum(self, seeds: np.ndarray, episode: int = 0) -> Score:
        """Of a player that knows the goals. One that has to find them cannot reach it in the first episode."""
        first, second = self.cells(seeds).T
        if self.config.game == "key_to_door":
            returns, lengths = door_optimum(self.size, self.max_steps, first, second)
            return Score(returns == 2, returns, lengths)
        returns = room_optimum(self.size, self.max_steps, self.goal(first, second, episode)).astype(float)
        return Score(returns > 0, returns, np.full(len(seeds), self.max_steps))

    def random_return(self, seeds: np.ndarray, episode: int = 0) -> np.ndarray:
        """The exact expectation [E] of what `RandomPlayer` scores."""
        first, second = self.cells(seeds).T
        if self.config.game == "key_to_door":
            return door_random(self.size, self.max_steps, first, second)
        return room_random(self.size, self.max_steps, self.goal(first, second, episode))

    def goal(self, first: np.ndarray, second: np.ndarray, episode: int) -> np.ndarray:
        """Which of their two goals pays in this episode of tasks."""
        return second if self.config.game == "recall" and self.schedule[episode % self.task_period] else first

    def task_names(self, seeds: np.ndarray) -> list[str]:
        goals = 1 if self.config.game == "room" else 2
        return [" ".join("{},{}".format(*divmod(cell, self.size)) for cell in cells[:goals]) for cells in self.cells(seeds)]

    def seen_in_training(self, seeds: np.ndarray, training: np.ndarray) -> np.ndarray:
        goals = 1 if self.config.game == "room" else 2
        known = {tuple(cells) for cells in self.cells(training)[:, :goals].tolist()}
        return np.array([tuple(cells) in known for cells in self.cells(seeds)[:, :goals].tolist()])

    def signature(self) -> dict[str, Any]:
        config = self.config
        split = {"split_seed": config.split_seed, "val_goals": config.val_goals, "test_goals": config.test_goals}
        schedule = {"schedule": config.schedule} if config.game == "recall" else {}
        game = f"{config.game}-{self.size}x{self.size}"
        return {"id": f"darkroom-{game}", "max_steps": self.max_steps, **split, **schedule, "version": VERSION}

    def render(self, seeds: np.ndarray, actions: list[np.ndarray], episodes: np.ndarray | None = None) -> list[np.ndarray]:
        episodes = np.zeros(len(seeds), int) if episodes is None else episodes
        return [self._film(*episode) for episode in zip(seeds, actions, episodes, strict=True)]

    def _film(self, seed: int, actions: np.ndarray, episode: int) -> np.ndarray:
        vector = self.make_vector(Deal(1, seeds=np.array([seed])))
        vector.schedule = np.roll(self.schedule, -episode)  # the one episode that is played has the cue of this one
        vector.reset()
        cells, rewards = [vector.cell[0]], [0.0]
        targets = [vector.target[0]]
        for action in actions:
            observation, reward, _, _, info = vector.step(np.array([action]))
            cells.append(cell_of(ended_in(observation, info)["position"], self.size)[0])
            rewards.append(float(reward[0]))
            targets.append(vector.target[0] if vector.target[0] >= 0 else targets[-1])
        return film(self.size, cells, targets, rewards)
