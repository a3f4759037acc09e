"""Directions on a panorama, views of it, and which tokens of neighbouring views look at the same place.

Angles in degrees: yaw to the right, pitch up. Rays: x right, y up, z ahead at yaw and pitch 0. An
equirectangular panorama has longitude -180 at the left edge of column 0, straight ahead in the middle and the
zenith at the upper edge of row 0. Everything here is float64. Users: panollava.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omma.errors import ConfigError

Array = NDArray[np.float64]
Size = tuple[int, int]
Pixels = Literal["ends", "centres"]
Projection = Literal["perspective", "equirectangular"]

_SLACK = 1e-9  # of a token, for positions that rounding puts beyond the last one


@dataclass(frozen=True)
class View:
    """Where a view looks and how much it shows, from outer edge to outer edge of its pixels.

    Args:
        yaw_deg: to the right.
        pitch_deg: up.
        fov_deg: (horizontal, vertical).
        projection: "equirectangular" for a piece cut out of the panorama as it is.
    """

    yaw_deg: float
    pitch_deg: float
    fov_deg: tuple[float, float]
    projection: Projection = "perspective"


class TokenPairs(NamedTuple):
    """Where tokens of one view fall among those of another, for P pairs of views with S tokens each.

    Args:
        source: first view of each pair, int64 (P,).
        target: second view, int64 (P,).
        positions: (column, row) in the grid of the second view for each token of the first, (P, S, 2); whole
            numbers are centres of tokens.
        valid: whether that lies between centres of tokens, bool (P, S).
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    positions: Array
    valid: NDArray[np.bool_]


def pixel_offsets(count: int, pixels: Pixels) -> Array:
    """Centres of pixels across a view from -1 to 1, (count,); "ends" puts the outer centres on the edge."""
    if pixels == "ends":
        return np.linspace(-1.0, 1.0, count)
    return (2 * np.arange(count) + 1) / count - 1


def edge_fov_deg(fov_deg: float, count: int, *, kept: float | None = None) -> float:
    """Field from edge to edge of a view whose outer of `count` pixel centres are `fov_deg` apart.

    Args:
        fov_deg: between the centres of the outer pixels.
        count: pixels.
        kept: of them, those in the middle that the field is asked for; default all.
    """
    share = (count if kept is None else kept) / max(count - 1, 1)
    return 2 * math.degrees(math.atan(math.tan(math.radians(fov_deg) / 2) * share))


def view_rays(view: View, size: Size, pixels: Pixels = "centres") -> Array:
    """Directions in which the pixels or tokens of a view look.

    Args:
        view: the view.
        size: (height, width) of the grid.
        pixels: whether centres of the outer ones lie half a step inside the view's edge or on it.

    Returns:
        (height, width, 3), of a perspective view with 1 along its axis, otherwise unit vectors.
    """
    right, up = np.meshgrid(pixel_offsets(size[1], pixels), -pixel_offsets(size[0], pixels))
    half = np.radians(view.fov_deg) / 2
    if view.projection == "equirectangular":
        longitude = np.radians(view.yaw_deg) + right * half[0]
        latitude = np.radians(view.pitch_deg) + up * half[1]
        return directions(longitude, latitude)
    rays = np.stack([right * np.tan(half[0]), up * np.tan(half[1]), np.ones_like(right)], axis=-1)
    return rays @ rotation(view).T


def directions(longitude: Array, latitude: Array) -> Array:
    """Unit vectors (..., 3) of angles in radians."""
    across = np.cos(latitude)
    return np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], axis=-1)


def rotation(view: View) -> Array:
    """Matrix (3, 3) from a view's own axes to the panorama's: pitch first, then yaw."""
    yaw, pitch = math.radians(view.yaw_deg), math.radians(view.pitch_deg)
    tilt = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    return turn @ tilt


def angles(rays: Array) -> tuple[Array, Array]:
    """Longitude in (-pi, pi] and latitude, in radians, of rays (..., 3) of any length."""
    x, y, z = np.moveaxis(rays, -1, 0)
    return np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))


def panorama_pixels(rays: Array, size: Size) -> Array:
    """Positions (column, row) of rays in a panorama, (..., 2); whole numbers are centres of pixels.

    Args:
        rays: (..., 3), of any length.
        size: (height, width) of the panorama.
    """
    longitude, latitude = angles(rays)
    column = (longitude / (2 * np.pi) + 0.5) * size[1] - 0.5
    row = (0.5 - latitude / np.pi) * size[0] - 0.5
    return np.stack([column, row], axis=-1)


def pad_panorama(panorama: NDArray) -> NDArray:
    """One more pixel on each side: columns from the other side, rows from across the pole.

    Args:
        panorama: (height, width, ...) of an even width.
    """
    half = panorama.shape[1] // 2
    rows = [np.roll(panorama[:1], half, axis=1), panorama, np.roll(panorama[-1:], half, axis=1)]
    padded = np.concatenate(rows)
    return np.concatenate([padded[:, -1:], padded, padded[:, :1]], axis=1)


def sample_panorama(panorama: NDArray, positions: Array) -> Array:
    """Exact bilinear values at positions of `panorama_pixels`.

    Args:
        panorama: (height, width, channels).
        positions: (..., 2) column, row.

    Returns:
        (..., channels).
    """
    padded = pad_panorama(panorama).astype(np.float64)
    left, top = (
        (np.floor(positions).astype(np.int64) + 1)[..., 0],
        np.floor(positions)[..., 1].astype(int) + 1,
    )
    across, down = np.moveaxis(positions - np.floor(positions), -1, 0)[..., None]
    upper = padded[top, left] * (1 - across) + padded[top, left + 1] * across
    lower = padded[top + 1, left] * (1 - across) + padded[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def ring_yaws_deg(fov_deg: float, overlap: float, *, closed: bool = True) -> list[float]:
    """Yaws in (-180, 180] of views around the horizon, the first straight ahead.

    Args:
        fov_deg: of a view.
        overlap: share of it that the next view repeats, in [0, 1).
        closed: whether steps are made a little shorter where that makes all of them equal; otherwise the last
            view overlaps the first by more.
    """
    step = fov_deg * (1 - overlap)
    count = math.ceil(360 / step - _SLACK)
    step = 360 / count if closed else step
    return [180 - (180 - index * step) % 360 for index in range(count)]


def neighbours(views: Sequence[View | None]) -> list[tuple[int, int]]:
    """Pairs of views next to each other: around each ring to the right, then from each to the ring above.

    Args:
        views: those of a ring follow one another to the right; None is the whole panorama, which has no
            neighbours.
    """
    rings: dict[float, dict[int, float]] = {}
    for index, view in enumerate(views):
        if view is not None:
            rings.setdefault(view.pitch_deg, {})[index] = view.yaw_deg
    pairs: list[tuple[int, int]] = []
    for ring in map(list, rings.values()):
        pairs += zip(ring, ring[1:] + ring[:1], strict=True) if len(ring) > 1 else []
    for (_, lower), (_, upper) in pairwise(sorted(rings.items())):
        for index, yaw in lower.items():
            apart = {other: abs((yaw - upper[other] + 180) % 360 - 180) for other in upper}
            pairs.append((index, min(apart, key=apart.__getitem__)))
    return pairs


def pair_tokens(views: Sequence[View | None], grid: Size) -> TokenPairs:
    """Where tokens of each view fall in the views next to it.

    Args:
        views: of one panorama; see `neighbours`.
        grid: (rows, columns) of tokens in a view.

    Returns:
        pairs around each ring, and between rings those that overlap.

    Raises:
        ConfigError: if there is one view only, or views next to each other share no place.
    """
    placed: dict[tuple[int, int], tuple[Array, NDArray[np.bool_]]] = {}
    for pair in neighbours(views):
        source, target = (views[index] for index in pair)
        assert source is not None
        assert target is not None
        positions, valid = _place(source, target, grid)
        if valid.any():
            placed[pair] = positions, valid
        elif source.pitch_deg == target.pitch_deg:
            raise ConfigError(
                f"views {pair[0]} and {pair[1]} have no place in common: an overlap loss means nothing",
                "choose data.views.name=e2p and data.views.overlap=0.5, or system.overlap.weight=0",
            )
    if not placed:
        raise ConfigError(
            "an overlap loss needs several views", "choose data.views.name=e2p or system.overlap.weight=0"
        )
    numbers = np.array(list(placed), np.int64)
    positions, valid = (np.stack(part) for part in zip(*placed.values(), strict=True))
    return TokenPairs(numbers[:, 0], numbers[:, 1], positions, valid)


def project(rays: Array, view: View) -> tuple[Array, NDArray[np.bool_]]:
    """Where rays fall in a view.

    Args:
        rays: (..., 3), of any length.
        view: the view.

    Returns:
        (..., 2) to the right and down, -1 to 1 from edge to edge, and whether the ray is in front of the
        view, bool (...).
    """
    half = np.radians(view.fov_deg) / 2
    if view.projection == "equirectangular":
        longitude, latitude = angles(rays)
        right = (longitude - np.radians(view.yaw_deg) + np.pi) % (2 * np.pi) - np.pi
        down = np.radians(view.pitch_deg) - latitude
        return np.stack([right / half[0], down / half[1]], axis=-1), np.ones(right.shape, bool)
    x, y, z = np.moveaxis(rays @ rotation(view), -1, 0)
    front = z > _SLACK
    depth = np.where(front, z, 1.0)
    return np.stack([x / depth / np.tan(half[0]), -y / depth / np.tan(half[1])], axis=-1), front


def _place(source: View, target: View, grid: Size) -> tuple[Array, NDArray[np.bool_]]:
    offsets, front = project(view_rays(source, grid).reshape(-1, 3), target)
    count = np.array([grid[1], grid[0]])
    positions = (offsets + 1) / 2 * count - 0.5
    inside = (positions >= -_SLACK) & (positions <= count - 1 + _SLACK)
    return np.clip(positions, 0, count - 1), inside.all(-1) & front
