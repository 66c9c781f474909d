from __future__ import annotations

import pytest
import torch
from helpers import GRID_SPACES, grids

from policies.bc_gru import BCGRU, Config
from policies.noise import Noise

STEPS = 6


def jolted(**values) -> BCGRU:
    policy = BCGRU(Config(**values), GRID_SPACES).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return policy


def window(grid: torch.Tensor, before: int) -> dict:
    """A window of an episode with `before` slots before its start, filled with its first frame, as envs/data cuts it."""
    known = torch.arange(-before, len(grid)) >= 0
    shown = torch.cat([grid[:1].expand(before, -1, -1, -1), grid])
    action = torch.randint(0, 7, (1, len(shown)), generator=torch.Generator().manual_seed(0))
    mask = known[None]
    ended = torch.zeros_like(mask)
    return {"observation": {"grid": shown[None]}, "observation_mask": mask, "action": action, "action_mask": mask, "ended": ended}


def test_steps_from_before_the_episode_leave_no_trace():
    policy, grid = jolted(length=STEPS + 3), grids(STEPS)
    padded, plain = window(grid, 3), window(grid, 0)
    plain["action"] = padded["action"][:, 3:]
    losses = [policy(batch, Noise(0, 0, torch.arange(1))) for batch in (padded, plain)]
    assert losses[0].count == losses[1].count == STEPS
    assert torch.isclose(losses[0].total, losses[1].total, atol=1e-5)


@pytest.mark.parametrize("length", [STEPS, 1])
def test_what_was_seen_before_matters_unless_there_is_one_step(length: int):
    policy, last = jolted(length=length), grids(1)
    chosen = []
    for _ in range(20):
        memory = policy.start(1, torch.device("cpu"))
        for grid in [*grids(3).split(1), last]:
            _, memory = policy.act({"grid": grid}, memory, Noise(0, 0, torch.arange(1)), greedy=True)
        chosen.append(memory["hidden"])
    assert (torch.stack(chosen).std(0).max() > 1e-3) == (length > 1)
