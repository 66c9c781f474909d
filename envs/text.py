"""Instructions as word tokens: one fixed vocabulary, so that a token means the same in every dataset and checkpoint."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

# Every word of a MiniGrid or BabyAI mission. Datasets and checkpoints store positions in this list: only ever append.
_WORDS = (
    ", a after and at avoid ball behind blue box door end fetch find from front get go goal green grey hallway in key lava "
    "left matching maze must near next object of on open opening pick purple put reach red right room rooms square the then "
    "to traverse unlock up use yellow you your"
)
WORDS = _WORDS.split()
BUCKETS = 8  # unknown words share these tokens, so that a foreign mission is still told apart from silence
VOCABULARY = 1 + len(WORDS) + BUCKETS  # 0 is padding
TOKEN = {word: index for index, word in enumerate(WORDS, start=1)}


def split(text: str) -> list[str]:
    """Lower-case words; a punctuation mark is a word of its own."""
    return re.findall(r"[a-z0-9']+|[^\sa-z0-9']", text.lower())


def token(word: str) -> int:
    """The word's own token, or one of a few hash buckets (crc32: the same in every process, unlike `hash`)."""
    known = TOKEN.get(word)
    return known if known is not None else 1 + len(WORDS) + zlib.crc32(word.encode()) % BUCKETS


def tokens(text: str, length: int) -> np.ndarray:
    """uint8 [length], zero-padded. Longer texts are an error: a silently cut instruction is another instruction."""
    words = split(text)
    if len(words) > length:
        raise ValueError(f"a mission must have at most {length} words, got {len(words)}: {text!r}")
    padded = np.zeros(length, np.uint8)
    padded[: len(words)] = [token(word) for word in words]
    return padded


def text(tokens: np.ndarray | Sequence[int]) -> str:
    """The text again; a word outside the vocabulary comes back as <bucket>."""
    words = [WORDS[t - 1] if t <= len(WORDS) else f"<{t - 1 - len(WORDS)}>" for t in map(int, tokens) if t]
    return " ".join(words).replace(" ,", ",")
