"""From whatever an environment shows to tokens: one encoder for every policy, made of one part a modality."""

from policies.encoders.config import Config
from policies.encoders.encoder import Encoder

__all__ = ["Config", "Encoder"]
