"""Cutting a panorama into views: every strategy of `data.views`.

Perspective views are sampled bilinearly through maps that are computed once for a size of panorama.
Strategies that follow the reference do so to the pixel; `e2p`, omma's own, first shrinks the panorama by area
so that no detail is skipped, and steps around the full circle evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omma.core.panorama import (
    View,
    edge_fov_deg,
    pad_panorama,
    panorama_pixels,
    ring_yaws_deg,
    view_rays,
)
from omma.errors import ConfigError, DataError
from omma.systems.panollava.config import ViewsSection

Picture = NDArray[np.uint8]
Size = tuple[int, int]

USUAL_SIZE = (2048, 4096)
_CUT_ROWS = 4  # e2p_reference leaves out one in so many rows at the top and at the bottom
_CUBE_YAWS = (0.0, 90.0, 180.0, -90.0)
MAX_GRID = (2, 6)  # rows and columns of anyres_max
_REFERENCE_PITCHES = (-45.0, 45.0)  # that rings of anyres_e2p stay between
TILE_SCALE, BASE_SCALE = 3.0, 1.5  # 672 and 336 pixels for views of 224
_SLACK = 1e-9


class ViewCutter:
    """Cuts panoramas into views of one strategy and keeps the sampling maps of sizes that it has met.

    Args:
        settings: strategy, size and field of the views.

    Raises:
        ConfigError: the strategy makes no views of that field.
    """

    def __init__(self, settings: ViewsSection) -> None:
        self.settings = settings
        self.size: Size = (settings.image_size[0], settings.image_size[1])
        self._maps: dict[Size, list[NDArray[np.float32]]] = {}
        self._cut = _STRATEGIES[settings.name]
        self.centres = view_centres(settings)

    def __call__(self, panorama: Picture, *, turn_deg: float = 0.0) -> Picture:
        """The views of a panorama.

        Args:
            panorama: (H, W, 3) uint8.
            turn_deg: how far to the right of the panorama's own front the first view shall look; rounded to
                whole columns.

        Returns:
            (V, h, w, 3) uint8, in the order of `view_layout`.

        Raises:
            DataError: the panorama is no colour image.
        """
        if panorama.ndim != 3 or panorama.shape[2] != 3 or panorama.dtype != np.uint8:
            raise DataError(
                f"a panorama has the shape {panorama.shape} and the type {panorama.dtype}",
                "give a colour image of 8 bits, (H, W, 3)",
            )
        columns = round(turn_deg / 360 * panorama.shape[1])
        panorama = np.roll(panorama, -columns, axis=1) if columns else panorama
        return np.stack(list(self._cut(self, panorama)))

    def render(self, panorama: Picture) -> list[Picture]:
        """Perspective views at the strategy's centres, whose outer pixel centres lie on the field's edge."""
        key = panorama.shape[:2]
        if key not in self._maps:
            size = _rendered_size(self.settings)
            self._maps[key] = [_sampling_map(view, size, key) for view in self.centres]
        padded = pad_panorama(panorama)
        return [cv2.remap(padded, positions, None, cv2.INTER_LINEAR) for positions in self._maps[key]]


def view_layout(settings: ViewsSection, panorama_size: Size = USUAL_SIZE) -> list[View | None]:
    """Where the views of a panorama look, the whole panorama as None.

    Args:
        settings: strategy, size and field of the views.
        panorama_size: (H, W); only sliding_window depends on it, by less than a pixel a view.

    Returns:
        one entry for each view.
    """
    name = settings.name
    if name == "resize":
        return [None]
    if name == "sliding_window":
        return list(_window_views(settings, panorama_size[1]))
    if name in {"anyres", "anyres_max"}:
        return [None, *_grid_views(*((1, 2) if name == "anyres" else MAX_GRID))]
    rows, columns = _rendered_size(settings)
    kept = rows - 2 * (rows // _CUT_ROWS) if name == "e2p_reference" else rows
    views = [
        replace(
            view,
            fov_deg=(edge_fov_deg(view.fov_deg[0], columns), edge_fov_deg(view.fov_deg[1], rows, kept=kept)),
        )
        for view in view_centres(settings)
    ]
    whole = name == "anyres_e2p" or (name == "e2p" and settings.global_view)
    return [None, *views] if whole else views


def view_centres(settings: ViewsSection) -> list[View]:
    """The perspective views of a strategy between centres of their outer pixels; empty where it has none.

    Raises:
        ConfigError: the strategy makes no views of that field.
    """
    fov, overlap = settings.fov_deg, settings.overlap
    rings: dict[str, Callable[[], tuple[Iterable[float], Iterable[float]]]] = {
        "e2p": lambda: (settings.pitches_deg, ring_yaws_deg(fov, overlap)),
        "e2p_reference": lambda: ([0.0], ring_yaws_deg(fov, overlap, closed=False)),
        "cubemap": lambda: ([0.0], _CUBE_YAWS),
        "anyres_e2p": lambda: (_reference_pitches(fov, overlap), _reference_yaws(fov, overlap)),
    }
    if settings.name not in rings:
        return []
    pitches, yaws = rings[settings.name]()
    field = 90.0 if settings.name == "cubemap" else fov
    views = [View(yaw, pitch, (field, field)) for pitch in pitches for yaw in yaws]
    if not views:
        raise ConfigError(
            f"data.views.name={settings.name} makes no views of {fov:g} degrees",
            "choose data.views.fov_deg of at most 90, or data.views.name=e2p with data.views.pitches_deg",
        )
    return views


def _e2p(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    panorama = shrink(panorama, cutter.settings)
    if cutter.settings.global_view:
        yield cv2.resize(panorama, cutter.size[::-1], interpolation=cv2.INTER_AREA)
    yield from cutter.render(panorama)


def _e2p_reference(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    cut = cutter.size[0] // _CUT_ROWS
    for view in cutter.render(panorama):
        yield _resize(view[cut : len(view) - cut], cutter.size, Image.Resampling.BICUBIC)


def _cubemap(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    for face in cutter.render(panorama):
        yield _resize(face, cutter.size, Image.Resampling.BICUBIC)


def _sliding_window(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    width, step, count = _windows(cutter.settings, panorama.shape[1])
    for index in range(count):
        columns = np.arange(index * step, index * step + width)
        yield _resize(panorama.take(columns, axis=1, mode="wrap"), cutter.size)


def _resized(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    yield _resize(panorama, cutter.size)


def _anyres(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    height, width = cutter.size
    yield _resize(panorama, cutter.size)
    yield from np.split(_resize(panorama, (height, 2 * width)), 2, axis=1)


def _anyres_max(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    yield _resize(panorama, cutter.size)
    for piece in grid_pieces(panorama, MAX_GRID):
        yield _resize(piece, cutter.size)


def _anyres_e2p(cutter: ViewCutter, panorama: Picture) -> Iterable[Picture]:
    yield letterbox(panorama, cutter.size)
    for view in cutter.render(panorama):
        yield cv2.resize(view, cutter.size[::-1], interpolation=cv2.INTER_LINEAR)


_STRATEGIES: dict[str, Callable[[ViewCutter, Picture], Iterable[Picture]]] = {
    "e2p": _e2p,
    "e2p_reference": _e2p_reference,
    "sliding_window": _sliding_window,
    "cubemap": _cubemap,
    "resize": _resized,
    "anyres": _anyres,
    "anyres_max": _anyres_max,
    "anyres_e2p": _anyres_e2p,
}


def shrink(panorama: Picture, settings: ViewsSection) -> Picture:
    """A panorama reduced by area to the resolution that views have in their middle; never enlarged.

    Args:
        panorama: (H, W, 3) uint8.
        settings: size and field of the views.
    """
    needed = [round(length * 180 / settings.fov_deg) for length in settings.image_size]
    height, width = min(panorama.shape[0], needed[0]), min(panorama.shape[1], 2 * needed[1])
    # halving is many times faster than any other ratio; linear is the mean of four there, also of odd sizes
    while panorama.shape[0] >= 2 * height and panorama.shape[1] >= 2 * width:
        half = (panorama.shape[1] // 2, panorama.shape[0] // 2)
        panorama = cv2.resize(panorama, half, interpolation=cv2.INTER_LINEAR)
    if panorama.shape[:2] == (height, width):
        return panorama
    return cv2.resize(panorama, (width, height), interpolation=cv2.INTER_AREA)


def grid_pieces(panorama: Picture, grid: Size) -> list[Picture]:
    """Pieces of a panorama, all of one size, row by row; what is left over at the right and below is lost.

    Args:
        panorama: (H, W, 3).
        grid: rows and columns of pieces.
    """
    height, width = (length // count for length, count in zip(panorama.shape[:2], grid, strict=True))
    return [
        panorama[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(grid[0])
        for column in range(grid[1])
    ]


def letterbox(panorama: Picture, size: Size) -> Picture:
    """The whole panorama with black bars above and below, as AnyRes-E2P takes it.

    Args:
        panorama: (H, W, 3) uint8.
        size: (h, w) of the result.
    """
    base = round(BASE_SCALE * min(size))
    inner = base // 2
    square = np.zeros((base, base, 3), np.uint8)
    top = (base - inner) // 2
    square[top : top + inner] = _resize(panorama, (inner, base), Image.Resampling.BICUBIC)
    return cv2.resize(square, size[::-1], interpolation=cv2.INTER_LINEAR)


def _resize(image: Picture, size: Size, how: Image.Resampling = Image.Resampling.LANCZOS) -> Picture:
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], how))


def _rendered_size(settings: ViewsSection) -> Size:
    height, width = settings.image_size
    if settings.name == "cubemap":  # faces have the width of an image, whatever its height
        return width, width
    if settings.name == "anyres_e2p":
        return (round(TILE_SCALE * min(height, width)),) * 2
    return height, width


def _sampling_map(view: View, size: Size, panorama_size: Size) -> NDArray[np.float32]:
    positions = panorama_pixels(view_rays(view, size, "ends"), panorama_size)
    return (positions + 1).astype(np.float32)  # the panorama is padded by one pixel


def _reference_yaws(fov_deg: float, overlap: float) -> list[float]:
    step = 360 / len(ring_yaws_deg(fov_deg, overlap))
    yaws = [-180 + index * step for index in range(round(360 / step))]
    return sorted(yaws, key=lambda yaw: yaw % 360)


def _reference_pitches(fov_deg: float, overlap: float) -> list[float]:
    low, high = _REFERENCE_PITCHES[0] + fov_deg / 2, _REFERENCE_PITCHES[1] - fov_deg / 2
    step = fov_deg * (1 - overlap)
    return (
        [low + index * step for index in range(int((high - low) / step + _SLACK) + 1)] if high >= low else []
    )


def _windows(settings: ViewsSection, columns: int) -> tuple[int, int, int]:
    """Width, step and number of windows."""
    width = int(columns * settings.fov_deg / 360)
    step = int(width * (1 - settings.overlap))
    return width, step, len(ring_yaws_deg(settings.fov_deg, settings.overlap))


def _window_views(settings: ViewsSection, columns: int) -> Iterable[View]:
    width, step, count = _windows(settings, columns)
    for index in range(count):
        yaw = (index * step + width / 2) / columns * 360 - 180
        yield View(yaw, 0.0, (360 * width / columns, 180.0), "equirectangular")


def _grid_views(rows: int, columns: int) -> Iterable[View]:
    wide, tall = 360 / columns, 180 / rows
    for row in range(rows):
        for column in range(columns):
            yaw, pitch = (column + 0.5) * wide - 180, 90 - (row + 0.5) * tall
            yield View(yaw, pitch, (wide, tall), "equirectangular")
