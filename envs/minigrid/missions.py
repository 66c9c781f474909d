"""Kinds of BabyAI's instructions, by which success is reported."""

from __future__ import annotations

from minigrid.core.constants import COLOR_NAMES

from envs.text import split

# What does not change what has to be done with which kind of thing: articles, colours, and where the thing is.
_OMITTED = {"a", "the", *COLOR_NAMES, "on", "your", "left", "right", "in", "front", "of", "behind", "you"}
_JOINS = {"then", "after", "and"}


def kind(mission: str) -> str:
    """What is to be done with which kind of thing, such as "go to ball"; "several" where that is more than one errand."""
    words = split(mission)
    if _JOINS & set(words):
        return "several"
    return " ".join(word for word in words if word not in _OMITTED)
