"""Intervals compared with published values, with their limits at the edges, and with simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.evaluate.intervals import chi_square, difference, interval, student, wilson


@pytest.mark.parametrize(
    "successes, episodes, low, high",
    [  # from R's binom::binom.wilson
        (0, 10, 0.0, 0.2775),
        (9, 10, 0.5958, 0.9821),
        (10, 10, 0.7225, 1.0),
        (250, 500, 0.4563, 0.5437),
    ],
)
def test_wilson_is_the_published_interval(successes: int, episodes: int, low: float, high: float):
    assert wilson(successes / episodes, episodes) == pytest.approx((low, high), abs=1e-4)
    alone = interval(np.arange(episodes) < successes, share=True)
    assert (alone.low, alone.high) == pytest.approx((low, high), abs=1e-4) and not alone.seeds_differ


def test_quantiles_are_the_published_ones():
    for freedom, value in {1: 12.7062, 2: 4.3027, 10: 2.2281, 11: 2.2010, 30: 2.0423, 499: 1.9647}.items():
        assert student(freedom) == pytest.approx(value, abs=2e-4)
    for freedom, value in {2: 5.991, 4: 9.488, 9: 16.919}.items():  # an approximation
        assert chi_square(freedom) == pytest.approx(value, rel=0.01)


LOGIT_SCATTER = 0.5  # of seeds: success of .77 to .94 around .88


def experiments(seeds: int, number: int) -> tuple[np.ndarray, float]:
    """Success [number, seeds, 200] where seeds differ and some layouts are hard for all of them, and the true mean."""
    random = np.random.default_rng(seeds)

    def share(*shape: int) -> np.ndarray:
        seed = LOGIT_SCATTER * random.standard_normal((*shape[:-1], 1))
        layout = random.standard_normal((*shape[:-2], 1, shape[-1]))
        return 1 / (1 + np.exp(-(2 + seed + layout)))

    truth = share(100_000, 1, 1).mean()
    return random.random((number, seeds, 200)) < share(number, seeds, 200), float(truth)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_over_seeds_that_differ(seeds: int):
    tables, truth = experiments(seeds, 1000)  # a share of .95 has a standard deviation of .007
    found = [interval(table, share=True) for table in tables]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.93 <= covered <= 0.99
    pooled = [wilson(table.mean(), table.size) for table in tables]
    assert np.mean([low <= truth <= high for low, high in pooled]) < 0.7  # what was published before


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_of_returns_and_of_differences(seeds: int):
    random = np.random.default_rng(seeds)
    covered, alike = [], []
    for _ in range(600):
        layouts = random.standard_normal(100)
        one, other = (random.standard_normal((seeds, 1)) + layouts + 2 * random.standard_normal((seeds, 100)) for _ in "ab")
        found = interval(one)
        covered.append(found.low <= 0 <= found.high)
        alike.append(difference(one, other).verdict == "cannot tell")
    assert 0.93 <= np.mean(covered) <= 0.99
    assert 0.93 <= np.mean(alike) <= 0.995


def test_seeds_that_differ_are_noticed_and_others_are_not():
    random = np.random.default_rng(0)
    same = [interval(random.random((3, 500)) < 0.8, share=True).seeds_differ for _ in range(400)]
    assert np.mean(same) < 0.1  # a test at 5 %
    apart = [interval(random.random((3, 500)) < np.array([[0.6], [0.7], [0.8]]), share=True).seeds_differ for _ in range(50)]
    assert all(apart)


def test_success_stays_within_its_bounds_and_keeps_a_width():
    everything = interval(np.ones((3, 500)), share=True)
    assert everything.high == 1.0 and everything.low == pytest.approx(wilson(1.0, 500)[0])  # 500 layouts, however many seeds
    lottery = interval(np.repeat([[1.0], [1.0], [0.0]], 100, axis=1), share=True)
    assert (lottery.low, lottery.high) == (0.0, 1.0) and lottery.seeds_differ
    assert interval([True], share=True).low < 0.21 and interval([3.0]).low == interval([3.0]).high == 3.0


def test_independent_episodes_count_and_shared_ones_count_once():
    random = np.random.default_rng(0)
    free = interval(random.random((10, 500)) < 0.5, share=True)
    shared = interval(np.repeat(random.random((1, 500)) < 0.5, 10, axis=0), share=True)
    once = interval(random.random(500) < 0.5, share=True)
    assert shared.high - shared.low == pytest.approx(once.high - once.low, rel=0.02)
    assert free.high - free.low < 0.8 * (once.high - once.low)


def test_tasks_are_what_they_are():
    """Streams of a near and a far goal: only the streams of each goal are a sample, the goals are not."""
    tasks = ["near"] * 50 + ["far"] * 50
    best = np.array([18.0] * 50 + [12.0] * 50)
    exact = interval(best, strata=tasks)
    assert exact.low == exact.mean == exact.high == 15.0
    assert interval(best).high > 15.5
    own = interval(best, strata=[*map(str, range(100))])  # each stream has a task of its own: these were drawn
    assert (own.low, own.high) == (interval(best).low, interval(best).high)


def test_differences_are_paired_and_may_be_unknown():
    random = np.random.default_rng(0)
    layouts = random.random(500)
    one, other = (np.stack([layouts < level + shift for shift in (0.0, 0.01, -0.01)]) for level in (0.8, 0.7))
    found = difference(one, other, share=True)
    assert found.verdict == "higher" and found.mean == pytest.approx(0.1, abs=0.02)
    assert difference(other, one, share=True).verdict == "lower"
    lottery = np.repeat([[0.9], [0.1], [0.9]], 500, axis=1)
    assert difference(lottery, other, share=True).verdict == "cannot tell"  # the seeds' scatter decides
    better = np.clip(lottery + 0.05, 0, 1)
    assert difference(better, lottery).verdict == "cannot tell"  # seeds that were trained anew
    assert difference(better, lottery, same_weights=True).verdict == "higher"  # the same three, acting in another way
    few = np.ones(100)
    few[:4] = 0
    assert difference(np.ones(100), few, share=True).verdict == "cannot tell"  # exact McNemar: p = .125
    few[:8] = 0
    assert difference(np.ones(100), few, share=True).verdict == "higher"  # p = .008
