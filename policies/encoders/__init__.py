"""From observations to tokens: one encoder for every policy, with one part per modality."""

from policies.encoders.config import Config
from policies.encoders.encoder import Encoder

__all__ = ["Config", "Encoder"]
