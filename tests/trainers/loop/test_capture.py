"""Capture in CUDA graphs, as far as a CPU can test it: the step and acting never wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import options, pair
from torch.utils._python_dispatch import TorchDispatchMode

from envs.data import record, statistics
from envs.data.windows import Windows
from policies import plans
from policies.encoders import encoder, language
from trainers.evaluate.rollout import PolicyPlayer
from trainers.loop.capture import obstacle, remark
from trainers.loop.config import Config
from trainers.loop.source import Source
from trainers.loop.step import Step

CPU = torch.device("cpu")
QUESTIONS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "equal.default",
    "lift_fresh",
)  # the host waits for their answers, or copies


class NoQuestions(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if "aten.index" in str(func) and len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
        masks = [x for x in indices if isinstance(x, torch.Tensor) and x.dtype == torch.bool]
        assert not masks and not any(word in str(func) for word in QUESTIONS), f"{func} asks the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", options("policy"))
def test_a_step_and_acting_ask_nothing(request_for: Callable, data_dir: Path, policy: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plans, "NEVER_ASKED", ("cpu",))
    for module in (language, encoder):  # shortcuts that only a CPU takes
        monkeypatch.setattr(module, "shapes_are_fixed", lambda x: True)
    request = request_for(*pair(policy, "darkroom" if policy.endswith("ad") else "minigrid"), "trainer.batch_size=8")
    family = request.targets["env"](request.env)
    made = request.targets["policy"](request.policy, family.spaces)
    data = record.dataset(family, request.env.data, "train", data_dir)
    made.fit(statistics.summarise(data))
    source = Source(Windows(data, made.window), 8, 0, CPU, "device")
    step = Step(request.trainer, made, source, 100, 0, CPU)
    inputs = source.inputs(0)
    with NoQuestions():
        step.update(inputs, 0)
    if made.memory_scope == "history":  # played by evaluate/streams.py, which captures nothing
        return
    player = PolicyPlayer(made.eval(), False, 0, CPU)
    player.fresh = made.start(9, CPU)
    player.memory = {name: value.clone() for name, value in player.fresh.items()}
    seen = {name: value[:, -1] for name, value in source.cut(inputs)["observation"].items()}
    lanes = {"lane": torch.arange(8), "episode": torch.arange(8), "step_index": torch.zeros(8, dtype=torch.long)}
    for player.greedy in (False, True):
        with NoQuestions():
            player.act_captured({"observation": seen, **lanes}, 0)


def test_why_a_step_is_not_captured():
    assert obstacle(Config(), CPU) == "CUDA graphs need device=cuda"
    assert obstacle(Config(), torch.device("cuda")) is None
    assert "off" in str(obstacle(Config(capture="off"), torch.device("cuda")))
    assert "profile" in str(obstacle(Config(profile=True), torch.device("cuda")))


def test_a_gpu_says_why_it_captures_nothing():
    gpu = torch.device("cuda")
    assert remark(Config(freeze_after=9), gpu) == (
        "steps are not captured in a CUDA graph, because trainer.freeze_after changes what a step computes: they are slower, and "
        "compute the same"
    )
    assert remark(Config(), gpu) is None
    assert remark(Config(capture="off"), gpu) is None, "as it was told"
    assert remark(Config(freeze_after=9), CPU) is None
