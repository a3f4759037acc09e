"""Cross-view transformer of PYVA (Yang et al., "Projecting Your View Attentively", CVPR 2021).

A perceptron over positions carries the image features to the ground plane and another one back; where the
way back agrees with the image features, these are fetched and added. Module names are those of the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.systems.diffbev.views import ViewOutput

MIDDLE, REDUCED = 512, 128
POOLED = 4  # two poolings by 2 before the perceptrons
QUERY_REDUCTION = 8


class ReflectConv(nn.Module):
    """3 x 3 convolution over a map continued by reflection.

    Args:
        in_channels: channels in.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H, W) of (B, in, H, W)."""
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


class PositionPerceptron(nn.Module):
    """Two linear layers over the positions of a map, the same for all channels.

    Args:
        positions: cells of the map.
    """

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.fc_transform = nn.Sequential(
            nn.Linear(positions, positions), nn.ReLU(), nn.Linear(positions, positions), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the same."""
        return self.fc_transform(x.flatten(2)).view_as(x)


class CrossView(nn.Module):
    """Every ground position fetches the image position that answers it best.

    Args:
        channels: of all maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // QUERY_REDUCTION, 1)
        self.key_conv = nn.Conv2d(channels, channels // QUERY_REDUCTION, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.f_conv = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, image: Tensor, ground: Tensor, back: Tensor) -> Tensor:
        """Ground features with what was fetched.

        Args:
            image: (B, C, h, w).
            ground: image features carried to the ground, (B, C, h, w).
            back: ground features carried back to the image, (B, C, h, w).

        Returns:
            (B, C, h, w).
        """
        query = self.query_conv(ground).flatten(2)
        key = self.key_conv(image).flatten(2)
        energy, best = (key.transpose(1, 2) @ query).max(dim=1)
        value = self.value_conv(back).flatten(2)
        fetched = value.gather(2, best[:, None].expand_as(value)).view_as(ground)
        joined = self.f_conv(torch.cat([ground, fetched], dim=1))
        return ground + joined * energy.view(len(ground), 1, *ground.shape[2:])


class PyvaView(nn.Module):
    """Image features to the ground plane by perceptrons over positions, with a cycle.

    Args:
        in_channels: of the image features.
        channels: of the result.
        bev_size: (Z, X) cells.
        size: side that the image features are resampled to, a multiple of 4.
    """

    def __init__(self, in_channels: int, channels: int, *, bev_size: tuple[int, int], size: int = 32) -> None:
        super().__init__()
        self.bev_size, self.size, self.out_channels = bev_size, size, channels
        positions = (size // POOLED) ** 2
        self.conv1 = ReflectConv(in_channels, MIDDLE)
        self.conv2 = ReflectConv(MIDDLE, REDUCED)
        self.pool = nn.MaxPool2d(2)
        self.transform_feature = PositionPerceptron(positions)
        self.retransform_feature = PositionPerceptron(positions)
        self.crossview = CrossView(REDUCED)
        self.conv3 = _conv_bn_relu(REDUCED, REDUCED)
        self.conv4 = _conv_bn_relu(REDUCED, channels)
        self.conv5 = ReflectConv(channels, channels)

    def forward(self, features: list[Tensor], intrinsics: Tensor) -> ViewOutput:
        """Features (B, C, Z, X) of the last map (B, in, h, w) and the cycle; the intrinsics are not used."""
        image, ground, back = self.carry(features[-1])
        x = self.crossview(image, ground, back)
        x = self.conv3(F.interpolate(x, scale_factor=2))
        x = self.conv4(F.interpolate(x, scale_factor=2))
        x = F.interpolate(x, self.bev_size, mode="bilinear", align_corners=True)
        return ViewOutput(self.conv5(x), cycle=F.l1_loss(back.float(), ground.float()))

    def carry(self, image_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reduced image features, the same on the ground, and back in the image, each (B, 128, s/4, s/4)."""
        side = (self.size, self.size)
        x = F.interpolate(image_map, side, mode="bilinear", align_corners=True)
        image = self.pool(self.conv2(self.pool(self.conv1(x))))
        ground = self.transform_feature(image)
        return image, ground, self.retransform_feature(ground)


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
