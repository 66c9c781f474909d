import numpy as np
import pytest

from trainers.loop.batches import Batches


@pytest.mark.parametrize("count, size", [(10, 4), (7, 7), (5, 12), (100, 1)])
def test_every_epoch_shows_every_sample_once(count, size):
    batches = Batches(count, size, seed=3)
    stream = np.concatenate([batches.samples(step) for step in range(5 * count)])
    assert all(len(batches.samples(step)) == size for step in range(5))
    for epoch in range(len(stream) // count):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_step_needs_no_history():
    fresh, used = Batches(50, 8, seed=1), Batches(50, 8, seed=1)
    for step in range(20):
        used.samples(step)
    assert np.array_equal(fresh.samples(20), used.samples(20))


def test_seeds_and_epochs_differ():
    first, other = Batches(100, 100, seed=0), Batches(100, 100, seed=1)
    assert not np.array_equal(first.samples(0), first.samples(1))
    assert not np.array_equal(first.samples(0), other.samples(0))
