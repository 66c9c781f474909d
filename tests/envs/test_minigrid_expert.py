"""The planner against brute force: every state of a small world, searched with MiniGrid's own `step`."""

from collections import deque

import numpy as np
import pytest
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv

from envs.base import DataConfig
from envs.minigrid import Config, MiniGrid
from envs.minigrid.bank import simulator

PLANNED = [
    "MiniGrid-Empty-8x8-v0", "MiniGrid-Empty-Random-6x6-v0", "MiniGrid-FourRooms-v0", "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-DoorKey-16x16-v0", "MiniGrid-SimpleCrossingS11N5-v0", "MiniGrid-LavaCrossingS9N3-v0", "MiniGrid-LavaGapS7-v0",
    "MiniGrid-DistShift2-v0", "MiniGrid-MultiRoom-N4-S5-v1", "MiniGrid-MultiRoom-N6-v0", "MiniGrid-LockedRoom-v0",
]  # fmt: skip


class World:
    """A real MiniGrid environment whose state can be saved, restored and compared."""

    def __init__(self, id: str, seed: int) -> None:
        self.env: MiniGridEnv = simulator(id)
        self.env.gen_obs = dict
        self.env.reset(seed=seed)
        self.env.max_steps = 10**9
        self.doors = [thing for thing in self.env.grid.grid if thing is not None and thing.type == "door"]
        self.start = self.save()

    def save(self) -> tuple:
        env = self.env
        position = tuple(map(int, env.agent_pos))
        doors = tuple((door.is_open, door.is_locked) for door in self.doors)
        return position, int(env.agent_dir), env.carrying, tuple(env.grid.grid), doors  # things compare by identity

    def restore(self, state: tuple) -> None:
        self.env.agent_pos, self.env.agent_dir, self.env.carrying, grid, doors = state
        self.env.grid.grid = list(grid)
        for door, (is_open, is_locked) in zip(self.doors, doors, strict=True):
            door.is_open, door.is_locked = is_open, is_locked

    def distances(self, actions: tuple[int, ...]) -> dict[tuple, int]:
        """Steps to the goal from every reachable state; states without a path to the goal are absent."""
        comes_from: dict[tuple, list[tuple]] = {self.start: []}
        goals, queue = [], deque(comes_from)
        while queue:
            state = queue.popleft()
            for action in actions:
                self.restore(state)
                _, reward, terminated, _, _ = self.env.step(action)
                if terminated:
                    if reward > 0:
                        goals.append(state)
                    continue
                after = self.save()
                if after not in comes_from:
                    comes_from[after] = []
                    queue.append(after)
                comes_from[after].append(state)
        distance = dict.fromkeys(goals, 1)
        queue = deque(distance)
        while queue:
            state = queue.popleft()
            for before in comes_from[state]:
                if before not in distance:
                    distance[before] = distance[state] + 1
                    queue.append(before)
        return distance


@pytest.mark.parametrize(
    "id, seeds",
    [
        ("MiniGrid-Empty-Random-5x5-v0", 4),
        ("MiniGrid-LavaGapS5-v0", 4),
        ("MiniGrid-DistShift1-v0", 1),
        ("MiniGrid-LavaCrossingS9N2-v0", 3),
        ("MiniGrid-SimpleCrossingS9N3-v0", 3),
        ("MiniGrid-DoorKey-5x5-v0", 4),
        ("MiniGrid-DoorKey-6x6-v0", 2),
        ("MiniGrid-MultiRoom-N2-S4-v0", 4),
        ("MiniGrid-Fetch-5x5-N2-v0", 4),
        ("MiniGrid-MemoryS7-v0", 3),
    ],
)
def test_every_label_is_optimal_whatever_was_done_before(id, seeds):
    """After random actions, keys lie in the way and doors are shut again. Each label must bring the goal one step nearer."""
    made, rng = MiniGrid(Config(id=id, max_steps=120)), np.random.default_rng(0)
    expert = made.expert()
    for seed in range(seeds):
        world = World(id, seed)
        distance = world.distances(actions=(0, 1, 2, 3, 4, 5))
        vector = made.vector(1, seeds=np.full(400, seed))
        vector.reset()
        state = world.start
        for _ in range(400):
            label = int(expert.act(vector)[0])
            world.restore(state)
            _, reward, terminated, _, _ = world.env.step(label)
            assert (terminated and reward > 0) if distance[state] == 1 else distance[world.save()] == distance[state] - 1

            action = label if rng.random() < 0.4 else int(rng.integers(0, 6))
            world.restore(state)
            world.env.step(action)
            state = world.save()
            _, _, terminated, truncated, _ = vector.step(np.array([action]))
            if terminated[0] or truncated[0]:
                state = world.start


@pytest.mark.slow
@pytest.mark.parametrize("id", ["MiniGrid-FourRooms-v0", "MiniGrid-MultiRoom-N4-S5-v1", "MiniGrid-LockedRoom-v0"])
def test_plans_in_large_worlds_are_the_shortest(id):
    """Without shutting doors and dropping keys (which never helps here) even these worlds can be searched."""
    made, seeds = MiniGrid(Config(id=id)), np.arange(3)
    lengths = made.optimum(seeds).lengths
    for seed, length in zip(seeds, lengths, strict=True):
        world = World(id, int(seed))
        for door in world.doors:
            door.toggle = lambda env, pos, door=door: not door.is_open and type(door).toggle(door, env, pos)
        assert world.distances(actions=(0, 1, 2, 3, 5))[world.start] == length


@pytest.mark.parametrize("id", PLANNED)
def test_expert_always_succeeds(id):
    """By the shortest way, so this is the optimum."""
    made = MiniGrid(Config(id=id))
    score = made.optimum(made.seeds("test", 100))
    assert score.success.all()
    np.testing.assert_array_equal(score.returns, 1 - 0.9 * (score.lengths / made.max_steps))


ERRANDS = [
    "MiniGrid-Unlock-v0", "MiniGrid-UnlockPickup-v0", "MiniGrid-BlockedUnlockPickup-v0", "MiniGrid-KeyCorridorS3R1-v0",
    "MiniGrid-KeyCorridorS4R3-v0", "MiniGrid-ObstructedMaze-1Dlh-v0", "MiniGrid-ObstructedMaze-2Dlhb-v1",
    "MiniGrid-ObstructedMaze-Full-v1", "MiniGrid-GoToDoor-5x5-v0", "MiniGrid-GoToObject-8x8-N2-v0", "MiniGrid-PutNear-8x8-N3-v0",
    "MiniGrid-RedBlueDoors-6x6-v0",
]  # fmt: skip


@pytest.mark.parametrize("id", ERRANDS)
def test_errands_lead_to_success(id):
    """With slips that do not end an episode here (turns and steps), so that the agent is not where it planned to be."""
    made, rng = MiniGrid(Config(id=id)), np.random.default_rng(0)
    vector, expert, solved = made.vector(20, seeds=made.seeds("test", 20)), made.expert(), 0
    _, info = vector.reset()
    while (info["episode_index"] >= 0).any():
        actions = np.where(rng.random(20) < 0.1, rng.integers(0, 3, 20), expert.act(vector))
        _, reward, terminated, truncated, info = vector.step(actions)
        solved += int(made.success(reward, terminated, truncated, info).sum())
    assert solved == 20
    assert made.optimum(np.arange(3)) is None  # one errand after the other, so not always the shortest way


def test_a_layout_without_the_key_is_given_up():
    """In some layouts of this id's first version, a ball has replaced a box."""
    made, lost = MiniGrid(Config(id="MiniGrid-ObstructedMaze-2Dlhb-v0")), 33
    vector, expert = made.vector(1, seeds=made.seeds("test", 100)[lost:]), made.expert()
    vector.reset()
    for _ in range(60):
        action = expert.act(vector)
        vector.step(action)
    assert action == Actions.done


@pytest.mark.parametrize(
    "id",
    [
        "MiniGrid-DoorKey-8x8-v0",
        "MiniGrid-MultiRoom-N2-S4-v0",
        "MiniGrid-LockedRoom-v0",
        "MiniGrid-KeyCorridorS3R2-v0",
        "MiniGrid-ObstructedMaze-1Dlh-v0",
    ],
)
def test_expert_recovers_from_noise(id):
    made, rng = MiniGrid(Config(id=id, max_steps=600)), np.random.default_rng(0)
    vector, expert, solved = made.vector(20, seeds=np.arange(60)), made.expert(), 0
    _, info = vector.reset()
    while (info["episode_index"] >= 0).any():
        actions = np.where(rng.random(20) < 0.3, rng.integers(0, 7, 20), expert.act(vector))
        _, reward, terminated, truncated, info = vector.step(actions)
        solved += int(made.success(reward, terminated, truncated, info).sum())
    assert solved == 60


def test_an_expert_that_is_asked_now_and_then_agrees_with_one_that_saw_every_step():
    made, rng = MiniGrid(Config(id="MiniGrid-DoorKey-5x5-v0", max_steps=50)), np.random.default_rng(0)
    vector, constant, occasional = made.vector(32), made.expert(), made.expert()
    vector.reset()
    for step in range(400):
        labels = constant.act(vector)
        if step % 9 == 0:
            np.testing.assert_array_equal(occasional.act(vector), labels)
        vector.step(np.where(rng.random(32) < 0.1, rng.integers(0, 7, 32), labels))


def plans(seed: int, lanes: int, episodes: int = 40) -> list[list[int]]:
    """The expert's actions in each episode."""
    made = MiniGrid(Config(id="MiniGrid-FourRooms-v0", data=DataConfig(seed=seed)))
    vector, expert = made.vector(lanes, seeds=np.arange(episodes)), made.expert()
    actions: list[list[int]] = [[] for _ in range(episodes)]
    _, info = vector.reset()
    while (info["episode_index"] >= 0).any():
        playing, chosen = info["episode_index"], expert.act(vector)
        for lane in np.flatnonzero(playing >= 0):
            actions[playing[lane]].append(int(chosen[lane]))
        *_, info = vector.step(chosen)
    return actions


def test_plans_depend_on_the_seed_and_not_on_the_lanes():
    assert plans(seed=0, lanes=1) == plans(seed=0, lanes=7)
    assert plans(seed=0, lanes=7) != plans(seed=1, lanes=7)


def test_ties_are_broken_evenly():
    """An agent that faces away from the goal can turn either way."""
    made = MiniGrid(Config(id="MiniGrid-Empty-5x5-v0"))
    vector, expert = made.vector(2000, seeds=np.arange(2000)), made.expert()
    vector.reset()
    engine = vector.engine
    engine.cell[:] = engine.home + engine.inside[3 * 5 + 1]  # in the goal's row
    engine.direction[:] = 2  # facing left, the goal is on the right
    left, right = np.bincount(expert.act(vector), minlength=7)[:2]
    assert left + right == 2000 and 900 < left < 1100
