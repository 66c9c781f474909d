"""Three views of an action space, so that any policy acts in any `Discrete` or `Box` space.

    Tokens    categorical: a discrete action is one token, a Box action one binned token a dimension
    Vectors   continuous: normalised to [-1, 1] with the training data's statistics; a discrete action is a relaxed one-hot
    Head      what the outputs of a network mean: classes, a Cartesian vector, or a magnitude and a direction

Statistics of the data are buffers: `fit` fills them before training, and checkpoints contain them.
"""

from policies.actions.heads import Head, HeadConfig, make_head, refuse_head
from policies.actions.tokens import Tokens, choose
from policies.actions.vectors import Vectors, refuse

__all__ = ["Head", "HeadConfig", "Tokens", "Vectors", "choose", "make_head", "refuse", "refuse_head"]
