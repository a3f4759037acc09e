"""Top-down network over bird's-eye-view features, as in PON (Roddick and Cipolla, arXiv 2003.13402).

Two layers of residual bottlenecks with group normalisation, the second on twice the cells; then one logit a
class. Module names are those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

GROUPS = 16
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut (arXiv 1512.03385), each with group normalisation.

    Args:
        in_channels: channels in.
        planes: channels of the middle convolution; four times as many come out.
        upsample: double height and width by transposed convolutions.
    """

    def __init__(self, in_channels: int, planes: int, *, upsample: bool = False) -> None:
        super().__init__()
        out_channels = EXPANSION * planes
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.GroupNorm(GROUPS, planes)
        self.conv2: nn.Module = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        if upsample:
            self.conv2 = nn.ConvTranspose2d(planes, planes, 4, stride=2, padding=1, bias=False)
        self.bn2 = nn.GroupNorm(GROUPS, planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.GroupNorm(GROUPS, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if upsample:
            self.downsample.append(nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False))
        elif in_channels != out_channels:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        if len(self.downsample):
            self.downsample.append(nn.GroupNorm(GROUPS, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 planes, Z, X), or twice as many cells with `upsample`, of (B, in, Z, X)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class TopDownHead(nn.Module):
    """Logits of every class on twice the cells of the features.

    Args:
        in_channels: of the features.
        priors: share of each class among the cells: the probabilities that a new head gives.
        planes: a quarter of each layer's channels.
        blocks: bottlenecks of each layer.
    """

    def __init__(
        self,
        in_channels: int,
        priors: Sequence[float],
        *,
        planes: tuple[int, int] = (128, 64),
        blocks: tuple[int, int] = (4, 4),
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, len(priors)
        self.topdown = nn.Sequential(
            _layer(in_channels, planes[0], blocks[0], upsample=False),
            _layer(EXPANSION * planes[0], planes[1], blocks[1], upsample=True),
        )
        self.classifier = nn.Conv2d(EXPANSION * planes[1], len(priors), 1)
        nn.init.zeros_(self.classifier.weight)
        self.classifier.bias.data.copy_(torch.tensor(priors).logit())

    def forward(self, bev: Tensor) -> Tensor:
        """Logits (B, K, 2Z, 2X) of features (B, in, Z, X)."""
        return self.classifier(self.topdown(bev))

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The bottlenecks, in the order they run."""
        return [block for layer in self.topdown for block in layer]


def _layer(in_channels: int, planes: int, blocks: int, *, upsample: bool) -> nn.Sequential:
    rest = [Bottleneck(EXPANSION * planes, planes) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(in_channels, planes, upsample=upsample), *rest)
