"""Networks from normalised images [B, 3, h, w] to features: write-up 004's CNN, ResNet-18 and ViT-B/16.

Features are [B, features], or [B, cells, features] with `image_pool=none`: those of each cell of the last map."""

from __future__ import annotations

import importlib.util

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from conf.errors import BadRequest
from policies.encoders.config import Config
from policies.encoders.resnet import ResNet
from policies.encoders.vit import PATCH, VisionTransformer, resized

Size = tuple[int, int]


class Backbone(nn.Module):
    features: int
    cells: Size | None = None  # rows and columns of the map whose cells have features of their own; None: it is pooled
    film: int = 0  # numbers that `forward` takes of an instruction (policy.encoder.image_film); 0: it takes no instruction

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        return None

    def load_pretrained(self) -> None:
        """Download weights before training; a loaded checkpoint needs none."""
        raise NotImplementedError("load_pretrained(), of networks whose weights can be downloaded")


def scaled(x: Tensor, film: Tensor) -> Tensor:  # [B, c, h, w], [B, 2, c, 1, 1]
    scale, shift = film.unbind(1)
    return x * (1 + scale) + shift


class CNN(Backbone):
    """Write-up 004's four convolutions. Its average pool says how much of a feature there is, not where: 72 % success on Push.
    The spatial softmax (Levine et al. 2016), the expected position of each feature, gets 94 %."""

    film = 2 * 2 * 64  # layers, scale and shift, channels
    grid: Tensor

    def __init__(self, config: Config, size: Size):
        super().__init__()
        self.pool = config.image_pool
        self.first = nn.Conv2d(3, 32, 8, stride=4, padding=2)
        self.second = nn.Conv2d(32, 64, 4, stride=2, padding=2)
        self.third = nn.Conv2d(64, 64, 3, padding=1)
        self.fourth = nn.Conv2d(64, 64, 3, padding=1)
        self.features = 128 if self.pool == "softmax" else 64
        with torch.no_grad():
            height, width = self.map(torch.zeros(1, 3, *size)).shape[-2:]
        if self.pool == "none":
            self.cells = (height, width)
        if self.pool == "softmax":
            self.sharpness = nn.Parameter(torch.ones(1))
            y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
            self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()], 1), persistent=False)  # [h*w, 2]

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        return (
            None if min(size) >= 8 else f"images of {size[0]}x{size[1]} pixels are too small for policy.encoder.image=cnn (8x8)"
        )

    def map(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        if film is None:
            return self.fourth(F.relu(self.third(F.relu(x))))  # [B, 64, h/8, w/8]
        before, after = film.view(-1, 2, 2, 64, 1, 1).unbind(1)  # [B, scale and shift, 64, 1, 1]
        return self.fourth(F.relu(scaled(self.third(F.relu(scaled(x, before))), after)))

    def forward(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """`film` [B, 256] scales and shifts the outputs of the second and third convolution; None: not at all."""
        x = self.map(x, film).float()
        if self.pool == "none":
            return F.relu(x).flatten(2).transpose(1, 2)
        if self.pool == "average":
            return F.relu(x).mean((2, 3))
        with torch.autocast(x.device.type, enabled=False):  # a position in bfloat16 is off by up to a pixel
            chance = (x.flatten(2) * self.sharpness).softmax(-1)  # [B, 64, h*w]
            return (chance @ self.grid).flatten(1)


class Pretrainable(Backbone):
    """A network with the layers and names of one in the library timm, so that it can load its weights."""

    repository: str  # on the Hugging Face hub
    network: nn.Module

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        if config.image_pretrained and importlib.util.find_spec("huggingface_hub") is None:
            return "policy.encoder.image_pretrained=true downloads weights with huggingface_hub: pip install 'iolaus[vision]'"
        return None

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x)
        return features

    def load_pretrained(self) -> None:
        try:
            from huggingface_hub import hf_hub_download

            weights = load_file(hf_hub_download(self.repository, "model.safetensors"))
        except Exception as error:  # the download may raise anything
            raise BadRequest(
                f"the ImageNet weights {self.repository} could not be had ({type(error).__name__}). With access to the Hugging "
                "Face hub they are downloaded once; without, train from scratch with policy.encoder.image_pretrained=false"
            ) from error
        self.load_weights({name: weight for name, weight in weights.items() if not name.startswith(("fc.", "head."))})

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)


class ResNet18(Pretrainable):
    features, repository = 512, "timm/resnet18.a1_in1k"

    def __init__(self, config: Config, size: Size):
        super().__init__()
        self.network = ResNet(config.image_pretrained, config.image_pool != "none")
        if config.image_pool == "none":
            self.cells = (-(-size[0] // 32), -(-size[1] // 32))


class ViTB16(Pretrainable):
    """The class token of a vision transformer, or the tokens of its patches. It was trained at 224 pixels; other multiples of 16
    interpolate its positions."""

    features, repository = 768, "timm/vit_base_patch16_224.dino"

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        if any(side % PATCH for side in size):
            return (
                f"policy.encoder.image=vit_b16 cuts images into patches of {PATCH} pixels, and {size[0]}x{size[1]} is no "
                "multiple of that: add policy.encoder.image_size=224 (what it was trained at), or 96"
            )
        return super().accepts(config, size)

    def __init__(self, config: Config, size: Size):
        super().__init__()
        network = VisionTransformer(size, config.image_pool != "none")
        self.network, self.cells = network, network.grid if config.image_pool == "none" else None

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        weights["pos_embed"] = resized(weights["pos_embed"], self.network.grid)  # type: ignore[arg-type]
        super().load_weights(weights)


BACKBONES: dict[str, type[Backbone]] = {"cnn": CNN, "resnet18": ResNet18, "vit_b16": ViTB16}
