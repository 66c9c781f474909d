"""Instructions as word tokens. The vocabulary is fixed, so a token means the same in every dataset and checkpoint."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

VOCABULARY = 256  # a token is a byte: adding words to the list changes no space and no embedding
BUCKETS = 8  # unknown words share the tokens 1..8, so that an unknown mission still differs from none; 0 is padding
# Every word of a MiniGrid or BabyAI mission, from token 9 on. Datasets and checkpoints store these numbers: only ever append.
_WORDS = (
    ", a after and at avoid ball behind blue box door end fetch find from front get go goal green grey hallway in key lava "
    "left matching maze must near next object of on open opening pick purple put reach red right room rooms square the then "
    "to traverse unlock up use yellow you your "
    "cube target push move slide bring onto block"
)
WORDS = _WORDS.split()
TOKEN = {word: index for index, word in enumerate(WORDS, start=1 + BUCKETS)}
WORD = {index: word for word, index in TOKEN.items()}
assert max(WORD) < VOCABULARY, "more words than a byte can number"


def split(text: str) -> list[str]:
    """The text's words in lower case. Punctuation marks count as words."""
    return re.findall(r"[a-z0-9']+|[^\sa-z0-9']", text.lower())


def token(word: str) -> int:
    """The word's own token, or one of a few hash buckets (crc32: the same in every process, unlike `hash`)."""
    known = TOKEN.get(word)
    return known if known is not None else 1 + zlib.crc32(word.encode()) % BUCKETS


def tokens(text: str, length: int) -> np.ndarray:
    """Tokens uint8 [length], zero-padded. A longer text is an error: cutting it would silently change the instruction."""
    words = split(text)
    if len(words) > length:
        raise ValueError(f"a mission must have at most {length} words, got {len(words)}: {text!r}")
    padded = np.zeros(length, np.uint8)
    padded[: len(words)] = [token(word) for word in words]
    return padded


def text(tokens: np.ndarray | Sequence[int]) -> str:
    """Turn tokens back into text. A token without a word becomes <number>."""
    words = [WORD.get(token, f"<{token}>") for token in map(int, tokens) if token]
    return " ".join(words).replace(" ,", ",")
