"""Requests, checked in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Ask


@pytest.fixture
def ask(ask: Ask, here: Path) -> Ask:
    """In an empty working directory, because a test may choose the folder of a run."""
    return ask
