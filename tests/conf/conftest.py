"""Requests, checked in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import CONF
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from conf.check import Request, typed


@pytest.fixture
def ask(here: Path) -> Iterator[Callable[..., Request]]:
    """The checked request of a command line, in an empty working directory. Its folder is chosen as that of a real run."""

    def composed(*overrides: str) -> Request:
        cfg = compose("config", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return typed(cfg)

    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield composed
