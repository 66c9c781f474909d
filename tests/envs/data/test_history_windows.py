from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SPACES, write_episodes

from conf.errors import BadRequest
from envs.data.store import Dataset, Writer
from envs.data.windows import Window, Windows

LENGTHS = [[3, 5, 2, 4, 1], [6], [2, 2, 2, 3]]  # of the episodes of three histories


def write_histories(folder: Path, leave_out: str = "", slips: bool = False) -> Dataset:
    """Step i shows i, has the label i mod 4, the reward i / 10 and the log-probability -i; -0.5 means none."""
    ends = np.cumsum(np.concatenate(LENGTHS))
    step = np.arange(ends[-1])
    columns = {
        "observation.state": np.repeat(step[:, None], 3, 1).astype(np.float32),
        "action": step % 4,
        "reward": (step / 10).astype(np.float32),
        "logp": np.where(step % 5 == 2, np.nan, -step).astype(np.float32),
        "terminated": np.isin(step, ends - 1),
        "truncated": np.zeros(len(step), bool),
    } | ({"executed_action": (step + 1) % 4} if slips else {})
    with Writer(folder) as writer:
        writer.append_episodes({name: rows for name, rows in columns.items() if name != leave_out}, np.concatenate(LENGTHS))
        writer.append("history_ends", np.cumsum([sum(lengths) for lengths in LENGTHS]))
        writer.close()
        writer.finish({"recipe": {"spaces": SPACES.to_json()}, "steps": len(step), "episodes": len(ends)})
    return Dataset(folder)


def strands(every: int) -> list[list[tuple[int, list[int]]]]:
    """Every history's strands: (number of the episode, its steps)."""
    found, step = [], 0
    for lengths in LENGTHS:
        episodes = []
        for number, length in enumerate(lengths):
            episodes.append((number, list(range(step, step + length))))
            step += length
        found += [episodes[offset::every] for offset in range(min(every, len(episodes)))]
    return found


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("slots", [1, 4, 30])
@pytest.mark.parametrize("from_start", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("slips", [False, True])
def test_windows_are_what_a_loop_would_cut(tmp_path, every, slots, from_start, slips):
    window = Window(slots, slots, "each", "history", every, from_start)
    windows = Windows(write_histories(tmp_path, slips=slips), window)
    batch = windows.batch(np.arange(len(windows)))
    sample = 0
    for strand in strands(every):
        beginnings = []
        for first in range(len(strand)):
            steps = [(number, k == 0, step) for number, episode in strand[first:] for k, step in enumerate(episode)]
            if first == 0 or (len(steps) >= slots and from_start < 1):
                beginnings.append((first, steps[:slots]))
        others = len(beginnings) - 1
        share = from_start / (1 - from_start) if from_start < 1 else 0
        repeats = max(1, int(np.ceil(share * others - 1e-9)))
        for _, steps in [beginnings[0]] * repeats + beginnings[1:]:
            row = {name: value[sample] for name, value in batch.items() if name != "observation"}
            assert row["action_mask"].tolist() == row["observation_mask"].tolist() == [slot < len(steps) for slot in range(slots)]
            for slot, (number, first, step) in enumerate(steps):
                assert batch["observation"]["state"][sample, slot].tolist() == [step] * 3
                assert row["action"][slot] == step % 4
                assert (row["first"][slot], row["episode"][slot]) == (first, number)
                before = steps[slot - 1][2] if slot else None
                assert row["previous_action"][slot] == (0 if before is None else (before + slips) % 4)
                assert row["previous_reward"][slot] == pytest.approx(0 if before is None else before / 10)
                assert row["floor"][slot].isnan() if step % 5 == 2 else row["floor"][slot] == step
            assert not row["ended"].any()
            sample += 1
        assert repeats / (repeats + others) >= min(from_start, 1)
    assert sample == len(windows)


def test_a_batch_has_the_shapes_and_types_that_policies_expect(tmp_path):
    batch = Windows(write_histories(tmp_path), Window(4, 4, "each", "history")).batch(np.array([0, 3, 1]))
    types = {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if name != "observation"}
    assert types == {
        "observation_mask": ((3, 4), torch.bool),
        "action": ((3, 4), torch.int64),
        "action_mask": ((3, 4), torch.bool),
        "ended": ((3, 4), torch.bool),
        "first": ((3, 4), torch.bool),
        "episode": ((3, 4), torch.int64),
        "previous_action": ((3, 4), torch.int64),
        "previous_reward": ((3, 4), torch.float32),
        "floor": ((3, 4), torch.float32),
    }


def test_single_episodes_are_histories_of_their_own(tmp_path):
    """So a policy that learns in context can be trained on any recorded data, if only to see that it learns nothing."""
    windows = Windows(write_episodes(tmp_path, [5, 1, 9], [True, True, False]), Window(6, 6, "each", "history"))
    batch = windows.batch(np.arange(len(windows)))
    assert batch["action_mask"].sum(1).tolist() == [5, 1, 6]
    assert not batch["episode"].any() and batch["floor"].isnan().all()
    assert batch["first"].sum() == 3


def test_histories_without_rewards_are_refused(tmp_path):
    data = write_histories(tmp_path, leave_out="reward")
    assert len(Windows(data, Window())) == len(data)
    with pytest.raises(BadRequest, match="no rewards"):
        Windows(data, Window(4, 4, "each", "history"))
