"""ResNet-18 (He et al. 2016) without its classifier, in the names of timm.

A row's features must not depend on the other rows of a batch, so nothing is normalised by batch: with ImageNet weights the batch
norms keep their statistics; without, they are group norms with as many parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies.recompute import Recomputable

MOST_CELLS = 16  # of a map of which a product of matrices is faster than a convolution


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics; scale and shift are learned."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))  # in the weights; nothing reads it

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def norm(channels: int, frozen: bool) -> nn.Module:
    return FrozenBatchNorm(channels) if frozen else nn.GroupNorm(channels // 16, channels)


class Convolution(nn.Conv2d):
    """With `product`, a product of matrices where a CPU computes that faster: for single pixels, and for maps of a few cells."""

    product = False

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-side // self.stride[0]) for side in x.shape[-2:])  # as the padding is half of the kernel
        small = self.kernel_size == (1, 1) or height * width <= MOST_CELLS
        if not (self.product and small and x.device.type == "cpu"):
            return super().forward(x)
        padding = self.kernel_size[0] // 2
        windows = F.unfold(x, self.kernel_size, padding=padding, stride=self.stride)  # [B, channels * kernel, cells]
        rows = windows.transpose(1, 2).flatten(0, 1) @ self.weight.flatten(1).t()  # [B * cells, out]
        return rows.view(len(x), height, width, -1).permute(0, 3, 1, 2)


class BasicBlock(Recomputable):
    def __init__(self, channels: int, out: int, stride: int, frozen: bool):
        super().__init__()
        self.conv1 = Convolution(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = norm(out, frozen)
        self.conv2 = Convolution(out, out, 3, padding=1, bias=False)
        self.bn2 = norm(out, frozen)
        same = stride == 1 and channels == out
        shortcut = nn.Sequential(Convolution(channels, out, 1, stride, bias=False), norm(out, frozen))
        self.downsample = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, frozen: bool, pooled: bool):
        super().__init__()
        self.pooled = pooled
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64, frozen)
        self.layer1 = self.stage(64, 64, 1, frozen)
        self.layer2 = self.stage(64, 128, 2, frozen)
        self.layer3 = self.stage(128, 256, 2, frozen)
        self.layer4 = self.stage(256, 512, 2, frozen)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Convolution):
                module.product = not pooled  # with a pool, roundings stay as they were, and so do results

    @staticmethod
    def stage(channels: int, out: int, stride: int, frozen: bool) -> nn.Sequential:
        return nn.Sequential(BasicBlock(channels, out, stride, frozen), BasicBlock(out, out, 1, frozen))

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, h, w]
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        if not self.pooled and x.device.type == "cpu":  # where the first layer is faster channels-last, and the others are not
            x = x.contiguous()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, 512, h/32, w/32], rounded up
        return x.mean((2, 3)) if self.pooled else x.flatten(2).transpose(1, 2)  # [B, 512] or [B, cells, 512]
