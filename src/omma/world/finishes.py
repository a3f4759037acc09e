"""Patterns of indoor surfaces, computed where a ray lands: boards, tiles, cloth, wallpaper, paintings."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.world.lookup import look_up
from omma.world.materials import scatter
from omma.world.mesh import Float, Mesh

_NOISE_PX = 512


class Pattern(IntEnum):
    """What is drawn on a surface; the whole part of a triangle's third texture coordinate."""

    PLAIN = 0
    WOOD = 1  # grain along the first coordinate
    PLANKS = 2
    TILES = 3
    CLOTH = 4
    STRIPES = 5
    PLASTER = 6
    RUG = 7
    PAINTING = 8  # coordinates 0 to 1; the fraction of the third picks the painting
    OUTSIDE = 9  # what lies behind a window


def patterned(mesh: Mesh, pattern: Pattern) -> Mesh:
    """The mesh in its own frame with a pattern on all sides, at the scale of metres."""
    low, high = mesh.bounds()
    longest = int(np.argmax(high - low))
    across = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
    across = np.abs(across)
    across[:, longest] *= 0.5
    flat = across.argmax(1)
    axes = np.array([(longest, next(a for a in range(3) if a not in (longest, f))) for f in range(3)])
    axes[longest] = [a for a in range(3) if a != longest]
    picks = np.repeat(axes[flat][:, None], 3, axis=1)
    uv = np.take_along_axis(mesh.corners, picks, 2)
    style = np.full((*uv.shape[:2], 1), float(pattern), np.float32)
    return replace(mesh, texture=np.concatenate([uv, style], 2))


def finish(albedo: Float, texture: Float, pixel_m: Float) -> None:
    """Draw the patterns into `albedo` (3, N) in place.

    Args:
        albedo: (3, N) float32 colour of the surface.
        texture: (3, N) float32 coordinates and pattern.
        pixel_m: (N,) float32 size of a pixel on the surface, metres.
    """
    kinds = texture[2].astype(np.int32)
    for pattern, draw in _DRAW.items():
        index = np.flatnonzero(kinds == pattern)
        if len(index):
            albedo[:, index] = draw(albedo.take(index, 1), texture.take(index, 1), pixel_m[index])
    np.clip(albedo, 0.005, 0.9, out=albedo)


def _wood(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    u, v, _ = texture
    grain = _noise(u * 1.5, v * 30) * _seen(pixel_m, 0.02) + 0.6 * _noise(u * 0.7 + 9, v * 8)
    return albedo * (1 + 0.13 * grain)


def _planks(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    u, v, _ = texture
    row = np.floor(v / 0.12)
    shift = scatter(row, row * 0, row * 0 + 3) * np.float32(1.3)
    column = np.floor((u + shift) / 1.3)
    tone = scatter(row, column, row * 0 + 5) - np.float32(0.5)
    edge = np.minimum(np.mod(v, 0.12), 0.12 - np.mod(v, 0.12))
    edge = np.minimum(edge, np.minimum(np.mod(u + shift, 1.3), 1.3 - np.mod(u + shift, 1.3)))
    gap = np.clip(1.4 - edge / np.maximum(0.0025, pixel_m), 0, 1) * np.minimum(0.0025 / pixel_m, 1)
    grain = _noise(u * 1.2 + tone * 40, v * 40) * _seen(pixel_m, 0.015)
    return albedo * ((1 + 0.3 * tone + 0.1 * grain) * (1 - 0.7 * gap))


def _tiles(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    side = 0.33
    u, v, _ = texture
    edge = side / 2 - np.maximum(np.abs(np.mod(u, side) - side / 2), np.abs(np.mod(v, side) - side / 2))
    line = np.clip(1.4 - edge / np.maximum(0.004, pixel_m), 0, 1) * np.minimum(0.004 / pixel_m, 1)
    tone = scatter(np.floor(u / side), np.floor(v / side), u * 0) - np.float32(0.5)
    cloud = _noise(u * 5, v * 5)
    return albedo * ((1 + 0.1 * tone + 0.07 * cloud) * (1 - 0.45 * line))


def _cloth(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    u, v, _ = texture
    return albedo * (
        1 + 0.1 * _noise(u * 140, v * 140) * _seen(pixel_m, 0.006) + 0.025 * _noise(u * 5, v * 5)
    )


def _stripes(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    u, v, _ = texture
    band = np.mod(np.floor(v / 0.055), 2) * _seen(pixel_m, 0.055)
    return albedo * (0.8 + 0.4 * band + 0.04 * _noise(u * 140, v * 140) * _seen(pixel_m, 0.006))


def _plaster(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    u, v, _ = texture
    return albedo * (
        1 + 0.012 * _noise(u * 1.5, v * 1.5) + 0.02 * _noise(u * 90, v * 90) * _seen(pixel_m, 0.01)
    )


def _rug(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    """Coordinates run from -1 to 1 over the rug."""
    u, v, _ = texture
    rim = np.maximum(np.abs(u), np.abs(v))
    lattice = np.abs(np.mod(u * 5 + v * 7, 2) - 1) + np.abs(np.mod(u * 5 - v * 7, 2) - 1)
    light = np.where(lattice > 1.1, np.float32(1.5), np.float32(0.8))
    light = np.where(rim > 0.8, np.where(rim > 0.88, np.float32(0.55), np.float32(1.9)), light)
    other = np.roll(albedo, 1, axis=0)
    mixed = np.where(lattice > 1.55, other, albedo)
    return mixed * light * (1 + 0.15 * _noise(u * 150, v * 150) * _seen(pixel_m, 0.01))


def _painting(albedo: Float, texture: Float, pixel_m: Float) -> Float:
    """A landscape of hills under a sky, or blots of colour, as the fraction decides."""
    del pixel_m
    u, v, style = texture
    which = (style - np.floor(style)) * np.float32(997)
    hill = 0.45 + 0.12 * _noise(u * 3 + which, which) + 0.03 * _noise(u * 22 + which, which + 5)
    ground = v < hill
    sky = np.stack([0.35 + 0.4 * v, 0.45 + 0.3 * v, 0.62 + 0.1 * v])
    near = albedo * (0.6 + 0.6 * (hill - v) + 0.25 * _noise(u * 18 + which, v * 18))
    scape = np.where(ground, near, sky * (1 + 0.12 * _noise(u * 4 + which, v * 9)))
    blots = np.stack([_noise(u * 2.5 + which + k * 31, v * 2.5) for k in range(3)])
    abstract = np.clip(albedo * (1.1 + 0.9 * np.round(blots)), 0.02, 0.8)
    inside = (np.minimum(u, 1 - u) > 0.07) & (np.minimum(v, 1 - v) > 0.07)
    art = np.where(np.mod(np.floor(which), 2) == 0, scape, abstract)
    return np.where(inside, art, np.float32(0.7)).astype(np.float32)


_DRAW = {
    Pattern.WOOD: _wood,
    Pattern.PLANKS: _planks,
    Pattern.TILES: _tiles,
    Pattern.CLOTH: _cloth,
    Pattern.STRIPES: _stripes,
    Pattern.PLASTER: _plaster,
    Pattern.RUG: _rug,
    Pattern.PAINTING: _painting,
}


def outside(view: Float) -> Float:
    """Radiance (3, N), sky about 1, of what lies behind windows in directions (3, N): sky, trees, lawn."""
    yaw = np.arctan2(view[1], view[0])
    tops = 0.06 + 0.05 * _noise(yaw * 9, yaw * 0) + 0.02 * _noise(yaw * 60, view[2] * 30)
    rise = np.clip(view[2] * 1.5, 0, 1)
    sky = np.float32([[1.0], [1.05], [1.12]]) * (1.1 - 0.25 * rise)
    trees = np.float32([[0.16], [0.22], [0.12]]) * (1 + 0.22 * _noise(yaw * 40, view[2] * 40))
    lawn = np.float32([[0.22], [0.28], [0.14]]) * np.ones_like(yaw)
    return np.where(view[2] > tops, sky, np.where(view[2] > -0.04, trees, lawn)).astype(np.float32)


def _seen(pixel_m: Float, detail_m: float) -> Float:
    """1 where detail of a size is larger than pixels, fading to 0 where it is smaller."""
    return np.clip(np.float32(1.5) - pixel_m * np.float32(1 / detail_m), 0, 1)


def _noise(u: Float, v: Float) -> Float:
    """Smooth noise of unit spread with about one bump in a unit square."""
    cells = np.stack([np.mod(u * 8, _NOISE_PX), np.mod(v * 8, _NOISE_PX)], 1).astype(np.float32)
    return look_up(_bumps(), cells, cv2.BORDER_WRAP)


@lru_cache(maxsize=1)
def _bumps() -> NDArray[np.float32]:
    white = np.tile(np.random.default_rng(91).standard_normal((_NOISE_PX, _NOISE_PX), np.float32), (3, 3))
    smooth = cv2.GaussianBlur(white, (0, 0), 3.5)[_NOISE_PX:-_NOISE_PX, _NOISE_PX:-_NOISE_PX]
    return np.ascontiguousarray(smooth / smooth.std())
