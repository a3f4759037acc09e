"""The convolutional stem of TokenPose (arXiv 2104.03516): an image to features of a quarter of its size."""

from __future__ import annotations

from torch import Tensor, nn

EXPANSION = 4
BLOCKS = 4
INIT_STD = 0.001


class Bottleneck(nn.Module):
    """Bottleneck of ResNet-50: 1 x 1, 3 x 3, 1 x 1 convolutions around a shortcut, size kept.

    Args:
        in_channels: channels in.
        width: channels of the 3 x 3 convolution; four times as many come out.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if in_channels != out_channels:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 width, H, W) from (B, in, H, W)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class StemNet(nn.Module):
    """Two strided convolutions and four bottlenecks.

    Args:
        width: of the bottlenecks; features have four times as many channels.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels = EXPANSION * width
        self.conv1 = nn.Conv2d(3, 64, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(
            *(Bottleneck(self.channels if block else 64, width) for block in range(BLOCKS))
        )
        self.apply(init_convolution)

    def forward(self, img: Tensor) -> Tensor:
        """Features (B, channels, H / 4, W / 4) of images (B, 3, H, W)."""
        x = self.relu(self.bn1(self.conv1(img)))
        return self.layer1(self.relu(self.bn2(self.conv2(x))))

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Its bottlenecks."""
        return list(self.layer1)


def init_convolution(module: nn.Module) -> None:
    """First weights of a convolution, as published: far smaller than usual, batch norms make up for it."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=INIT_STD)
