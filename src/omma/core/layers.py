"""Convolution blocks shared by several networks. Users: lss, diffbev, sdpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    """3 x 3 convolution without bias, batch normalisation, ReLU; size kept."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def upsample(scale_factor: int) -> nn.Upsample:
    """Bilinear enlargement with aligned corners: first and last samples stay where they are."""
    return nn.Upsample(scale_factor=scale_factor, mode="bilinear", align_corners=True)


class UpConcat(nn.Module):
    """Enlarge a coarse map, put it behind a finer one and mix both with two 3 x 3 convolutions.

    Args:
        in_channels: channels of both maps together.
        out_channels: channels of the result.
        scale_factor: size of the finer map over that of the coarse one.
    """

    def __init__(self, in_channels: int, out_channels: int, scale_factor: int = 2) -> None:
        super().__init__()
        self.up = upsample(scale_factor)
        self.conv = nn.Sequential(
            *conv_bn_relu(in_channels, out_channels), *conv_bn_relu(out_channels, out_channels)
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, out, H, W) from `coarse` (B, c, H / scale, W / scale) and `skip` (B, s, H, W)."""
        return self.conv(torch.cat([skip, self.up(coarse)], dim=1))


class ResidualBlock(nn.Module):
    """Basic block of ResNet-18 (He et al., arXiv 1512.03385), the sum before the last ReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: of the first convolution; another size or width gets a 1 x 1 shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H / stride, W / stride) from (B, in, H, W)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))
