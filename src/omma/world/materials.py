"""Textures computed where a ray lands: windows, leaves, and how strongly surfaces mirror."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omma.world.mesh import Float

# a window's left and right edge in its bay, sill and top in its storey; the last style is the shop front
_WINDOWS = np.ascontiguousarray(
    np.float32(
        [
            (0.05, 0.95, 0.30, 0.88),
            (0.25, 0.75, 0.26, 0.80),
            (0.30, 0.70, 0.12, 0.86),
            (0.32, 0.68, 0.32, 0.76),
            (0.07, 0.93, 0.06, 0.80),
        ]
    ).T
)
_PANE = np.float32([[0.045], [0.055], [0.065]])
_PRIMES = np.uint32([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D])
_CURTAIN = np.float32([[0.34], [0.31], [0.26]])


def facade(bays: Float, wall: Float, pixel: Float) -> tuple[Float, Float]:
    """Windows in a wall.

    Args:
        bays: (3, N) float32 bays along the wall, storeys up, style number.
        wall: (3, N) float32 albedo of the wall.
        pixel: (N,) float32 size of a pixel in bays.

    Returns:
        (3, N) albedo and (N,) share of the mirrored sky.
    """
    along, up, style = bays[0], bays[1], bays[2].round().astype(np.intp)
    column, storey = np.floor(along), np.floor(up)
    shop = (storey < 1) & (style < 3)
    left, right, bottom, top = _WINDOWS.take(np.where(shop, len(_WINDOWS[0]) - 1, style), 1)
    u, v = along - column, up - storey
    inside = np.minimum(np.minimum(u - left, right - u), np.minimum(v - bottom, top - v))
    soft = np.maximum(pixel, np.float32(0.02))
    glass = np.clip(inside / soft + np.float32(0.5), 0, 1)
    # where windows are smaller than pixels their mean shows
    mean = (right - left) * (top - bottom)
    glass += (mean - glass) * np.clip(pixel * np.float32(1.6) - np.float32(0.6), 0, 1)
    sill = np.clip(1 - np.abs(v - bottom + np.float32(0.035)) / np.maximum(soft, np.float32(0.035)), 0, 1)
    sill *= (u > left - np.float32(0.04)) & (u < right + np.float32(0.04))
    drawn = scatter(column, storey, style)
    pane = _PANE + _CURTAIN * np.maximum(drawn - np.float32(0.55), 0)
    grime = np.float32(0.86) + np.float32(0.14) * np.clip(up * np.float32(1.5), 0, 1)
    plain = wall * ((1 + np.float32(0.25) * sill) * grime)
    return plain + (pane - plain) * glass, np.float32(1.1) * glass


def foliage_shade(position: Float, pixel_m: Float) -> Float:
    """(N,) brightness of clumps of leaves at scene positions (3, N); the larger the pixel the more even."""
    fine = scatter(*np.floor(position * np.float32(7))) - np.float32(0.5)
    broad = scatter(*np.floor(position * np.float32(2.6))) - np.float32(0.5)
    contrast = np.clip(np.float32(1.3) - pixel_m * 4, np.float32(0.25), 1)
    return 1 + contrast * (fine * np.float32(1.1) + broad * np.float32(0.5))


def scatter(a: NDArray, b: NDArray, c: NDArray) -> Float:
    """A number in [0, 1) for every triple of whole numbers, as if drawn at random."""
    whole = (np.asarray(x).astype(np.int32).view(np.uint32) for x in (a, b, c))
    mixed = np.zeros(len(a), np.uint32)
    for part, prime in zip(whole, _PRIMES, strict=True):
        mixed ^= part * prime
        mixed ^= mixed >> np.uint32(15)
        mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(12)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def fresnel(cosine: Float) -> Float:
    """(N,) share of light that a smooth surface mirrors at an angle of incidence."""
    grazing = 1 - np.minimum(cosine, 1)
    squared = grazing * grazing
    return np.float32(0.06) + np.float32(0.9) * (squared * squared * grazing)
