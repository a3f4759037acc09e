"""UNet of residual bottlenecks (Wang et al., "G2-MonoDepth", T-PAMI 2024, arXiv 2310.15422).

Origin of the published weights: Wang-xjtu/G2-MonoDepth. Nothing is normalised in the published form, which
keeps the scale of the depth; a learnable factor that begins at 0 makes each block trainable (ReZero, arXiv
2003.04887). Shapes: B batch, (H, W) pixels; level l has (H, W) / 2^l.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.g2_monodepth.channels_last import HalvingConv, join
from omma.systems.g2_monodepth.inputs import HeadActivation, Pad, head_activation, join_inputs, pad_inputs

SLOPE = 0.2  # of the leaky ReLU
REDUCTION = 4
BLOCKS = 3  # in a row
MAX_WIDTH = 8  # of a level over that of the first
BlockName = Literal["rezero", "batch_norm"]


class ReZeroBottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions behind activations, weighted by alpha, and a shortcut.

    The shortcut starts behind the first activation, as in the published network, where that is done in place:
    with alpha 0 a block is a leaky ReLU, not the identity.

    Args:
        in_channels: channels in.
        out_channels: channels out; if others, the shortcut is a 1 x 1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        middle = in_channels // REDUCTION
        self.alpha = nn.Parameter(torch.zeros(()))
        self.reduce = nn.Conv2d(in_channels, middle, 1)
        self.spatial = nn.Conv2d(middle, middle, 3, padding=1)
        self.expand = nn.Conv2d(middle, out_channels, 1)
        self.shortcut = _shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H, W) of (B, in, H, W)."""
        active = F.leaky_relu(x, SLOPE)
        residual = F.leaky_relu(self.reduce(active), SLOPE, inplace=True)
        residual = F.leaky_relu(self.spatial(residual), SLOPE, inplace=True)
        # alpha times weights, not times the result: the same product with a map less to write and to keep
        expand = self.expand
        residual = F.conv2d(residual, self.alpha * expand.weight, self.alpha * expand.bias)
        return residual.add_(self.shortcut(active))


class BatchNormBottleneck(nn.Module):
    """Three convolutions, each behind batch normalisation and activation, and a shortcut of the input itself.

    Args:
        in_channels: channels in.
        out_channels: channels out; if others, the shortcut is a 1 x 1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        middle = in_channels // REDUCTION
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(in_channels, middle, 1)
        self.norm2 = nn.BatchNorm2d(middle)
        self.spatial = nn.Conv2d(middle, middle, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(middle)
        self.expand = nn.Conv2d(middle, out_channels, 1)
        self.shortcut = _shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H, W) of (B, in, H, W)."""
        residual = self.reduce(F.leaky_relu(self.norm1(x), SLOPE, inplace=True))
        residual = self.spatial(F.leaky_relu(self.norm2(residual), SLOPE, inplace=True))
        return self.expand(F.leaky_relu(self.norm3(residual), SLOPE, inplace=True)) + self.shortcut(x)


BLOCK_TYPES: dict[str, type[nn.Module]] = {"rezero": ReZeroBottleneck, "batch_norm": BatchNormBottleneck}


def _shortcut(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)


def stack(in_channels: int, out_channels: int, block: BlockName) -> nn.Sequential:
    """Bottlenecks in a row, the first of which changes the number of channels."""
    block_type = BLOCK_TYPES[block]
    rest = [block_type(out_channels, out_channels) for _ in range(BLOCKS - 1)]
    return nn.Sequential(block_type(in_channels, out_channels), *rest)


class Level(nn.Module):
    """Everything below one skip connection: half the size, blocks, the levels further down, twice the size.

    Args:
        in_channels: of the features that come in, which are put before the result.
        widths: channels of this level and those below it.
        block: "rezero" or "batch_norm".
    """

    def __init__(self, in_channels: int, widths: Sequence[int], block: BlockName) -> None:
        super().__init__()
        width, *deeper = widths
        self.down = HalvingConv(in_channels, width)
        self.before = stack(width, width, block)
        self.inner = Level(width, deeper, block) if deeper else None
        if self.inner is not None:
            self.after = stack(self.inner.out_channels, in_channels, block)
        self.out_channels = in_channels + (in_channels if deeper else width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out_channels, H, W) of (B, in_channels, H, W)."""
        y = self.before(self.down(x))
        if self.inner is not None:
            y = self.after(self.inner(y))
        return join(x, y)


class UNet(nn.Module):
    """Depth from an image and a depth map of any density.

    Args:
        in_channels: of the image, the depth and the mask.
        out_channels: of the result.
        layers: levels; the last has the stride 2^(layers - 1), 64 in the published network.
        features: channels of the first level; others have up to eight times as many.
        block: "rezero" as published, or "batch_norm".
        pad: how images go on whose sides are no multiples of the stride.
        activation: what follows the last convolution; none as published: depths may be negative.
    """

    def __init__(
        self,
        in_channels: int = 5,
        out_channels: int = 1,
        *,
        layers: int = 7,
        features: int = 64,
        block: BlockName = "rezero",
        pad: Pad = "replicate",
        activation: HeadActivation = "none",
    ) -> None:
        super().__init__()
        width, *deeper = level_widths(layers, features)
        self.stride, self.pad = 2 ** (layers - 1), pad
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.before = stack(width, width, block)
        self.inner = Level(width, deeper, block)
        self.after = stack(self.inner.out_channels, width, block)
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)
        self.activation = head_activation(activation)
        self.apply(_initialize)

    def forward(self, rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Depth (B, 1, H, W) over the maximal depth.

        Args:
            rgb: image in [0, 1], (B, 3, H, W); or image, depth and mask as one tensor (B, 5, H, W).
            raw: depth over the maximal depth, 0 where unknown, (B, 1, H, W).
            mask: 1 where depth is known, same shape; None: where `raw` is not 0.
        """
        inputs = join_inputs(rgb, raw, mask)
        height, width = inputs.shape[-2:]
        x = self.before(self.stem(pad_inputs(inputs, self.stride, self.pad)))
        depth = self.head(self.after(self.inner(x)))
        return self.activation(depth[..., :height, :width])

    def levels(self) -> list[nn.Module]:
        """This network, which is level 0, and the levels below it, with their blocks `before` and `after`."""
        levels: list[nn.Module] = [self]
        while levels[-1].inner is not None:
            levels.append(levels[-1].inner)
        return levels

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass, in the order they run."""
        down = [block for level in self.levels() for block in level.before]
        up = [block for level in self.levels()[-2::-1] for block in level.after]
        return [*down, *up]

    def alphas(self) -> list[float]:
        """The factor of each block, in the order of `checkpoint_blocks`; empty with batch normalisation.

        A block whose factor is still 0 is dead: it gives its input back, through the activation.
        """
        blocks = self.checkpoint_blocks()
        return [float(block.alpha.detach()) for block in blocks if isinstance(block, ReZeroBottleneck)]


def level_widths(layers: int, features: int) -> list[int]:
    """Channels of each level: doubled up to eight times, the last two equal.

    Raises:
        ConfigError: there are less than three levels, or less channels than a bottleneck needs.
    """
    if layers < 3 or features < REDUCTION:
        raise ConfigError(
            f"a network of {layers} layers and {features} features cannot be built",
            hint=f"it needs at least 3 layers and {REDUCTION} features; the published one has 7 and 64",
        )
    widths = [features * min(2**level, MAX_WIDTH) for level in range(layers - 1)]
    return [*widths, widths[-1]]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels * math.prod(module.kernel_size)
        nn.init.normal_(module.weight, std=math.sqrt(2 / (1 + SLOPE**2) / fan_in))
        nn.init.zeros_(module.bias)
