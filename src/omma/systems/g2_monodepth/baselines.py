"""What a network has to beat: filling known depths in without looking at the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
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
    points = np.argwhere(raw)
    if len(points) < 3 or len(points) == raw.size:
        return filled
    try:
        surface = LinearNDInterpolator(points, raw[raw > 0])
    except QhullError:  # all points lie on a line
        return filled
    between = surface(*np.indices(raw.shape)).astype(np.float32)
    return np.where(raw > 0, raw, np.where(np.isnan(between), filled, between))


def constant_fill(raw: Depth) -> Depth:
    """The median of the known depths everywhere; zeros where nothing is known."""
    return np.full_like(raw, np.median(raw[raw > 0]) if raw.any() else 0.0)


BASELINES: dict[str, Callable[[Depth], Depth]] = {
    "nearest fill": nearest_fill,
    "linear interpolation": linear_fill,
    "constant": constant_fill,
}
