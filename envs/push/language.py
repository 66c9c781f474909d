"""Instructions for env.task=language: which cube to push where, in several wordings of which some are kept for the test split."""

from __future__ import annotations

import numpy as np

from envs.base import SPLITS
from envs.text import tokens

WORDS = 10  # of the longest instruction, with room for one more
WORDINGS = (
    "push the {cube} cube to the {goal} target",
    "move the {cube} cube onto the {goal} target",
    "slide the {cube} block to the {goal} square",
    "bring the {cube} block onto the {goal} square",
    "put the {cube} cube on the {goal} target",
    "onto the {goal} square push the {cube} block",
)
# Of known words, in an order and company that training never showed.
UNSEEN_WORDINGS = (
    "move the {cube} block to the {goal} square",
    "slide the {cube} cube onto the {goal} target",
    "onto the {goal} target bring the {cube} cube",
)


def instruction(pair: tuple[str, str], seed: int, random: np.random.Generator) -> np.ndarray:
    """Word ids [WORDS] that ask for the cube and the goal of these colours, in one of the wordings of the seed's split."""
    wordings = UNSEEN_WORDINGS if seed >= SPLITS["test"][0] else WORDINGS
    return tokens(wordings[int(random.integers(len(wordings)))].format(cube=pair[0], goal=pair[1]), WORDS)
