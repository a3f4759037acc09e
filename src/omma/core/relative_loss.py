"""Sums of absolute errors of depth maps, each with its derivative written out: no graph of small steps.

All take (B, 1, H, W), float32 or float64, and a bool mask of the same shape; what lies outside the mask may
be anything, not-a-number included. Sums are of each image, (B,). Users: omma.core.depth_losses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from omma.core.sobel import sobel_slope

EPS = 1e-6
_PIXELS = (1, 2, 3)


def absolute_sums(pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
    """Sum of |pred - gt| over the mask."""
    return _AbsoluteSums.apply(pred, gt, mask)


def relative_sums(pred: Tensor, gt: Tensor, mask: Tensor, *, scales: int) -> tuple[Tensor, Tensor]:
    """Sums of the absolute residual of both maps standardised, and of its Sobel gradients.

    Gradients of `pred` alone, through its mean and its deviation too.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
        scales: as for `omma.core.sobel.sobel_sums`.
    """
    return _RelativeSums.apply(pred, gt, mask, scales)


class _AbsoluteSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        error = zero_outside(pred - gt, mask)
        sums = error.abs().sum(_PIXELS)
        ctx.save_for_backward(error.sign_())
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (sign,) = ctx.saved_tensors
        part = _per_image(grad) * sign
        return part, -part if ctx.needs_input_grad[1] else None, None


class _Centred(NamedTuple):
    """A map less its mean, 0 outside the mask, and its mean absolute deviation (B, 1, 1, 1)."""

    values: Tensor
    deviation: Tensor


class _RelativeSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, gt: Tensor, mask: Tensor, scales: int) -> tuple[Tensor, Tensor]:
        known = mask.view(torch.int8).to(pred.dtype)
        count = _total(known).clamp_(min=1)
        ours, truth = (_centred(zero_outside(depth, mask), known, count) for depth in (pred, gt))
        residual = (ours.values / ours.deviation).sub_(truth.values.div_(truth.deviation))
        slope = sobel_slope(residual, scales)
        gradients = (slope * residual).sum(_PIXELS)
        absolute = residual.abs().sum(_PIXELS)
        ctx.save_for_backward(residual.sign_(), slope.mul_(known), known, count, *ours)
        return absolute, gradients

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_absolute: Tensor, grad_gradients: Tensor) -> tuple[Tensor, None, None, None]:
        sign, slope, known, count, centred, deviation = ctx.saved_tensors
        grad = (_per_image(grad_absolute) * sign).addcmul_(slope, _per_image(grad_gradients))
        # What the mean and the deviation of `pred`, which all pixels share, take off each pixel's own part:
        # d mean / d pixel = 1 / count, d deviation / d pixel = (side - mean side) / count.
        side = centred.sign()
        through_deviation = _total(grad * centred) / deviation / count
        through_mean = (_total(grad) - through_deviation * _total(side)) / count
        grad.addcmul_(side, -through_deviation).addcmul_(known, -through_mean)
        return grad.div_(deviation), None, None, None


def _centred(depth: Tensor, known: Tensor, count: Tensor) -> _Centred:
    """Of a map that is 0 outside; `known` is 1 inside and 0 outside."""
    values = torch.addcmul(depth, known, _total(depth) / count, value=-1)
    return _Centred(values, _total(values.abs()) / count + EPS)


def zero_outside(depth: Tensor, mask: Tensor) -> Tensor:
    """torch.where(mask, depth, 0) by bits: on a CPU in a fifth of the time or less, as nothing branches."""
    whole = torch.int64 if depth.dtype == torch.float64 else torch.int32
    keep = mask.view(torch.int8).to(whole).neg_()  # all bits or none
    return keep.bitwise_and_(depth.view(whole)).view(depth.dtype)


def _total(values: Tensor) -> Tensor:
    return values.sum(_PIXELS, keepdim=True)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
