"""Depth files: sparse pictures in metres, brought to the network's image size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.nuscenes_depth import scatter_nearest
from omma.data.io import read_depth_png, read_npy, read_npz
from omma.errors import DataError

_PNG_UNITS_PER_METRE = 256


def read_depth(path: Path) -> NDArray[np.float32]:
    """A depth picture: .npz (array `depth`) and .npy hold metres, 16-bit .png metres times 256.

    Returns:
        (H, W) float32 metres, 0 where unknown.

    Raises:
        DataError: the file is missing, damaged, of another shape, or holds negative or infinite values.
    """
    if path.suffix.lower() == ".png":
        return read_depth_png(path, _PNG_UNITS_PER_METRE)
    depth = read_npz(path, "depth") if path.suffix.lower() == ".npz" else read_npy(path)
    if depth.ndim != 2:
        raise DataError(f"{path}: depth has shape {depth.shape}, expected (height, width)")
    depth = depth.astype(np.float32)
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise DataError(f"{path}: depth is negative or not finite somewhere", "0 means unknown")
    return depth


def resize_depth(depth_m: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A sparse depth picture (H, W) at another size; the nearest counts where several pixels meet."""
    if depth_m.shape == size:
        return depth_m
    rows, columns = np.nonzero(depth_m)
    height, width = depth_m.shape
    # a pixel's middle decides where it goes
    to_rows = (2 * rows + 1) * size[0] // (2 * height)
    to_columns = (2 * columns + 1) * size[1] // (2 * width)
    return scatter_nearest(to_rows, to_columns, depth_m[rows, columns], size)
