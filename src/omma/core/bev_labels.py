"""Bird's-eye-view labels as bits, unpacked where they are used. Users: diffbev."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_label(label: Tensor, num_classes: int, ignore_bit: int = 14) -> tuple[Tensor, Tensor]:
    """One map a class, and which cells count.

    Args:
        label: bit c is set where class c is, int16 or wider, (B, Z, X).
        num_classes: K; classes are bits 0 ... K - 1.
        ignore_bit: set where a cell does not count.

    Returns:
        Target, bool (B, K, Z, X), and visible, bool (B, 1, Z, X).
    """
    bits = (1 << torch.arange(num_classes, dtype=label.dtype, device=label.device)).view(-1, 1, 1)
    planes = label[:, None]
    return (planes & bits) != 0, (planes & (1 << ignore_bit)) == 0
