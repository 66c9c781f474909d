"""Vector environments that play dealt episodes by Gymnasium's conventions: what those of all families share.

Same-step autoreset as Gymnasium 1.x documents it: `info["final_obs"]` is an object array of one observation a lane, None where
no episode ended, and `info["final_info"]` holds what `info` says of the episodes that ended. Building an object for each lane
costs more than a step of a fast simulator; a loop that sets `stack_final_obs` gets one observation of stacked arrays instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces as gym_spaces
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.deal import Deal
from envs.spaces import Spaces

Observation = dict[str, np.ndarray]
Outcome = tuple[np.ndarray, np.ndarray, np.ndarray]  # reward [N] float, terminated [N] bool, truncated [N] bool


class DealtVector(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """`info["episode_index"]` [N] is the index into the dealt episodes, -1 in a lane that has run out: it idles, with reward 0,
    and is never done. Arrays that were returned are never written again.

    A family fills in `_begin`, `_play` and `_observe`.
    """

    def __init__(self, deal: Deal, spaces: Spaces) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = deal.num_envs
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batch_space(spaces.observation, self.num_envs)
        self.action_space = batch_space(spaces.action, self.num_envs)
        self._shape, action = self.action_space.shape, spaces.action
        self._choices = (int(action.start), int(action.n)) if isinstance(action, gym_spaces.Discrete) else None
        self.deal = deal
        self.stack_final_obs = False
        self.episode = np.full(self.num_envs, -1, np.int64)  # [N] index into the dealt episodes, -1: the lane idles
        self._started = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Deal from the top; with `options={"reset_mask": [N] bool}`, the next episode to these lanes alone.

        `seed` decides nothing where episodes are listed: they have seeds of their own. In an endless stream it says where to
        begin, and without it the stream goes on.
        """
        self._refuse_closed()
        super().reset(seed=seed)
        mask = _reset_mask(options, self.num_envs)
        if mask is None:
            self.deal.restart(seed)
        elif not self._started:
            raise ResetNeeded("Call reset() without a reset_mask first: no lane has begun an episode yet.")
        self._started = True
        self._begin(np.arange(self.num_envs) if mask is None else np.flatnonzero(mask))
        return self._observe(slice(None)), {"episode_index": self.episode.copy()}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        reward, terminated, truncated = self._play(self._checked(actions))
        done, ended = terminated | truncated, self.episode
        observation = final = self._observe(slice(None))
        if done.any():
            lanes = np.flatnonzero(done)
            self.episode = ended.copy()
            self._begin(lanes)
            observation = (
                self._observe(slice(None)) if len(lanes) == self.num_envs else _replaced(final, lanes, self._observe(lanes))
            )
        return observation, reward, terminated, truncated, self._info(done, ended, final, {})

    def _begin(self, lanes: np.ndarray) -> None:
        """Deal the next episodes to these lanes [K] with `self.deal.next`, put their indices into `self.episode`, start those
        that play, and let the others idle."""
        raise NotImplementedError

    def _play(self, actions: np.ndarray) -> Outcome:
        """One step of every lane, without autoreset; of idle lanes 0, False, False, whatever their action is."""
        raise NotImplementedError

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """The present observations of these lanes, in new arrays."""
        raise NotImplementedError

    def _checked(self, actions: Any) -> np.ndarray:
        """The actions as an array of the action space's shape and type, once it is certain that they are actions."""
        self._refuse_closed()
        if not self._started:
            raise ResetNeeded("Call reset() before step().")
        given = np.asarray(actions)
        if given.shape != self._shape:
            raise InvalidAction(f"actions must have the shape {self._shape}, got {given.shape}")
        if self._choices is None:
            if given.dtype.kind not in "fiu":
                raise InvalidAction(f"actions must be numbers, got {given.dtype}")
            if not np.isfinite(given).all():  # no simulator survives it; envs/play.py stops such an episode before
                raise InvalidAction("actions must be finite, and one is not")
            return given.astype(self.single_action_space.dtype, copy=False)
        if given.dtype.kind not in "iu":
            raise InvalidAction(f"actions must be whole numbers, got {given.dtype}")
        given = given.astype(np.int64, copy=False)
        first, choices = self._choices
        counted = given - first if first else given
        if counted.view(np.uint64).max() >= choices:  # negative ones are huge there
            raise InvalidAction(f"actions must be between {first} and {first + choices - 1}, got {given.min()} to {given.max()}")
        return given

    def _info(self, done: np.ndarray, ended: np.ndarray, final: Observation, more: dict[str, np.ndarray]) -> dict[str, Any]:
        """Of a step: `ended` [N] is the episode index that each lane had before it, `final` what the step ended in, and `more`
        what a family tells of every lane's step, also where it was the last one of its episode."""
        info: dict[str, Any] = {"episode_index": self.episode.copy(), **more}
        if done.any():
            info["final_obs"] = final if self.stack_final_obs else _listed(final, done)
            last = {"episode_index": np.where(done, ended, -1), **more}
            info["final_info"] = last | {f"_{name}": done.copy() for name in last}
            info |= {"_final_obs": done, "_final_info": done.copy()}
        return info

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("This vector environment is closed; make another one.")


def _replaced(observation: Observation, lanes: np.ndarray, fresh: Observation) -> Observation:
    """A copy whose rows `lanes` [K] are those of `fresh`."""
    merged = {name: array.copy() for name, array in observation.items()}
    for name, array in fresh.items():
        merged[name][lanes] = array
    return merged


def _listed(final: Observation, done: np.ndarray) -> np.ndarray:
    """One observation a lane [N], None where the episode goes on."""
    listed = np.full(len(done), None, object)
    for lane in np.flatnonzero(done).tolist():
        listed[lane] = {name: array[lane] for name, array in final.items()}
    return listed


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> np.ndarray | None:
    """`options["reset_mask"]`, held to what Gymnasium's own vector environments demand of it."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] must be a NumPy array of bool, got {getattr(mask, 'dtype', type(mask).__name__)}")
    if mask.shape != (num_envs,):
        raise ValueError(f"options['reset_mask'] must have the shape ({num_envs},), got {mask.shape}")
    if not mask.any():
        raise ValueError("options['reset_mask'] must be True for at least one lane")
    return mask
