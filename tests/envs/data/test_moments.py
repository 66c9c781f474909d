from __future__ import annotations

import numpy as np
import pytest

from envs.data import statistics


@pytest.mark.parametrize("block", [1 << 26, 64])
def test_moments_are_those_of_all_rows_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(statistics, "BLOCK", block)
    column = (np.random.default_rng(0).normal(1000, 0.01, (333, 3))).astype(np.float32)
    found = statistics.moments(column)
    exact = column.astype(np.float64)
    for name, value in (("mean", exact.mean(0)), ("std", exact.std(0)), ("low", exact.min(0)), ("high", exact.max(0))):
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12)


def test_holes_in_the_data_do_not_count():
    column = np.array([[1.0, np.nan], [3.0, np.inf], [np.nan, np.nan]], np.float32)
    found = statistics.moments(column)
    assert found.mean.tolist() == [2.0, 0.0] and found.low.tolist() == [1.0, 0.0] and found.high.tolist() == [3.0, 0.0]
