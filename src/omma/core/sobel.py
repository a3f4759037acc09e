"""Absolute Sobel gradients at several scales, summed, with the derivative written out.

Users: omma.core.depth_losses, omma.core.relative_loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SIDE = 3  # of the operator


def sobel_sums(values: Tensor, *, scales: int = 1) -> Tensor:
    """Sum of the absolute gradients along both axes of each map, 3 x 3 operator, unscaled, without padding.

    Args:
        values: (B, C, H, W).
        scales: 1, 2, 4 ...: sums of every pixel, of every second, of every fourth; those with less than 3
            pixels along a side are left out.

    Returns:
        (B,)
    """
    return _SobelSums.apply(values, scales)


class _SobelSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scales: int) -> Tensor:
        slope = sobel_slope(values, scales)
        ctx.save_for_backward(slope)
        return (slope * values).sum((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad.view(-1, 1, 1, 1) * slope, None


def sobel_slope(values: Tensor, scales: int) -> Tensor:
    """The derivative of `sobel_sums`, which itself is the product of it and `values`, summed.

    It is so because k times the values have k times the gradients.

    Args:
        values: (B, C, H, W).
        scales: as for `sobel_sums`.

    Returns:
        whole numbers, same shape and type.
    """
    size = values.shape[-2:]
    used = used_scales(size, scales)
    slope = _slope(values) if used else torch.zeros_like(values)
    for scale in range(1, used):
        part = _slope(subsample(values, 2**scale))
        rows, columns = _places(size, 2**scale, values.device)
        if isinstance(rows, slice):
            slope[..., rows, columns].add_(part)
        else:
            slope[..., rows, columns] += part
    return slope


def used_scales(size: torch.Size, scales: int) -> int:
    """How many of the scales have a pixel under the whole operator."""
    return sum(min(size) >> scale >= _SIDE for scale in range(scales))


def _slope(values: Tensor) -> Tensor:
    """The derivative of the sum at one scale.

    The operators share sums of 2 x 2 pixels: of four such sums that are neighbours, the two diagonals differ
    by `falling` and `rising`, whose sum is the gradient along x and whose difference is that along y. The way
    back is the same over signs with zeros around them, mirrored; whole numbers of up to 16, one byte each.
    """
    quads = _quads(values)
    falling = quads[..., 1:, 1:] - quads[..., :-1, :-1]
    rising = quads[..., :-1, 1:] - quads[..., 1:, :-1]
    sign_x, sign_y = _framed(falling + rising), _framed(falling.sub_(rising))
    along_falling, along_rising = sign_x + sign_y, sign_x.sub_(sign_y)
    back = along_falling[..., :-1, :-1] - along_falling[..., 1:, 1:]
    back.add_(along_rising[..., 1:, :-1]).sub_(along_rising[..., :-1, 1:])
    return _quads(back).to(values.dtype)


def _framed(gradient: Tensor) -> Tensor:
    """The gradient's signs, int8, with two zeros on each side; `gradient` itself is used up."""
    around = (*gradient.shape[:2], *(side + 4 for side in gradient.shape[2:]))
    signs = gradient.new_zeros(around, dtype=torch.int8)
    signs[..., 2:-2, 2:-2] = gradient.sign_()
    return signs


def _quads(values: Tensor) -> Tensor:
    """Sums of 2 x 2 neighbours."""
    pairs = values[..., 1:] + values[..., :-1]
    return pairs[..., 1:, :] + pairs[..., :-1, :]


def subsample(values: Tensor, factor: int) -> Tensor:
    """Every `factor`-th pixel, as nearest-neighbour resizing to floor(size / factor) has it.

    Args:
        values: (B, C, H, W).
        factor: at least 1.
    """
    rows, columns = _places(values.shape[-2:], factor, values.device)
    return values[..., rows, columns]


def _places(size: torch.Size, factor: int, device: torch.device) -> tuple[Any, Any]:
    """Of rows and columns: slices where the factor divides both, which make views; else numbers."""
    if size[0] % factor == 0 and size[1] % factor == 0:
        return slice(None, None, factor), slice(None, None, factor)
    rows, columns = (
        torch.arange(side // factor, device=device) * side // max(side // factor, 1) for side in size
    )
    return rows[:, None], columns
