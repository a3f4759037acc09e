"""What every network here reads: an image, a depth map of any density and its mask, at any image size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pad = Literal["replicate", "reflect", "zero"]
HeadActivation = Literal["none", "relu", "softplus", "sigmoid"]
DEPTH_CHANNELS = 2  # depth and mask, behind those of the image

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
}


def join_inputs(rgb: Tensor, raw: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """One tensor (B, 5, H, W) of image, depth and mask.

    Args:
        rgb: image in [0, 1], (B, 3, H, W); without `raw`, all five channels.
        raw: depth, 0 where unknown, (B, 1, H, W).
        mask: 1 where depth is known, same shape; None: where `raw` is not 0.
    """
    if raw is None:
        return rgb
    mask = (raw != 0) if mask is None else mask
    return torch.cat([rgb, raw.to(rgb.dtype), mask.to(rgb.dtype)], dim=1)


def pad_inputs(inputs: Tensor, multiple: int, pad: Pad) -> Tensor:
    """Continue the image below and to the right up to sides that are multiples; depth there is unknown.

    Args:
        inputs: (B, C + 2, H, W), depth and mask last.
        multiple: of both sides.
        pad: how the image goes on: its last pixels, its mirror image or black.

    Returns:
        the same tensor where nothing is to be added.
    """
    if torch.compiler.is_exporting():
        return _pad_any(inputs, multiple, pad)
    height, width = inputs.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return inputs
    image, depth = inputs[:, :-DEPTH_CHANNELS], inputs[:, -DEPTH_CHANNELS:]
    sides = (0, right, 0, below)
    mode = "constant" if pad == "zero" else pad
    if pad == "reflect" and (below >= height or right >= width):
        mode = "replicate"  # a mirror shows no more than the image itself
    return torch.cat([F.pad(image, sides, mode=mode), F.pad(depth, sides)], dim=1)


def _pad_any(inputs: Tensor, multiple: int, pad: Pad) -> Tensor:
    """As `pad_inputs`, without a branch on the size, so that an exported file takes images of any."""
    sizes = inputs.shape[-2:]
    wholes = [(size + multiple - 1) // multiple * multiple for size in sizes]
    places = [torch.arange(whole, device=inputs.device) for whole in wholes]
    rows, columns = (at.clamp(max=size - 1) for at, size in zip(places, sizes, strict=True))
    if pad == "reflect":
        mirrored = [torch.minimum(at, 2 * size - 2 - at) for at, size in zip(places, sizes, strict=True)]
        possible = (mirrored[0][-1] >= 0) & (mirrored[1][-1] >= 0)  # as above
        rows, columns = (
            torch.where(possible, own.clamp(min=0), last)
            for own, last in zip(mirrored, (rows, columns), strict=True)
        )
    padded = inputs.index_select(2, rows).index_select(3, columns)
    inside = ((places[0] < sizes[0])[:, None] & (places[1] < sizes[1])).to(inputs.dtype)
    image, depth = padded[:, :-DEPTH_CHANNELS], padded[:, -DEPTH_CHANNELS:] * inside
    return torch.cat([image * inside if pad == "zero" else image, depth], dim=1)


def head_activation(name: HeadActivation) -> nn.Module:
    """What follows the last convolution."""
    return _ACTIVATIONS[name]()
