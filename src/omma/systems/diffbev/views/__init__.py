"""Image features to bird's-eye-view features, one file for each way to do it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ViewOutput(NamedTuple):
    """What a view transformer returns.

    Args:
        bev: features (B, C, Z, X), row 0 nearest, column 0 leftmost.
        depth_logits: (B, D, h, w), float32; None without a depth distribution.
        depth_bev: pooled depth probability, (B, 1, Z, X); None unless asked for.
        cycle: mean difference of features after the way there and back, a scalar; None without a way back.
    """

    bev: Tensor
    depth_logits: Tensor | None = None
    depth_bev: Tensor | None = None
    cycle: Tensor | None = None
