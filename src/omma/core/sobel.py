"""Absolute Sobel gradients, summed, with the derivative written out.

Users: omma.core.depth_losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sobel_sums(values: Tensor) -> Tensor:
    """Sum of the absolute gradients along both axes of each map, 3 x 3 operator, unscaled, without padding.

    Args:
        values: (B, C, H, W), sides of at least 3.

    Returns:
        (B,)
    """
    return _SobelSums.apply(values)


class _SobelSums(torch.autograd.Function):
    """The derivative is found on the way, in place; recorded step by step it takes longer."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        slope = torch.zeros_like(values) if wanted else None
        sums = []
        for along, across in ((3, 2), (2, 3)):
            length, breadth = values.shape[along] - 2, values.shape[across] - 2
            steps = values.narrow(along, 2, length) - values.narrow(along, 0, length)
            gradient = steps.narrow(across, 0, breadth) + steps.narrow(across, 2, breadth)
            gradient.add_(steps.narrow(across, 1, breadth), alpha=2)
            sums.append(gradient.abs().sum((1, 2, 3)))
            if slope is not None:
                sign, spread = gradient.sign_(), steps.zero_()
                for offset, weight in enumerate((1, 2, 1)):
                    spread.narrow(across, offset, breadth).add_(sign, alpha=weight)
                slope.narrow(along, 2, length).add_(spread)
                slope.narrow(along, 0, length).sub_(spread)
        if slope is not None:
            ctx.save_for_backward(slope)
        return sums[0] + sums[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad.view(-1, 1, 1, 1) * slope
