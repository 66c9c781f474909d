"""`trainer.recompute`: the same steps, with less kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import pair
from torch import Tensor, nn

from conf.errors import BadRequest
from envs.data import record, statistics
from envs.data.windows import Windows
from policies.encoders.resnet import ResNet
from policies.encoders.vit import VisionTransformer
from policies.recompute import recompute_all
from trainers.loop.source import Source
from trainers.loop.step import Step

CPU = torch.device("cpu")


def kept_bytes(compute: Callable[[], object], network: nn.Module) -> int:
    """Of the tensors that the backward pass needs, each storage counted once, without the weights."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        compute()
    return sum(kept.values())


@pytest.mark.parametrize("policy", ["masked_dit", "diffusion_unet", "ad", "compressed_ad"])
def test_steps_are_the_same(request_for: Callable, data_dir: Path, policy: str):
    words = (*pair(policy, "darkroom" if policy.endswith("ad") else "minigrid"), "trainer.batch_size=8")
    dropout = ("policy.dropout=0.3",) if policy.endswith("ad") else ()
    weights = []
    for recompute in ("false", "true"):
        request = request_for(*words, *dropout, f"trainer.recompute={recompute}")
        family = request.targets["env"](request.env)
        torch.manual_seed(0)
        made = request.targets["policy"](request.policy, family.spaces)
        data = record.dataset(family, request.env.data, "train", data_dir)
        made.fit(statistics.summarise(data))
        step = Step(request.trainer, made, Source(Windows(data, made.window), 8, 0, CPU, "host"), 100, 0, CPU)
        for number in range(3):
            step.take(step.source.inputs(number), number)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in made.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("backbone", "most"),
    [(lambda: ResNet(False, True), 0.6), pytest.param(lambda: VisionTransformer((84, 84), True), 0.1, marks=pytest.mark.slow)],
    ids=["resnet", "vit"],
)
def test_a_backbone_keeps_less(backbone: Callable[[], nn.Module], most: float):
    network, images = backbone(), torch.rand(2, 3, 84, 84)
    results: list[Tensor] = []
    before = kept_bytes(lambda: results.append(network(images)), network)
    assert recompute_all(network)
    after = kept_bytes(lambda: results.append(network(images)), network)
    assert after < most * before  # .54 and .07
    gradients = [torch.autograd.grad(result.sum(), [*network.parameters()]) for result in results]
    assert all(torch.equal(*two) for two in zip(*gradients, strict=True))


def test_what_has_no_blocks_is_refused(request_for: Callable, data_dir: Path):
    request = request_for("policy=bc_mlp", "trainer.recompute=true")
    family = request.targets["env"](request.env)
    made = request.targets["policy"](request.policy, family.spaces)
    data = record.dataset(family, request.env.data, "train", data_dir)
    with pytest.raises(BadRequest, match=r"trainer\.recompute=true, but BCMLP has no blocks"):
        Step(request.trainer, made, Source(Windows(data, made.window), 8, 0, CPU, "host"), 100, 0, CPU)
    with pytest.raises(BadRequest, match="recompute cannot be combined with compile"):
        request_for("policy=masked_dit", "trainer.recompute=true", "trainer.compile=true")
