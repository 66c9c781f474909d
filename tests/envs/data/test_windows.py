from __future__ import annotations

import numpy as np
import pytest
from helpers import write_episodes

from envs.data.windows import Window, Windows

LENGTHS, TERMINATED = [5, 1, 9], [True, True, False]


@pytest.mark.parametrize(
    "window",
    [Window(), Window(actions=4), Window(observations=3), Window(3, 4), Window(4, 4, "each"), Window(3, back=(5, 1, 0))],
    ids=lambda w: f"{w.observations}-{w.actions}-{w.align}-{len(w.back)}",
)
@pytest.mark.parametrize("slips", [None, [], [3], [4], [5], [6, 9, 10, 14]], ids=str)  # episodes begin at 0, 5, 6
def test_windows_are_what_a_loop_would_cut(tmp_path, window, slips):
    data = write_episodes(tmp_path, LENGTHS, TERMINATED, slips)
    windows = Windows(data, window)
    samples = np.random.default_rng(0).permutation(len(windows))
    batch = windows.batch(samples)
    state, label = data.observations["state"], data.columns["action"]
    for row, now in enumerate(samples):
        episode = int(np.searchsorted(data.ends, now, side="right"))
        start, end = int(data.starts[episode]), int(data.ends[episode])
        for slot, back in enumerate(window.back or range(window.observations)[::-1]):
            step = now - back
            inside = step >= start
            assert batch["observation_mask"][row, slot] == inside
            if inside:
                assert np.array_equal(batch["observation"]["state"][row, slot], state[step])
        first = now if window.align == "last" else now - window.observations + 1
        for slot, step in enumerate(range(first, first + window.actions)):
            as_planned = window.align == "each" or not set(slips or []) & set(range(now, min(step, end)))
            inside = start <= step < end and as_planned
            assert batch["action_mask"][row, slot] == inside
            assert batch["ended"][row, slot] == (step >= end and TERMINATED[episode] and as_planned)
            if inside:
                assert batch["action"][row, slot] == label[step]


def test_a_vector_deviates_where_any_of_its_numbers_does(tmp_path):
    data = write_episodes(tmp_path, [4], [True])
    label = np.zeros((4, 2), np.float32)
    data.columns |= {"action": label, "executed_action": label + np.array([[0, 0], [0, 1], [0, 0], [0, 0]], np.float32)}
    batch = Windows(data, Window(actions=4)).batch(np.arange(4))
    assert batch["action_mask"].sum(1).tolist() == [2, 1, 2, 1]
    assert batch["ended"].sum(1).tolist() == [0, 0, 2, 3]


def test_every_step_is_a_sample(tmp_path):
    data = write_episodes(tmp_path, LENGTHS, TERMINATED)
    assert len(Windows(data, Window(actions=8))) == sum(LENGTHS)
