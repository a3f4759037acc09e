"""Depth targets from sparse depth maps, and the loss of a depth distribution. Users: diffbev."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_depth(depth_m: Tensor, size: tuple[int, int], block: int = 32) -> Tensor:
    """The nearest known depth in each block of pixels.

    Args:
        depth_m: metres, 0 where unknown, (B, 1, H, W).
        size: blocks (h, w) along height and width; what the image lacks is unknown, what is beyond is cut.
        block: pixels along a block's side.

    Returns:
        float32 (B, h, w), 0 where no pixel of a block is known.
    """
    height, width = (cells * block for cells in size)
    depth_m = F.pad(depth_m.float(), (0, width - depth_m.shape[3], 0, height - depth_m.shape[2]))
    known = torch.where(depth_m > 0, depth_m, torch.inf)
    nearest = -F.max_pool2d(-known, block)[:, 0]
    return torch.where(nearest.isinf(), 0.0, nearest)


def depth_cross_entropy(
    depth_logits: Tensor, nearest_m: Tensor, *, low: float = 1.0, step: float = 1.0
) -> Tensor:
    """Mean cross-entropy with the known depths, over ln(D): 1 for a uniform distribution.

    Args:
        depth_logits: (B, D, h, w).
        nearest_m: metres, 0 where unknown, (B, h, w); those outside the bins count for the first or last.
        low: where the first bin begins.
        step: size of a bin.

    Returns:
        Scalar, float32; 0 where no depth is known.
    """
    num_depths = depth_logits.shape[1]
    known = nearest_m > 0
    bins = ((nearest_m - low) / step).floor().long().clamp(0, num_depths - 1)
    loss = F.cross_entropy(depth_logits.float(), bins, reduction="none") * known
    return loss.sum() / (known.sum().clamp(min=1) * math.log(num_depths))
