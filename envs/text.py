"""Instructions as word tokens. The vocabulary is fixed, so a token means the same in every dataset and checkpoint."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from conf.errors import BadRequest

VOCABULARY = 256  # a token is a byte: adding words to the list changes no space and no embedding
BUCKETS = 8  # unknown words share the tokens 1..8, so that an unknown mission still differs from none; 0 is padding
# Every word of a mission, from token 9 on: of MiniGrid and BabyAI, of Push, and of Meta-World. Datasets and checkpoints store
# these numbers: only ever append.
_WORDS = (
    ", a after and at avoid ball behind blue box door end fetch find from front get go goal green grey hallway in key lava "
    "left matching maze must near next object of on open opening pick purple put reach red right room rooms square the then "
    "to traverse unlock up use yellow you your "
    "cube target push move slide bring onto block "
    "above again around away back bar basket basketball bin bolt button by close coffee cup cylinder dial disc down drag drawer "
    "drive drop edge faucet fit forward glass grasp gripper hammer hand handle hit hold hole hoop insert into it its kick knob "
    "lever lid lift lock machine mug nail net now nut off one orange other out over peg place plate plug press puck pull raise "
    "remove ring rotate run safe shelf shut side sideways soccer stick straight sweep switch table take tap thermos through "
    "throw touch turn turning twist under unplug upwards using wall wide window with"
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


def known_tokens(text: str, length: int) -> np.ndarray:
    """The same for instructions, whose words must be known: one that shares its token with others cannot be followed."""
    if unknown := [word for word in split(text) if word not in TOKEN]:
        raise BadRequest(f"the mission {text!r} has the unknown word {unknown[0]!r}; add it to the end of _WORDS in envs/text.py")
    return tokens(text, length)


def text(tokens: np.ndarray | Sequence[int]) -> str:
    """Turn tokens back into text. A token without a word becomes <number>."""
    words = [WORD.get(token, f"<{token}>") for token in map(int, tokens) if token]
    return " ".join(words).replace(" ,", ",")
