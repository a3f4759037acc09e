"""Bilinear look-up of many single points in a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ROWS = 32000  # OpenCV takes fewer than 32768 rows at a time


def look_up(texture: NDArray, cells: NDArray[np.float32], border: int) -> NDArray:
    """Values of a picture between its cells.

    Args:
        texture: (H, W) or (H, W, C); cell (0, 0) is centred on position (0, 0).
        cells: (N, 2) float32 positions, column first.
        border: OpenCV border mode for positions outside.

    Returns:
        (N,) or (N, C) of the texture's type.
    """
    grid = cells.reshape(-1, 1, 2)
    out = np.empty((len(cells), 1, *texture.shape[2:]), texture.dtype)
    for start in range(0, len(cells), _ROWS):
        rows = slice(start, start + _ROWS)
        out[rows] = cv2.remap(texture, grid[rows], None, cv2.INTER_LINEAR, borderMode=border).reshape(
            out[rows].shape
        )
    return out[:, 0]
