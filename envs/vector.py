"""The base class of all vector environments here: they play dealt episodes by Gymnasium's conventions.

Same-step autoreset as Gymnasium 1.x documents it: `info["final_obs"]` is an object array with one observation per lane, None
where no episode ended, and `info["final_info"]` holds the info of the episodes that ended. Building an object per lane costs
more than a step of a fast simulator; with `stack_final_obs` set, `final_obs` is one observation of stacked arrays instead.
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
    """`info["episode_index"]` [N] is the index into the dealt episodes. It is -1 in a lane that has no episode left: such a lane
    idles, with reward 0, and is never done. Returned arrays are never written again.

    Subclasses implement `_begin`, `_play` and `_observe`.
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
        """Start the list of episodes again in all lanes. With `options={"reset_mask": [N] bool}`, only these lanes are reset, and
        each goes on to its next episode.

        `seed` has no effect where episodes are listed, since they have seeds of their own. In an endless stream it chooses the
        first episode; without it the stream goes on.
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
        """Deal the next episodes to these lanes [K] with `self.deal.next`, write their indices to `self.episode`, and start them.
        Lanes without a next episode idle."""
        raise NotImplementedError

    def _play(self, actions: np.ndarray) -> Outcome:
        """Step every lane once, without autoreset. Idle lanes return 0, False, False, whatever their action."""
        raise NotImplementedError

    def _observe(self, lanes: np.ndarray | slice) -> Observation:
        """The current observations of these lanes, in new arrays."""
        raise NotImplementedError

    def _checked(self, actions: Any) -> np.ndarray:
        """Check the actions and convert them to an array of the action space's shape and type."""
        self._refuse_closed()
        if not self._started:
            raise ResetNeeded("Call reset() before step().")
        given = np.asarray(actions)
        if given.shape != self._shape:
            raise InvalidAction(f"actions must have the shape {self._shape}, got {given.shape}")
        if self._choices is None:
            if given.dtype.kind not in "fiu":
                raise InvalidAction(f"actions must be numbers, got {given.dtype}")
            if not np.isfinite(given).all():  # simulators break on these; envs/play.py stops such an episode earlier
                raise InvalidAction("actions must be finite, and one is not")
            return given.astype(self.single_action_space.dtype, copy=False)
        if given.dtype.kind not in "iu":
            raise InvalidAction(f"actions must be whole numbers, got {given.dtype}")
        given = given.astype(np.int64, copy=False)
        first, choices = self._choices
        counted = given - first if first else given
        if counted.view(np.uint64).max() >= choices:  # as unsigned numbers, negative ones are huge
            raise InvalidAction(f"actions must be between {first} and {first + choices - 1}, got {given.min()} to {given.max()}")
        return given

    def _info(
        self,
        done: np.ndarray,
        ended: np.ndarray,
        final: Observation,
        more: dict[str, np.ndarray],
        lanes: np.ndarray | slice = slice(None),
    ) -> dict[str, Any]:
        """The info of a step of these lanes. `ended` [N] is each lane's episode index before the step, `final` the observations
        that the step led to, and `more` what the family reports about every lane's step, the last step of an episode included."""
        info: dict[str, Any] = {"episode_index": np.array(self.episode[lanes]), **more}
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
    """A copy of `observation` with its rows `lanes` [K] replaced by those of `fresh`."""
    merged = {name: array.copy() for name, array in observation.items()}
    for name, array in fresh.items():
        merged[name][lanes] = array
    return merged


def _listed(final: Observation, done: np.ndarray) -> np.ndarray:
    """One observation per lane [N], None where the episode goes on."""
    listed = np.full(len(done), None, object)
    for lane in np.flatnonzero(done).tolist():
        listed[lane] = {name: array[lane] for name, array in final.items()}
    return listed


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> np.ndarray | None:
    """`options["reset_mask"]`, checked as Gymnasium's own vector environments check it."""
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
