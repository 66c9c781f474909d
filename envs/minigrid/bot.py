"""BabyAI's own bot as the expert of BabyAI's ids. It follows the instruction and knows only what it has seen of the world.

Paper: Chevalier-Boisvert et al., "BabyAI" (2019), arXiv 1810.08272.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv
from minigrid.core.actions import Actions
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from envs.minigrid.vector import LoopVector

CANNOT = ("KeyInBox", "Carrying")  # in the names of ids that it never solves, according to its docstring
GIVES_UP = (AssertionError, DisappearedBoxError, IndexError, KeyError)  # what it raises when it has no plan


class Bot:
    """It must be called exactly once per step of an episode, or it misses observations.

    If it has no plan, it starts again from the current state. If that fails too, its action is `done`.
    """

    def __init__(self) -> None:
        self.vector: LoopVector | None = None

    def act(self, vector: VectorEnv) -> np.ndarray:
        """The next action [N] of every lane, whichever actions were executed before."""
        vector = vector.unwrapped
        assert isinstance(vector, LoopVector), "the bot plays in the real MiniGrid"
        if vector is not self.vector:
            self.vector = vector
            self.bots: list[BabyAIBot | None] = [None] * vector.num_envs
        action = np.full(vector.num_envs, int(Actions.done))
        for lane in np.flatnonzero(vector.episode >= 0).tolist():
            action[lane] = self._next(vector, lane)
        return action

    def _next(self, vector: LoopVector, lane: int) -> int:
        env, bot = vector.envs[lane], self.bots[lane]
        try:
            if env.step_count and bot is not None:
                return int(bot.replan(vector.actions[lane]))
        except GIVES_UP:
            pass
        try:  # at the start of an episode, or a new attempt from the current state alone
            bot = self.bots[lane] = BabyAIBot(env)
            return int(bot.replan())
        except GIVES_UP:
            self.bots[lane] = None
            return int(Actions.done)
