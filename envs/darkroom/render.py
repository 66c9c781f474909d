"""Frames of an episode, for people: policies never see them, nor the goal."""

from __future__ import annotations

import numpy as np

TILE = 16  # pixels of a cell
FLOOR, LINE = (28, 30, 36), (48, 51, 60)
GOAL, AGENT, PAID = (70, 140, 80), (225, 85, 70), (250, 205, 80)


def film(size: int, cells: list[int], targets: list[int], rewards: list[float]) -> np.ndarray:
    """[T+1, H, W, 3] uint8: the agent's and the target's cell at each step; the agent is bright where it was just rewarded."""
    board = np.full((size, TILE, size, TILE, 3), FLOOR, np.uint8)  # row, pixel, column, pixel
    board[:, 0], board[:, :, :, 0] = LINE, LINE
    frames = []
    for cell, target, reward in zip(cells, targets, rewards, strict=True):
        frame = board.copy()
        row, column = divmod(int(target), size)
        frame[row, 1:, column, 1:] = GOAL
        row, column = divmod(int(cell), size)
        frame[row, 4:-3, column, 4:-3] = PAID if reward > 0 else AGENT
        frames.append(frame.reshape(size * TILE, size * TILE, 3))
    return np.stack(frames)
