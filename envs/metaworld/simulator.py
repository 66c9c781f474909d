"""One episode of Meta-World at a time, for `envs/processes.py`. Importing this needs the package metaworld.

`reset(seed=)` of the package's environments is ignored: positions come from NumPy's global generator, and some environments keep
what an earlier episode moved. Here every episode begins as in a freshly made environment, and its positions are a function of the
seed alone, so that it is the same episode in any lane, process and order.
"""

from __future__ import annotations

import copy
import warnings
import zlib
from typing import Any, ClassVar

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from envs.metaworld import language
from envs.metaworld.camera import Camera
from envs.metaworld.config import GRIPPER, Config, View
from envs.robots import SHUFFLED

MOVED = ("body_pos", "site_pos")  # the parts of a model that the environments change
NOT_COPIED = ("model", "data", "mujoco_renderer")


class TaskEnv:
    """The package's environment of one task. Making one takes a fifth of a second, so one plays many episodes."""

    def __init__(self, task: str):
        self.task = task
        env: Any = ALL_V3_ENVIRONMENTS[task]()
        self.env = env
        env._partially_observable = False  # the goal is part of the state, as in Meta-World's own multi-task benchmarks
        del env.sawyer_observation_space  # its cached bounds hide the goal
        env._set_task_called = True  # there are no tasks to set: positions are drawn from `np_random`
        env.seeded_rand_vec = True
        env.max_path_length = 1 << 30  # the simulator counts the steps
        env.init_tcp = env.tcp_center
        self.moved = {name: getattr(env.model, name).copy() for name in MOVED}
        self.cameras: dict[str, Camera] = {}  # by size and view
        self.fresh = {name: copy.deepcopy(value) for name, value in env.__dict__.items() if name not in NOT_COPIED}

    def reset(self, seed: int) -> np.ndarray:
        """The state [39] at the start of the episode that this seed names."""
        env = self.env
        for name, value in self.moved.items():
            getattr(env.model, name)[:] = value
        same = {name: env.__dict__[name] for name in NOT_COPIED}
        env.__dict__.clear()
        env.__dict__.update(copy.deepcopy(self.fresh) | same)
        for side in ("left", "right"):  # in the package these are views of where the fingers are, and a copy would stand still
            setattr(env, f"init_{side}_pad", env.get_body_com(f"{side}pad"))
        env.np_random = np.random.Generator(np.random.Philox(key=[zlib.crc32(self.task.encode()), seed]))
        # As the package resets: twice, with the same positions. They are drawn the first time, when the hand needs no moving.
        env._freeze_rand_vec = False
        env._reset_hand = lambda steps=50: None
        mujoco.mj_resetData(env.model, env.data)
        mujoco.mj_forward(env.model, env.data)
        env.reset_model()
        del env._reset_hand
        env._freeze_rand_vec = True
        mujoco.mj_resetData(env.model, env.data)
        state: np.ndarray = env.reset_model()
        state[18:36] = state[:18]  # what was seen before is what is seen now
        env._prev_obs = state[:18].copy()
        return state

    def image(self, view: View, size: int) -> np.ndarray:
        """[size, size, 3] uint8."""
        if (key := f"{size} {view}") not in self.cameras:
            self.cameras[key] = Camera(self.env.model, view, size)
        return self.cameras[key].image(self.env.data)


class Simulator:
    """Plays any of the configured tasks."""

    idle: ClassVar[dict[str, list[TaskEnv]]] = {}  # of this process, by task: environments that no lane plays at the moment

    def __init__(self, config: Config):
        self.config, self.names = config, config.names
        self.experts: dict[str, Any] = {name: ENV_POLICY_MAP[name]() for name in self.names}  # type: ignore[abstract]
        self.task_env: TaskEnv | None = None

    def reset(self, seed: int, task: int) -> dict[str, np.ndarray]:
        """A task is one of the names, and where its things lie."""
        name = self.names[task % len(self.names)]
        if self.task_env is None or self.task_env.task != name:
            self.close()
            idle = self.idle.setdefault(name, [])
            self.task_env = idle.pop() if idle else TaskEnv(name)
        self.steps = 0
        self.state = self.task_env.reset(task)
        self.told = name  # the task that the instruction asks for, and so the one that the expert does
        if self.config.instruction == "shuffled":
            self.told = self.names[int(np.random.default_rng((task, SHUFFLED)).integers(len(self.names)))]
        self.mission = language.instruction(self.told, task, np.random.default_rng((zlib.crc32(self.told.encode()), task)))
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]:
        assert self.task_env
        self.state, reward, _, _, info = self.task_env.env.step(np.clip(action, -1, 1))
        self.steps += 1
        solved = bool(info["success"])
        return self._observe(), float(reward), solved, not solved and self.steps >= self.config.max_steps, {}

    def expert(self) -> np.ndarray:
        """What the expert would do now."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of actions that have to be clipped
            action = self.experts[self.told].get_action(self.state)
        return np.clip(action, -1, 1).astype(np.float32)

    def picture(self, size: int) -> np.ndarray:
        assert self.task_env
        return self.task_env.image(self.config.camera, size)

    def close(self) -> None:
        if self.task_env:
            self.idle.setdefault(self.task_env.task, []).append(self.task_env)
        self.task_env = None

    def _observe(self) -> dict[str, Any]:
        state = self.state.astype(np.float32)
        if not self.config.image:
            return {"state": state, "mission": self.mission}
        return {"state": state[:GRIPPER], "image": self.picture(self.config.image_size), "mission": self.mission}
