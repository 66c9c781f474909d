"""The players of an evaluation that draw random numbers: policies, and random play."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from envs.base import Family
from envs.play import Observation
from envs.spaces import random_actions
from policies.base import Batch, Policy
from policies.noise import Noise, Purpose, fold
from trainers.loop.batches import pinned
from trainers.loop.capture import Captured

SMALLEST = 16  # lanes of the smallest graph: a GPU takes as long for fewer


class PolicyPlayer:
    """A policy as a player. It holds the lanes' memory and clears it where a new episode starts. (A policy whose memory spans
    episodes is played by `trainers/evaluate/streams.py`.)

    On a GPU, acting is captured in CUDA graphs. A graph has a fixed size, so a spare lane pads them to one of a few sizes.
    """

    by_halves = True  # it sees observations alone

    def __init__(self, policy: Policy, greedy: bool, seed: int, device: torch.device, capture: bool = True):
        self.policy, self.greedy, self.device = policy, greedy, device
        self.seed = fold(seed, Purpose.ACTING)
        self.captured: Captured | None = None
        if capture and device.type == "cuda":
            self.captured = Captured(self.act_captured, "acting")

    @torch.inference_mode()
    def start(self, vector: VectorEnv) -> None:
        self.lanes = vector.num_envs
        self.fresh = self.policy.start(self.lanes + (self.captured is not None), self.device)
        self.memory = {name: value.clone() for name, value in self.fresh.items()}

    @torch.inference_mode()
    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        if self.captured:
            size = graph_size(len(lanes), self.lanes)
            numbers = {"lane": lanes, "episode": episode, "step_index": step_index}
            inputs = {name: torch.from_numpy(filled(value, size)) for name, value in numbers.items()}
            inputs["lane"][len(lanes) :] = self.lanes
            seen = {name: torch.from_numpy(filled(value, size)) for name, value in observation.items()}
            whole = {"observation": seen, **inputs}
            action = self.captured.run(size, pinned(whole) if self.device.type == "cuda" else whole)
            return action[: len(lanes)].cpu().numpy()
        lane, row, when = (torch.from_numpy(x).to(self.device) for x in (lanes, episode, step_index))
        seen = {name: torch.from_numpy(value).to(self.device) for name, value in observation.items()}
        begins, everywhere = lane[when == 0], len(lane) == self.lanes
        for name, value in self.memory.items():
            value[begins] = self.fresh[name][begins]
        # Remembered frames are large, so the memory is not copied while every lane plays.
        memory = dict(self.memory) if everywhere else {name: value[lane] for name, value in self.memory.items()}
        # Random numbers depend on the episode and the step, not on the lane.
        action, memory = self.policy.act(seen, memory, Noise(self.seed, when, row), self.greedy)
        for name, value in memory.items():
            if everywhere:
                self.memory[name] = value
            else:
                self.memory[name].index_copy_(0, lane, value)
        return action.cpu().numpy()

    @torch.inference_mode()
    def act_captured(self, inputs: Batch, number: int) -> torch.Tensor:
        """`act` without waiting for the device: all shapes depend on the inputs alone, and memory is updated in place."""
        lane, begins = inputs["lane"], inputs["step_index"] == 0
        memory = {}
        for name, value in self.memory.items():
            kept = value[lane]
            memory[name] = torch.where(begins.view(-1, *[1] * (kept.dim() - 1)), self.fresh[name][lane], kept)
        noise = Noise(self.seed, inputs["step_index"], inputs["episode"])
        action, memory = self.policy.act(inputs["observation"], memory, noise, self.greedy)
        for name, value in memory.items():
            self.memory[name].index_copy_(0, lane, value)
        return action


def graph_size(playing: int, lanes: int) -> int:
    """All lanes, half of them (as workers step them), a quarter of those, and so on: few sizes, because each costs a capture."""
    size, smaller = lanes, -(-lanes // 2)
    while size > smaller >= max(playing, SMALLEST):
        size, smaller = smaller, smaller // 4
    return size


def filled(values: np.ndarray, size: int) -> np.ndarray:
    """`values` padded with zeros to `size` rows."""
    rows = np.zeros((size, *values.shape[1:]), values.dtype)
    rows[: len(values)] = values
    return rows


class RandomPlayer:
    """Uniformly random actions: a reference beside every score."""

    def __init__(self, family: Family, seed: int):
        self.space, self.seed = family.spaces.action, fold(seed, Purpose.RANDOM_PLAY)

    def start(self, vector: VectorEnv) -> None:
        pass

    def act(self, observation: Observation, lanes: np.ndarray, episode: np.ndarray, step_index: np.ndarray) -> np.ndarray:
        noise = Noise(self.seed, torch.from_numpy(step_index), torch.from_numpy(episode))
        return random_actions(self.space, noise.uniform(*(self.space.shape or ())).numpy())
