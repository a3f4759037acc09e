"""Scale-preserving networks: SPNet (Wang-xjtu/SPNet, "V2Net") and PacGDC (Wang-xjtu/PacGDC).

Successors of the UNet with the same inputs and outputs. ConvNeXt blocks (arXiv 2201.03545) have SP-Norm,
which multiplies the features by a projection of their normalised form and so keeps their scale. PacGDC has
the same blocks between other convolutions from one level to the next. Level i has (H, W) / 2^i pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.systems.g2_monodepth.inputs import HeadActivation, Pad, head_activation, join_inputs, pad_inputs

Variant = Literal["spnet", "pacgdc"]
SIZES: dict[
    str, tuple[int, tuple[int, int, int, int]]
] = {  # width of the third level; blocks of the last four
    "tiny": (96, (3, 3, 9, 3)),
    "small": (96, (3, 3, 27, 3)),
    "base": (128, (3, 3, 27, 3)),
    "large": (192, (3, 3, 27, 3)),
}
DROP_PATH: dict[str, tuple[float, float, float, float]] = {  # of these sizes
    "spnet": (0.0, 0.1, 0.1, 0.2),
    "pacgdc": (0.1, 0.2, 0.3, 0.5),
}
STRIDE = 32
EPS = 1e-6


class SPNorm(nn.Module):
    """Features times a projection of them normalised over the channels of each pixel.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape (B, C, H, W)."""
        deviation, mean = torch.std_mean(x, dim=1, keepdim=True)
        return self.projection((x - mean) / (deviation + EPS)) * x


class Block(nn.Module):
    """7 x 7 depthwise convolution, SP-Norm, two 1 x 1 convolutions, and the input itself.

    Args:
        channels: in and out.
        drop_path: probability in training that the whole batch passes unchanged.
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = SPNorm(channels)
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.contract = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape (B, C, H, W)."""
        y = F.relu(self.expand(self.norm(self.spatial(x))), inplace=True)
        y = self.contract(y)
        if self.training and self.drop_path > 0:
            keep = 1.0 - self.drop_path
            y = y * (torch.rand((), device=y.device) < keep).to(y.dtype) / keep
        return x + y


class SPNet(nn.Module):
    """Depth from an image and a depth map of any density.

    Args:
        dims: channels of levels 2 to 5; levels 0 and 1 have a quarter and half of the first.
        depths: blocks of levels 2 to 5.
        variant: "spnet": 2 x 2 convolutions between the levels; "pacgdc": 3 x 3, SP-Norm on the way up too.
        drop_path: of the last block; grows evenly from 0 at the first.
        pad: how images go on whose sides are no multiples of 32.
        activation: what follows the last convolution; none as published: depths may be negative.
    """

    def __init__(
        self,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (3, 3, 9, 3),
        *,
        variant: Variant = "spnet",
        drop_path: float = 0.0,
        pad: Pad = "replicate",
        activation: HeadActivation = "none",
    ) -> None:
        super().__init__()
        widths = [dims[0] // 4, dims[0] // 2, *dims]
        pairs = list(itertools.pairwise(widths))
        self.pad, self.variant = pad, variant
        self.stem = nn.Conv2d(5, widths[0], 3, padding=1)
        self.down_norms = nn.ModuleList(SPNorm(fine) for fine, _ in pairs)
        self.downs = nn.ModuleList(_down(fine, coarse, variant) for fine, coarse in pairs)
        rates = torch.linspace(0, drop_path, sum(depths)).tolist()
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, rates.pop(0)) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.up_norms = nn.ModuleList(
            SPNorm(coarse) if variant == "pacgdc" else nn.Identity() for _, coarse in pairs
        )
        self.ups = nn.ModuleList(_up(coarse, fine, variant) for fine, coarse in pairs)
        self.fusions = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in pairs)
        self.mixers = nn.ModuleList(Block(dim) for dim in dims[:-1])
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)
        self.activation = head_activation(activation)
        self.apply(_initialize_all if variant == "pacgdc" else _initialize)

    def forward(self, rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Depth (B, 1, H, W) over the maximal depth.

        Args:
            rgb: image in [0, 1], (B, 3, H, W); or image, depth and mask as one tensor (B, 5, H, W).
            raw: depth over the maximal depth, 0 where unknown, (B, 1, H, W).
            mask: 1 where depth is known, same shape; None: where `raw` is not 0.
        """
        inputs = join_inputs(rgb, raw, mask)
        height, width = inputs.shape[-2:]
        *skips, x = self.encode(pad_inputs(inputs, STRIDE, self.pad))
        for level in reversed(range(len(self.ups))):
            x = self.ups[level](self.up_norms[level](x))
            x = self.fusions[level](torch.cat([skips[level], x], dim=1))
            x = self.mixers[level - 2](x) if level >= 2 else x
        return self.activation(self.head(x)[..., :height, :width])

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Features of levels 0 to 5 of image, depth and mask, (B, 5, H, W) with sides of multiples of 32."""
        features = [self.stem(inputs)]
        for level, (norm, down) in enumerate(zip(self.down_norms, self.downs, strict=True), start=1):
            x = down(norm(features[-1]))
            features.append(self.stages[level - 2](x) if level >= 2 else x)
        return features

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass, in the order they run."""
        return [*(block for stage in self.stages for block in stage), *reversed(self.mixers)]


def _down(fine: int, coarse: int, variant: Variant) -> nn.Conv2d:
    if variant == "pacgdc":
        return nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
    return nn.Conv2d(fine, coarse, 2, stride=2)


def _up(coarse: int, fine: int, variant: Variant) -> nn.ConvTranspose2d:
    if variant == "pacgdc":
        return nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
    return nn.ConvTranspose2d(coarse, fine, 2, stride=2)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)


def _initialize_all(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)
