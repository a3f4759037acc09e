"""Losses over keypoints' heatmaps. Users: sdpose."""

from __future__ import annotations

from torch import Tensor

from omma.core.losses import at_least_float32


def joints_mse(heatmaps: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of w (P - T)^2 over all images, joints and cells, those of joints without weight included.

    Args:
        heatmaps: P, (B, K, h, w).
        target: T, same shape; another network's or cycle's heatmaps are detached by the caller.
        weight: w of each joint, (B, K, 1) or (B, K); None: 1.

    Returns:
        Scalar, float32 at least.
    """
    square = (at_least_float32(heatmaps) - at_least_float32(target)).square().mean((2, 3))
    return (square if weight is None else square * weight.view_as(square)).mean()
