"""Windows cut from tensors on a device equal those cut from files, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.data import record
from envs.data.placed import PlacedWindows
from envs.data.windows import Window, Windows
from trainers.loop.batches import flattened

HISTORIES = ("env=darkroom", "env.data.episodes=400", "env.data.val_episodes=40", "policy=ad")
EPISODES = ("env.id=MiniGrid-DoorKey-5x5-v0", "env.data.noise=0.2")  # with steps at which another action was executed


@pytest.mark.parametrize(
    "words, window",
    [
        (EPISODES, Window(1, 8)),
        (EPISODES, Window(3, 1, back=(4, 2, 0))),
        (EPISODES, Window(6, 6, align="each")),
        (HISTORIES, Window(50, 50, align="each", span="history")),
        (HISTORIES, Window(90, 90, align="each", span="history", every=3, from_start=1.0)),
    ],
)
def test_batches_are_equal(request_for: Callable, data_dir: Path, words: tuple[str, ...], window: Window):
    request = request_for(*words)
    family = request.targets["env"](request.env)
    windows = Windows(record.dataset(family, request.env.data, "train", data_dir), window)
    samples = np.random.default_rng(0).integers(len(windows), size=300)
    placed = PlacedWindows(windows, torch.device("cpu"))
    assert PlacedWindows.size(windows) > windows.dataset.columns["action"].nbytes
    ours, theirs = flattened(placed.batch(torch.from_numpy(samples))), flattened(windows.batch(samples))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0, equal_nan=True)
    if window.span == "episode" and window.actions > 1:
        assert not theirs["action_mask"].all()  # padding was among them
