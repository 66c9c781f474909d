"""Training speed beside LeRobot (Cadene et al. 2024): its ACT and its diffusion policy against ours of the same shape.

    pip install --no-deps lerobot==0.4.4 && pip install torchvision "diffusers<0.36" einops draccus==0.10.0 "datasets>=4,<5"
    OMP_NUM_THREADS=1 python tests/benchmarks/beside_lerobot.py

Both do forward, backward, clipping and AdamW on the same random batch of 84x84 images, in turns, in one process and one thread of
a CPU; medians are compared. Neither reads data. The networks are not the same to the last layer, so the floating-point operations
of a forward pass are counted and shown: ACT there attends to each cell of the image's features, here to one token an image.
Without LeRobot, only our speed is shown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from conf.check import typed
from policies.noise import Noise

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
    ),
    "diffusion": (
        "policy=diffusion_unet",
        "policy.size=large",
        "policy.horizon=16",
        "policy.draws=1",
        "policy.prediction=epsilon",
    ),
}
Step = Callable[[], None]


def batch_of(size: int, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (size, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    state = torch.randn(size, STATE, generator=generator)
    return image, state, torch.rand(size, horizon, ACTION, generator=generator) * 2 - 1


def training_step(network: nn.Module, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()

    return step


def ours(name: str, size: int, horizon: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    words = (*OURS[name], "env=push", "policy.encoder.image=resnet18", "policy.encoder.image_pretrained=true", "device=cpu")
    with initialize_config_dir(f"{ROOT}/conf", version_base="1.3"):
        request = typed(compose("config", list(words), return_hydra_config=True))
    network = request.targets["policy"](
        request.policy, request.targets["env"](request.env).spaces
    ).train()  # no weights are loaded
    image, state, action = batch_of(size, horizon)
    there = torch.ones(size, horizon, dtype=torch.bool)
    batch = {
        "observation": {"image": image[:, None], "state": state[:, None]},
        "observation_mask": there[:, :1],
        "action": action,
        "action_mask": there,
        "ended": ~there,
    }

    def loss() -> Tensor:
        total, count, _ = network(batch, Noise(0, 0, torch.arange(size)))
        return total / count

    return network, loss


def theirs(name: str, size: int, horizon: int) -> tuple[nn.Module, Callable[[], Tensor]]:
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
    pictures = image.permute(0, 3, 1, 2).float() / 255
    if name == "act":
        batch = {"observation.image": pictures, "observation.state": state}
    else:
        batch = {"observation.image": pictures[:, None], "observation.state": state[:, None]}
    batch |= {"action": action, "action_is_pad": torch.zeros(size, horizon, dtype=torch.bool)}
    return network.train(), lambda: network.forward(dict(batch))[0]


def import_torchvision() -> None:
    """Its package for CUDA imports beside a PyTorch for CPUs once these operators have a definition."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--policies", nargs="+", default=["act", "diffusion"], choices=["act", "diffusion"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.policies:
        horizon = 8 if name == "act" else 16
        made = {"ours": ours(name, arguments.batch, horizon)}
        try:
            made["LeRobot"] = theirs(name, arguments.batch, horizon)
        except ImportError as error:
            print(f"without LeRobot ({error}): no ratio")
        operations = {}
        for who, (_, loss) in made.items():
            with FlopCounterMode(display=False) as counter:
                loss()
            operations[who] = counter.get_total_flops() / arguments.batch
        steps = {who: training_step(*parts) for who, parts in made.items()}
        took: dict[str, list[float]] = {who: [] for who in steps}
        for number in range(arguments.steps + 1):
            for who, step in steps.items():
                began = time.process_time()
                step()
                if number:
                    took[who].append(time.process_time() - began)
        speed = {who: arguments.batch / statistics.median(times) for who, times in took.items()}
        for who, (network, _) in made.items():
            parameters = sum(parameter.numel() for parameter in network.parameters())
            print(
                f"{name:10} {who:8} {parameters:12,} parameters  {operations[who] / 1e9:.3f} GFLOP  {speed[who]:7.1f} samples/s"
            )
        if len(speed) == 2:
            ratio, work = speed["ours"] / speed["LeRobot"], operations["ours"] / operations["LeRobot"]
            print(f"{name:10} ratio of samples/s {ratio:.2f}x, of operations a sample {work:.2f}, both {ratio * work:.2f}x")


if __name__ == "__main__":
    main()
