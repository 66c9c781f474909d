"""The engine compared with the real MiniGrid: the same layouts and actions must give no difference in any output."""

from collections import Counter

import gymnasium
import numpy as np
import pytest
from minigrid.minigrid_env import MiniGridEnv

from envs import text
from envs.minigrid import Config, MiniGrid
from envs.minigrid.bank import bank, simulator
from envs.minigrid.codes import BOX, DOOR, EMPTY, GOAL, LAVA, LOCKED_DOOR, PORTABLE
from envs.minigrid.engine import Engine
from envs.minigrid.rules import Fetch, GoTo, Memory, OpenTheDoor, PickUp, RedBlueDoors, rules_of

LANES = 16
pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # deprecated ids are judged too


def batched_ids() -> list[str]:
    ids = [id for id in gymnasium.registry if id.startswith("MiniGrid-")]
    return [id for id in ids if rules_of(simulator(id)) and MiniGrid.accepts(Config(id=id)) is None]


class Judge:
    """One real environment: steps it, counts what happened in it, compares what it shows."""

    def __init__(self, id: str, max_steps: int) -> None:
        limit = {"max_steps": max_steps} if max_steps else {}
        self.env: MiniGridEnv = gymnasium.make(id, disable_env_checker=True, **limit).unwrapped
        self.events: Counter[str] = Counter()

    def step(self, action: int) -> tuple[dict, float, bool, bool]:
        env = self.env
        ahead, carried = env.grid.get(*env.front_pos), env.carrying
        before = (ahead.is_open, ahead.is_locked) if ahead is not None and ahead.type == "door" else None
        observation, reward, terminated, truncated, _ = env.step(action)
        if carried is not env.carrying:
            self.events["pickup" if carried is None else "drop"] += 1
        if before is not None and before != (ahead.is_open, ahead.is_locked):
            self.events["unlock" if before[1] else "close" if before[0] else "open"] += 1
        if ahead is not None and ahead.type == "box" and action == 5:
            self.events["unbox"] += 1
            self.events["reveal"] += ahead.contains is not None
        self.events["won"] += terminated and reward > 0
        self.events["lost"] += terminated and reward == 0
        self.events["truncated"] += truncated
        return observation, float(reward), terminated, truncated


def possible(rules: type[Engine], codes: np.ndarray) -> set[str]:
    """The events that can happen at all in these layouts, by these rules."""
    has = {
        "pickup": PORTABLE, "drop": PORTABLE, "open": DOOR & ~LOCKED_DOOR, "close": DOOR, "unlock": LOCKED_DOOR, "unbox": BOX,
        **({"won": GOAL, "lost": LAVA} if rules is Engine else {}),
    }  # fmt: skip
    never = {
        OpenTheDoor: {"close"},
        Fetch: {"drop"},
        GoTo: {"close"},
        RedBlueDoors: set(),
        Memory: {"pickup", "drop"},
    }
    own = {Engine: set(), OpenTheDoor: {"won"}, PickUp: {"won"}}.get(rules, {"won", "lost"})
    return {event for event, kind in has.items() if kind[codes].any()} - never.get(rules, set()) | own


def busy_actions(rng: np.random.Generator, ahead: np.ndarray, holding: np.ndarray) -> np.ndarray:
    """Random actions [N] that act on the cell ahead more often than chance would."""
    actions = rng.choice(7, size=len(ahead), p=[0.15, 0.15, 0.46, 0.06, 0.06, 0.1, 0.02])
    meddle = (PORTABLE | DOOR)[ahead] & (rng.random(len(ahead)) < 0.5)
    actions = np.where(meddle, rng.integers(3, 6, len(ahead)), actions)
    return np.where(holding & (rng.random(len(ahead)) < 0.05), 4, actions)


def drive(id: str, steps: int, max_steps: int = 0, seed: int = 0) -> Counter[str]:
    """Play `steps` steps in all, half of the lanes mostly by the expert, so that far goals are reached. Returns the events."""
    family = MiniGrid(Config(id=id, max_steps=max_steps))
    seeds = family.seeds("train", 20_000)
    vector = family.vector(LANES, seeds=seeds)
    vector.stack_final_obs = True
    expert = family.expert() if family.planned else None
    rng = np.random.default_rng(seed)
    judges = [Judge(id, max_steps) for _ in range(LANES)]
    played = np.arange(LANES)
    observation, info = vector.reset()
    engine = vector.engine
    events: Counter[str] = Counter()
    missions: dict[bytes, str] = {}

    def check(lane: int, real: dict, ours: dict) -> None:
        assert np.array_equal(ours["grid"][lane], real["image"]), f"{id} lane {lane} episode {played[lane]}"
        assert ours["direction"][lane] == real["direction"]
        if (mission := ours["mission"][lane].tobytes()) not in missions:
            missions[mission] = text.text(ours["mission"][lane])
        assert missions[mission] == real["mission"]

    for lane, judge in enumerate(judges):
        check(lane, judge.env.reset(seed=int(seeds[lane]))[0], observation)
    for _ in range(steps // LANES):
        ahead = engine.facing()
        actions = busy_actions(rng, ahead, engine.carried != EMPTY)
        if expert is not None:
            follow = (np.arange(LANES) % 2 == 0) & (rng.random(LANES) < np.where(DOOR[ahead], 0.5, 0.85))
            actions = np.where(follow, expert.act(vector), actions)
        observation, reward, terminated, truncated, info = vector.step(actions)
        assert ("final_obs" in info) == (terminated | truncated).any()
        for lane, judge in enumerate(judges):
            real, *outcome = judge.step(int(actions[lane]))
            assert (reward[lane], terminated[lane], truncated[lane]) == tuple(outcome)
            if terminated[lane] or truncated[lane]:
                assert info["_final_obs"][lane]
                check(lane, real, info["final_obs"])
                played[lane] += LANES
                real, _ = judge.env.reset(seed=int(seeds[played[lane]]))
                events["autoreset"] += 1
            check(lane, real, observation)
            assert vector.missions[lane] == judge.env.mission
        assert np.array_equal(info["episode_index"], played)
    return sum((judge.events for judge in judges), events)


def never_happened(id: str, events: Counter[str]) -> set[str]:
    """The possible events that did not occur: for these, the lack of differences proves little."""
    made = bank(id, 0)
    expected = possible(made.rules, made.layouts(np.arange(LANES))["codes"]) | {"truncated", "autoreset"}
    return {event for event in expected if not events[event]}


def one_id_a_class() -> list[str]:
    """The smallest id of each class."""
    chosen: dict[type, tuple[int, str]] = {}
    for id in batched_ids():
        env = simulator(id)
        size = env.width * env.height
        chosen[type(env)] = min(chosen.get(type(env), (size, id)), (size, id))
    return [id for _, id in chosen.values()]


def one_id_of_each_rules() -> set[str]:
    return {*{rules_of(simulator(id)): id for id in reversed(one_id_a_class())}.values()}


EVERYDAY = one_id_of_each_rules()


@pytest.mark.parametrize("id", [id if id in EVERYDAY else pytest.param(id, marks=pytest.mark.slow) for id in one_id_a_class()])
def test_engine_shows_what_minigrid_shows(id):
    events = drive(id, steps=1200, max_steps=70) + drive(id, steps=160, max_steps=4, seed=1)
    assert not never_happened(id, events)


@pytest.mark.slow
@pytest.mark.parametrize("id", batched_ids())
def test_engine_shows_what_minigrid_shows_for_long(id):
    events = drive(id, steps=19_000, seed=1) + drive(id, steps=1_000, max_steps=4, seed=2)
    assert not never_happened(id, events)
