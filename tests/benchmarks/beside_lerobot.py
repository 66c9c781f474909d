"""Training speed beside LeRobot (Cadene et al. 2024): its ACT and its diffusion policy against ours of the same shape.

    pip install --no-deps lerobot==0.4.4 && pip install torchvision "diffusers<0.36" einops draccus==0.10.0 "datasets>=4,<5"
    OMP_NUM_THREADS=1 python tests/benchmarks/beside_lerobot.py

Both train on the same random batch of 84x84 images, each in a process of its own with one thread of a CPU, step by step in turns;
medians of CPU time are compared. Neither reads data. `shipped`: each takes the step of its own trainer (ours is Step in
trainers/loop/step.py, without an average of weights; theirs is that of lerobot-train, with the optimiser of the policy's preset),
in the environment that its launcher makes. `same`: LeRobot is given our fused optimiser and our environment, so that networks
and clipping alone differ.

Layers, widths, chunks and observations are equal; ACT of both attends to each cell of the image's features. What is left (their
ACT has one more token, a latent that is zero without its VAE) shows in the floating-point operations of a forward pass.
Without LeRobot, only our speed is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from conf.check import typed
from policies.noise import Noise
from trainers.loop.optim import OptimizerConfig, make_optimizer
from trainers.loop.step import Step

ROOT = __file__.rpartition("/tests/")[0]
SIDE, STATE, ACTION = 84, 3, 3
OURS = {
    "act": (
        "policy=act",
        "policy.hidden_dim=512",
        "policy.heads=8",
        "policy.feedforward=256",
        "policy.encoder_layers=4",
        "policy.decoder_layers=4",
        "policy.norm_first=false",
        "policy.dropout=0.1",
        "policy.chunk_size=8",
        "policy.encoder.image_pool=none",
        "policy.encoder.image_pretrained=true",  # no weights are loaded; batch norms keep their statistics, as theirs do
    ),
    "diffusion": (
        "policy=diffusion_unet",
        "policy.size=large",
        "policy.join_first=true",
        "policy.condition_dim=192",
        "policy.horizon=16",
        "policy.draws=1",
        "policy.prediction=epsilon",
    ),
}
CLIP = 10.0  # norm of the gradient, in both
Made = tuple[nn.Module, Callable[[], Any], Callable[[], None]]  # network, forward pass, training step


def batch_of(size: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (size, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    state = torch.randn(size, STATE, generator=generator)
    return image, state, torch.rand(size, horizon, ACTION, generator=generator) * 2 - 1


class Fixed:
    """A source whose batch is always the same."""

    @staticmethod
    def cut(inputs: Any) -> Any:
        return inputs


def ours(name: str, size: int, horizon: int) -> Made:
    words = (*OURS[name], "env=push", "policy.encoder.image=resnet18", "device=cpu", f"trainer.batch_size={size}")
    words = (*words, f"trainer.grad_clip={CLIP}", "trainer.ema=0")
    with initialize_config_dir(f"{ROOT}/conf", version_base="1.3"):
        request = typed(compose("config", list(words), return_hydra_config=True))
    network = request.targets["policy"](request.policy, request.targets["env"](request.env).spaces).train()
    image, state, action = batch_of(size, horizon)
    there = torch.ones(size, horizon, dtype=torch.bool)
    batch = {
        "observation": {"image": image[:, None], "state": state[:, None]},
        "observation_mask": there[:, :1],
        "action": action,
        "action_mask": there,
        "ended": ~there,
    }
    step = Step(request.trainer, network, Fixed(), 1000, 0, torch.device("cpu"))  # type: ignore[arg-type]

    def take() -> None:
        step.take(batch, 100)
        step.fetch()

    return network, lambda: network(batch, Noise(0, 0, torch.arange(size))), take


def theirs(name: str, size: int, horizon: int, same: bool) -> Made:
    import_torchvision()
    from lerobot.configs.types import FeatureType, PolicyFeature

    features: dict[str, Any] = {
        "input_features": {
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, SIDE, SIDE)),
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        "device": "cpu",
    }
    if name == "act":
        from lerobot.policies.act.modeling_act import ACTConfig, ACTPolicy

        shape: dict[str, Any] = {
            "dim_model": 512,
            "n_heads": 8,
            "dim_feedforward": 256,
            "n_encoder_layers": 4,
            "n_decoder_layers": 4,
        }
        steps: dict[str, Any] = {
            "chunk_size": horizon,
            "n_action_steps": horizon,
            "use_vae": False,
            "pretrained_backbone_weights": None,
        }
        network = ACTPolicy(ACTConfig(**features, **shape, **steps))
    else:
        from lerobot.policies.diffusion.modeling_diffusion import (
            DiffusionConfig,
            DiffusionPolicy,
        )

        shape = {"down_dims": (256, 512, 1024), "crop_shape": None, "use_group_norm": True}
        network = DiffusionPolicy(DiffusionConfig(**features, **shape, n_obs_steps=1, horizon=horizon, n_action_steps=horizon))
    image, state, action = batch_of(size, horizon)
    pictures = image.permute(0, 3, 1, 2).contiguous().float() / 255  # as its datasets hold them
    if name == "act":
        batch = {"observation.image": pictures, "observation.state": state}
    else:
        batch = {"observation.image": pictures[:, None], "observation.state": state[:, None]}
    batch |= {"action": action, "action_is_pad": torch.zeros(size, horizon, dtype=torch.bool)}
    network.train()
    if same:
        optimizer = make_optimizer(OptimizerConfig(), [*network.parameters()])
    else:
        optimizer = network.config.get_optimizer_preset().build(network.get_optim_params())

    def take() -> None:  # as update_policy in lerobot/scripts/lerobot_train.py
        network.forward(dict(batch))[0].backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return network, lambda: network.forward(dict(batch)), take


def import_torchvision() -> None:
    """Its package for CUDA imports beside a PyTorch for CPUs once these operators have a definition."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def work(who: str, name: str, size: int) -> None:
    """One side, in a process of its own: says what it is, then takes a step and says its CPU time for each line that it reads."""
    torch.set_num_threads(1)
    horizon = 8 if name == "act" else 16
    try:
        network, forward, take = ours(name, size, horizon) if who == "ours" else theirs(name, size, horizon, who == "same")
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    with FlopCounterMode(display=False) as counter:
        forward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(json.dumps({"parameters": parameters, "operations": counter.get_total_flops() / size}), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        take()
        print(time.process_time() - began, flush=True)


def environments() -> dict[str, dict[str, str]]:
    """Of each side's process: launch.py sets some variables as it is imported."""
    plain = dict(os.environ)
    import launch

    assert launch.__file__ == f"{ROOT}/launch.py"
    return {"ours": dict(os.environ), "same": dict(os.environ), "shipped": plain}


def compare(name: str, others: list[str], size: int, steps: int) -> None:
    sides, made, took = {}, {}, {}
    for who, environment in environments().items():
        if who not in ("ours", *others):
            continue
        command = [sys.executable, __file__, "--work", who, "--policies", name, "--batch", str(size)]
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        side = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert side.stdin and side.stdout
        found = json.loads(side.stdout.readline())
        if "missing" in found:
            print(f"without LeRobot ({found['missing']}): no ratio")
            continue
        sides[who], made[who], took[who] = side, found, []
    for number in range(steps + 1):
        for who, side in sides.items():
            side.stdin.write("\n")
            side.stdin.flush()
            seconds = float(side.stdout.readline())
            if number:
                took[who].append(seconds)
    for side in sides.values():
        side.stdin.close()
        side.wait()
    speed = {who: size / statistics.median(times) for who, times in took.items()}
    for who, found in made.items():
        shape = f"{found['parameters']:12,} parameters  {found['operations'] / 1e9:.3f} GFLOP"
        label = "ours" if who == "ours" else f"LeRobot, {who}"
        print(f"{name:10} {label:16} {shape}  {speed[who]:7.1f} samples/s")
    for who in [who for who in speed if who != "ours"]:
        ratio, share = speed["ours"] / speed[who], made["ours"]["operations"] / made[who]["operations"]
        print(f"{name:10} {who:8} ratio of samples/s {ratio:.2f}x, of operations a sample {share:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--policies", nargs="+", default=["act", "diffusion"], choices=["act", "diffusion"])
    parser.add_argument("--against", nargs="+", default=["shipped", "same"], choices=["shipped", "same"])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in arguments.policies:
        if arguments.work:
            work(arguments.work, name, arguments.batch)
        else:
            compare(name, arguments.against, arguments.batch, arguments.steps)


if __name__ == "__main__":
    main()
