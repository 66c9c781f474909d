"""Networks that turn normalised images [B, 3, h, w] into features [B, features]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conf.errors import BadRequest
from policies.encoders.config import Config

Size = tuple[int, int]


class Backbone(nn.Module):
    features: int

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        return None

    def load_pretrained(self) -> None:
        raise NotImplementedError("load_pretrained(): of those that have weights to be had")


class CNN(Backbone):
    """Write-up 004's four convolutions. Its average pool tells how much of a feature there is, not where: 72 % success on Push
    where the spatial softmax (Levine et al. 2016), the expected position of each feature, gets 94 %."""

    grid: Tensor

    def __init__(self, config: Config, size: Size):
        super().__init__()
        self.softmax = config.image_pool == "softmax"
        self.first = nn.Conv2d(3, 32, 8, stride=4, padding=2)
        self.second = nn.Conv2d(32, 64, 4, stride=2, padding=2)
        self.third = nn.Conv2d(64, 64, 3, padding=1)
        self.fourth = nn.Conv2d(64, 64, 3, padding=1)
        self.features = 128 if self.softmax else 64
        if self.softmax:
            self.sharpness = nn.Parameter(torch.ones(1))
            with torch.no_grad():
                height, width = self.map(torch.zeros(1, 3, *size)).shape[-2:]
            y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
            self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()], 1), persistent=False)  # [h*w, 2]

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        return (
            None if min(size) >= 8 else f"images of {size[0]}x{size[1]} pixels are too small for policy.encoder.image=cnn (8x8)"
        )

    def map(self, x: Tensor) -> Tensor:
        return self.fourth(F.relu(self.third(F.relu(self.second(F.relu(self.first(x)))))))  # [B, 64, h/8, w/8]

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x).float()
        if not self.softmax:
            return F.relu(x).mean((2, 3))
        chance = (x.flatten(2) * self.sharpness).softmax(-1)  # [B, 64, h*w]
        return (chance @ self.grid).flatten(1)


class Timm(Backbone):
    """A network of the library timm, without its classifier. Weights come before training, not when a checkpoint is loaded."""

    name: str
    network: nn.Module
    options: dict[str, Any]

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        try:
            import timm  # noqa: F401
        except ImportError:
            return f"policy.encoder.image={config.image} needs timm: pip install -e .[vision]"
        return None

    def make(self, pretrained: bool, **options: Any) -> nn.Module:
        import timm

        return timm.create_model(self.name, pretrained=pretrained, num_classes=0, **options)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x)
        return features

    def load_pretrained(self) -> None:
        try:
            source = self.make(True, **self.options)
        except Exception as error:  # of the download: whatever the library behind it raises
            raise BadRequest(
                f"the ImageNet weights of {self.name} could not be had ({type(error).__name__}); with access to the model hub "
                "they are downloaded once, or train from scratch with policy.encoder.image_pretrained=false"
            ) from error
        self.network.load_state_dict(source.state_dict())


class ResNet18(Timm):
    """From ImageNet weights its batch norms keep their statistics; from scratch it has group norms: a row's features must not
    depend on the other rows of a batch."""

    name, features = "resnet18", 512

    def __init__(self, config: Config, size: Size):
        super().__init__()
        self.frozen = config.image_pretrained
        self.options = {} if self.frozen else {"norm_layer": lambda channels: nn.GroupNorm(channels // 16, channels)}
        self.network = self.make(False, **self.options)
        self.train(self.training)

    def train(self, mode: bool = True) -> ResNet18:
        super().train(mode)
        if self.frozen:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class ViTB16(Timm):
    """The class token of a vision transformer. It was trained at 224 pixels; other multiples of 16 interpolate its positions."""

    name, features = "vit_base_patch16_224", 768

    @classmethod
    def accepts(cls, config: Config, size: Size) -> str | None:
        if any(side % 16 for side in size):
            return (
                f"policy.encoder.image=vit_b16 cuts images into patches of 16 pixels, which {size[0]}x{size[1]} is no multiple "
                "of: add policy.encoder.image_size=224 (what it was trained at), or 96"
            )
        return super().accepts(config, size)

    def __init__(self, config: Config, size: Size):
        super().__init__()
        self.options = {"img_size": size, "global_pool": "token"}
        self.network = self.make(False, **self.options)


BACKBONES: dict[str, type[Backbone]] = {"cnn": CNN, "resnet18": ResNet18, "vit_b16": ViTB16}
