"""ResNet encoder with a sparse branch: ResNetSAN01 of YoungseokOh/packnet, with one head or two.

After PackNet-SAN (Guizilini et al., arXiv 2103.16690) with the decoder of monodepth2 (arXiv 1806.01260); a
dual head gives whole steps and the rest (of a metre) apart, for integer hardware. Depth is in the unit of the
bounds: metres with the published 0.5 and 15, or parts of the maximal depth.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.systems.g2_monodepth.inputs import DEPTH_CHANNELS, Pad, join_inputs, pad_inputs
from omma.systems.g2_monodepth.sparse import SparseEncoder

Layers = Literal[18, 34, 50]
InverseSpace = Literal["linear", "log"]
Heads = dict[str, list[Tensor]]
MEAN, STD = 0.45, 0.225  # of images, all channels
WIDTHS = (16, 32, 64, 128, 256)  # of the decoder, from the image's size to a sixteenth
SCALES = 4  # with heads
STRIDE = 32


class Outputs(NamedTuple):
    """What a training step needs.

    Args:
        depth: from image and depth map, (B, 1, H, W).
        heads: sigmoids of that pass; see `ResNetSAN.heads`.
        image_depth: from the image alone, (B, 1, H, W).
        image_heads: sigmoids of that pass.
        consistency: mean square of what the depth map changed in the features, a scalar.
    """

    depth: Tensor
    heads: Heads
    image_depth: Tensor
    image_heads: Heads
    consistency: Tensor


class ResNetSAN(nn.Module):
    """Depth from an image, with or without a depth map.

    Args:
        layers: of the ResNet.
        dual_head: integer and fractional part of the depth instead of its inverse.
        sparse: with the branch that reads depth maps; without, they are not looked at.
        min_depth: smallest depth, of the single head.
        max_depth: largest depth of the single head; what an integer part of 1 stands for.
        step: what a fractional part of 1 stands for.
        space: whether the single head moves evenly in inverse depth or in its logarithm.
        pad: how images go on whose sides are no multiples of 32.
    """

    def __init__(
        self,
        layers: Layers = 18,
        *,
        dual_head: bool = False,
        sparse: bool = True,
        min_depth: float = 0.5,
        max_depth: float = 15.0,
        step: float = 1.0,
        space: InverseSpace = "linear",
        pad: Pad = "replicate",
    ) -> None:
        super().__init__()
        self.layers, self.dual_head, self.space, self.pad = layers, dual_head, space, pad
        self.min_depth, self.max_depth, self.step = min_depth, max_depth, step
        self.encoder = timm.create_model(f"resnet{layers}", features_only=True, out_indices=range(5))
        channels = self.encoder.feature_info.channels()
        self.sparse = SparseEncoder(channels) if sparse else None
        self.fusion_weight = nn.Parameter(torch.full((len(channels),), 0.5), requires_grad=sparse)
        self.fusion_bias = nn.Parameter(torch.zeros(len(channels)), requires_grad=sparse)
        self.upconvs = nn.ModuleList(_upconvs(level, channels) for level in range(len(WIDTHS)))
        names = ("integer", "fractional") if dual_head else ("inverse",)
        self.head_convs = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.Conv2d(WIDTHS[s], 1, 3, padding=1) for s in range(SCALES))
                for name in names
            }
        )

    def forward(self, rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Depth (B, 1, H, W).

        Args:
            rgb: image in [0, 1], (B, 3, H, W); or image, depth and mask as one tensor (B, 5, H, W).
            raw: depth, 0 where unknown, (B, 1, H, W); samples without any count as images alone.
            mask: 1 where depth is known, same shape; None: where `raw` is not 0.
        """
        return self.depth(self.heads(rgb, raw, mask))

    def heads(self, rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Heads:
        """Sigmoids at scales 0 to 3, (B, 1, H, W) / 2^scale; arguments as there.

        Returns:
            lists by head: "inverse", or "integer" and "fractional".
        """
        image, depth, known = self._inputs(rgb, raw, mask)
        features = self._image_features(image)
        if depth is not None:
            features = self._fuse(features, depth, known)
        return self._heads(features, rgb.shape[-2:])

    def forward_train(self, rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Outputs:
        """Both passes, with the depth map and without; arguments as there."""
        image, depth, known = self._inputs(rgb, raw, mask)
        features = self._image_features(image)
        fused = features if depth is None else self._fuse(features, depth, known)
        changes = [
            (with_depth.detach() - without).float().square().mean()
            for with_depth, without in zip(fused, features, strict=True)
        ]
        size = rgb.shape[-2:]
        heads = self._heads(fused, size)
        image_heads = heads if depth is None else self._heads(features, size)
        consistency = torch.stack(changes).mean()
        return Outputs(self.depth(heads), heads, self.depth(image_heads), image_heads, consistency)

    def depth(self, heads: Heads, scale: int = 0) -> Tensor:
        """Depth of the sigmoids of one scale, (B, 1, H, W) / 2^scale."""
        if self.dual_head:
            return heads["integer"][scale] * self.max_depth + heads["fractional"][scale] * self.step
        return 1.0 / self.inverse_depth(heads["inverse"][scale])

    def inverse_depth(self, sigmoid: Tensor) -> Tensor:
        """Inverse depth between the bounds, 1 / max_depth at 0."""
        low, high = 1.0 / self.max_depth, 1.0 / self.min_depth
        if self.space == "log":
            return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * sigmoid)
        return low + (high - low) * sigmoid

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass, in the order they run."""
        return [block for stage in range(1, 5) for block in self.encoder[f"layer{stage}"]]

    def _inputs(
        self, rgb: Tensor, raw: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Image, depth (None if there is none to be read) and where it is known, all with padding."""
        inputs = join_inputs(rgb, raw, mask)
        image_alone = inputs.shape[1] == 3
        if image_alone:
            inputs = F.pad(inputs, (0, 0, 0, 0, 0, DEPTH_CHANNELS))
        inputs = pad_inputs(inputs, STRIDE, self.pad)
        image, depth, known = inputs[:, :3], inputs[:, 3:4], inputs[:, 4:5] > 0
        return image, None if image_alone or self.sparse is None else depth, known

    def _image_features(self, image: Tensor) -> list[Tensor]:
        return self.encoder((image - MEAN) / STD)

    def _fuse(self, features: list[Tensor], depth: Tensor, known: Tensor) -> list[Tensor]:
        assert self.sparse is not None
        any_known = known.flatten(1).any(1).view(-1, 1, 1, 1)
        fused = []
        for level, (image, sparse) in enumerate(zip(features, self.sparse(depth, known), strict=True)):
            share = self.fusion_weight[level].sigmoid()
            both = share * image + (1.0 - share) * sparse + self.fusion_bias[level]
            fused.append(torch.where(any_known, both, image))
        return fused

    def _heads(self, features: list[Tensor], size: torch.Size) -> Heads:
        """Sigmoids, without the padding."""
        x, decoded = features[-1], []
        for level in reversed(range(len(self.upconvs))):
            before, after = self.upconvs[level]
            x = F.interpolate(F.relu(before(x), inplace=True), scale_factor=2.0, mode="nearest")
            x = torch.cat([x, features[level - 1]], dim=1) if level else x
            x = F.relu(after(x), inplace=True)
            decoded.insert(0, x)
        heads: Heads = {}
        for name, convs in self.head_convs.items():
            maps = [conv(x).float().sigmoid() for conv, x in zip(convs, decoded, strict=False)]
            heads[name] = [
                values[..., : -(-size[0] // 2**scale), : -(-size[1] // 2**scale)]
                for scale, values in enumerate(maps)
            ]
        return heads


def _upconvs(level: int, channels: list[int]) -> nn.ModuleList:
    """The convolutions before and after features of a level are enlarged to twice the size."""
    coarser = WIDTHS[level + 1] if level + 1 < len(WIDTHS) else channels[-1]
    skip = channels[level - 1] if level else 0
    return nn.ModuleList(
        [
            nn.Conv2d(coarser, WIDTHS[level], 3, padding=1),
            nn.Conv2d(WIDTHS[level] + skip, WIDTHS[level], 3, padding=1),
        ]
    )
