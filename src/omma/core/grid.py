"""The bird's-eye-view grid and the depth bins: sizes, steps and cell centres. NumPy only.

Users: lss, diffbev, viz. Ego axes unless a caller says otherwise: x forward, y left, z up, metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omma.errors import ConfigError

Bounds = tuple[float, float, float]


@dataclass(frozen=True)
class BevGrid:
    """A box of cells; each axis is given as (low, high, step) in metres.

    Args:
        x: bounds along the first grid axis.
        y: bounds along the second grid axis.
        z: bounds along the height, often one bin.

    Raises:
        ConfigError: an axis does not hold a whole number of cells (within 1e-6 of one).
    """

    x: Bounds
    y: Bounds
    z: Bounds

    def __post_init__(self) -> None:
        _ = self.nx

    @property
    def dx(self) -> tuple[float, float, float]:
        """Cell size along x, y, z."""
        return self.x[2], self.y[2], self.z[2]

    @property
    def bx(self) -> tuple[float, float, float]:
        """Centre of the first cell along x, y, z."""
        return tuple(low + step / 2.0 for low, _, step in (self.x, self.y, self.z))  # type: ignore[return-value]

    @property
    def nx(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        return _num_cells("x", self.x), _num_cells("y", self.y), _num_cells("z", self.z)

    def centres(self, axis: str) -> NDArray[np.float64]:
        """Cell centres along `axis` ("x", "y" or "z"), shape (cells,)."""
        low, _, step = {"x": self.x, "y": self.y, "z": self.z}[axis]
        return low + step * (np.arange(self.nx["xyz".index(axis)], dtype=np.float64) + 0.5)

    def radius(self) -> NDArray[np.float64]:
        """Horizontal distance of every cell centre from the origin, shape (X, Y)."""
        return np.hypot(self.centres("x")[:, None], self.centres("y")[None, :])


def _num_cells(axis: str, bounds: Bounds) -> int:
    low, high, step = bounds
    if not (math.isfinite(high - low) and step > 0 and high > low):
        raise ConfigError(
            f"grid axis {axis}: bounds {list(bounds)} are not (low, high, step)",
            hint="give low < high and a positive step, in metres",
        )
    cells = (high - low) / step
    if abs(cells - round(cells)) > 1e-6:
        raise ConfigError(
            f"grid axis {axis}: {low} to {high} m holds {cells:.6g} cells of {step} m, not a whole number",
            hint=f"move the upper bound to {low + math.ceil(cells) * step:.6g} or change the step",
        )
    return round(cells)


def depth_bins(low: float, high: float, step: float) -> NDArray[np.float32]:
    """Depths in metres from `low` on, `high` excluded (the depths themselves, not bin edges), float32 (D,).

    Raises:
        ConfigError: the bounds hold no depth, or start at or behind the camera.
    """
    if not (step > 0 and high > low > 0):
        raise ConfigError(
            f"depth bins [{low}, {high}, {step}] hold no depth in front of the camera",
            hint="give 0 < low < high and a positive step, in metres",
        )
    num_depths = math.ceil((high - low) / step - 1e-6)
    return (low + step * np.arange(num_depths)).astype(np.float32)


def distance_rings(
    radius_m: NDArray[np.float64], rings_m: Sequence[tuple[float, float]]
) -> NDArray[np.int64]:
    """The ring each cell lies in: index into `rings_m` (near end included, far end not), -1 outside all.

    Args:
        radius_m: distance of each cell centre, e.g. `BevGrid.radius()`, shape (X, Y).
        rings_m: (near, far) in metres, not overlapping.
    """
    ring = np.full(radius_m.shape, -1, np.int64)
    for index, (near, far) in enumerate(rings_m):
        ring[(radius_m >= near) & (radius_m < far)] = index
    return ring
