from __future__ import annotations

import numpy as np
import pytest

from conf.errors import BadRequest
from envs.base import Family
from envs.data.config import DataConfig
from envs.minigrid import Config, MiniGrid


class Wandering:
    data = DataConfig(detours=2)


def test_detours_are_refused_by_a_family_that_cannot_wander():
    assert "env.data.detours is not available in Family" in str(Family.accepts(Wandering, "data"))
    assert Family.accepts(Wandering, "play") is None
    with pytest.raises(BadRequest, match=r"leave out env\.data\.detours"):
        Family().wanderer()


def test_no_expert_is_a_sentence():
    with pytest.raises(BadRequest, match="Family has no expert"):
        Family().expert()


def test_seeds_and_a_split_are_one_too_many():
    with pytest.raises(ValueError, match="not both"):
        MiniGrid(Config()).vector(2, "val", seeds=np.arange(4))
