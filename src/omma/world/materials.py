"""Textures computed where a ray lands: windows, leaves, and how strongly surfaces mirror."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omma.world.mesh import Float

# per style: a window's left and right edge in its bay, sill and top in its storey
_WINDOWS = np.float32(
    [(0.05, 0.95, 0.30, 0.88), (0.25, 0.75, 0.26, 0.80), (0.30, 0.70, 0.12, 0.86), (0.32, 0.68, 0.32, 0.76)]
)
_SHOP = np.float32((0.07, 0.93, 0.06, 0.80))
_PANE = np.float32((0.045, 0.055, 0.065))
_CURTAIN = np.float32((0.34, 0.31, 0.26))


def facade(bays: Float, wall: Float, pixel: Float) -> tuple[Float, Float]:
    """Windows in a wall.

    Args:
        bays: (N, 3) float32 bays along the wall, storeys up, style number.
        wall: (N, 3) float32 albedo of the wall.
        pixel: (N,) float32 size of a pixel in bays.

    Returns:
        (N, 3) albedo and (N,) share of the mirrored sky.
    """
    style = bays[:, 2].round().astype(np.intp)
    column, storey = np.floor(bays[:, 0]), np.floor(bays[:, 1])
    frame = np.where(((storey < 1) & (style < 3))[:, None], _SHOP, _WINDOWS[style])
    u, v = bays[:, 0] - column, bays[:, 1] - storey
    inside = np.minimum(np.minimum(u - frame[:, 0], frame[:, 1] - u), np.minimum(v - frame[:, 2], frame[:, 3] - v))
    soft = np.maximum(pixel, np.float32(0.02))
    glass = np.clip(inside / soft + np.float32(0.5), 0, 1)
    # where windows are smaller than pixels their mean shows
    mean = (frame[:, 1] - frame[:, 0]) * (frame[:, 3] - frame[:, 2])
    glass += (mean - glass) * np.clip(pixel * np.float32(1.6) - np.float32(0.6), 0, 1)
    sill = np.clip(1 - np.abs(v - frame[:, 2] + np.float32(0.035)) / np.maximum(soft, 0.035), 0, 1)
    within = (u > frame[:, 0] - 0.04) & (u < frame[:, 1] + 0.04)
    trim = np.float32(1) + np.float32(0.25) * sill * within
    drawn = scatter(column, storey, style.astype(np.float32))
    pane = _PANE + _CURTAIN * (np.clip(drawn - np.float32(0.55), 0, 1))[:, None]
    grime = np.float32(0.86) + np.float32(0.14) * np.clip(bays[:, 1] * np.float32(1.5), 0, 1)
    plain = wall * (trim * grime)[:, None]
    return plain + (pane - plain) * glass[:, None], np.float32(1.1) * glass


def foliage_shade(position: Float, pixel_m: Float) -> Float:
    """(N, 1) brightness of leaves in clumps at scene positions (N, 3); even where a pixel is larger than a clump."""
    cells = np.floor(position * np.float32(7))
    fine = scatter(cells[:, 0], cells[:, 1], cells[:, 2])
    cells = np.floor(position * np.float32(2.6))
    broad = scatter(cells[:, 0], cells[:, 1], cells[:, 2])
    contrast = np.clip(np.float32(1.3) - pixel_m * 4, 0.25, 1)
    return (1 + contrast * ((fine - np.float32(0.5)) * np.float32(1.1) + (broad - np.float32(0.5)) * np.float32(0.5)))[
        :, None
    ]


def scatter(a: Float, b: Float, c: Float) -> Float:
    """A number in [0, 1) for every triple of whole numbers, as if drawn at random."""
    mixed = _hash(_hash(_hash(a.astype(np.int64)) + b.astype(np.int64)) + c.astype(np.int64))
    return (mixed & 0xFFFF).astype(np.float32) * np.float32(1 / 65536)


def _hash(x: NDArray[np.int64]) -> NDArray[np.int64]:
    x = (x ^ (x >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF
    return (x ^ (x >> 12)) * 0x297A2D39 & 0x7FFFFFFF


def fresnel(cosine: Float) -> Float:
    """(N,) share of light that a smooth surface mirrors at an angle of incidence."""
    grazing = 1 - np.minimum(cosine, 1)
    return np.float32(0.06) + np.float32(0.9) * grazing**5
