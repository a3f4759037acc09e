"""What a network has to beat: filling known depths in without looking at the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import QhullError

from omma.data.formats.rgbd import Depth


def nearest_fill(raw: Depth) -> Depth:
    """Each pixel takes the nearest known depth; (H, W), zeros where nothing is known."""
    if not raw.any():
        return np.zeros_like(raw)
    index = distance_transform_edt(raw == 0, return_distances=False, return_indices=True)
    return raw[tuple(index)]


def linear_fill(raw: Depth) -> Depth:
    """Linear interpolation in a triangulation of the known pixels, the nearest depth outside of it."""
    filled = nearest_fill(raw)
    corners = _beside_unknown(raw)
    points, unknown = np.argwhere(corners), np.argwhere(raw == 0)
    if len(points) < 3 or not len(unknown):
        return filled
    try:
        surface = LinearNDInterpolator(points, raw[corners])
    except QhullError:  # all points lie on a line
        return filled
    between = surface(unknown).astype(np.float32)
    found = ~np.isnan(between)
    filled[tuple(unknown[found].T)] = between[found]
    return filled


def _beside_unknown(raw: Depth) -> NDArray[np.bool_]:
    """Known pixels at the picture's edge or with an unknown one among their eight neighbours.

    No other pixel is a corner of a triangle over unknown pixels, and dense maps have few of these.
    """
    known = raw > 0
    return known & ~binary_erosion(known, np.ones((3, 3), bool))


def constant_fill(raw: Depth) -> Depth:
    """The median of the known depths everywhere; zeros where nothing is known."""
    return np.full_like(raw, np.median(raw[raw > 0]) if raw.any() else 0.0)


BASELINES: dict[str, Callable[[Depth], Depth]] = {
    "nearest fill": nearest_fill,
    "linear interpolation": linear_fill,
    "constant": constant_fill,
}
