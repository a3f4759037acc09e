"""Bird's-eye-view maps as pictures: x (forward) up, y (left) to the left, axes in metres.

Maps are arrays (X, Y): axis 0 along +x, axis 1 along +y, cell (0, 0) at the rear right corner. The `paint_*`
functions colour a map, `draw_bev` makes the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from omma.viz.image import (
    GREY,
    INK,
    LIGHT,
    WHITE,
    Colour,
    Image,
    colour_map,
    font_for,
    resize_map,
    text_width,
)

Range = tuple[float, float]
Cells = TypeVar("Cells", bound=NDArray[Any])
Legend = Sequence[tuple[str, Colour]]

TRUTH: Colour = (214, 69, 65)
PREDICTION: Colour = (46, 160, 67)
MATCH: Colour = (245, 196, 40)
BACKGROUND: Colour = (246, 248, 250)
IGNORED: Colour = (208, 215, 222)
OVERLAY_LEGEND: Legend = (("ground truth", TRUTH), ("prediction", PREDICTION), ("match", MATCH))

EGO_LENGTH_M, EGO_WIDTH_M = 4.084, 1.85


def orient(map_xy: Cells) -> Cells:
    """Turn a map (X, Y, ...) into picture rows and columns: row 0 farthest ahead, column 0 farthest left."""
    return map_xy[::-1, ::-1]  # type: ignore[return-value]


def class_palette(num_classes: int) -> list[Colour]:
    """So many colours that are told apart."""
    table = [*colormaps["tab10"].colors, *colormaps["tab20b"].colors]  # type: ignore[attr-defined]
    chosen = [table[index % len(table)] for index in range(num_classes)]
    return [(round(r * 255), round(g * 255), round(b * 255)) for r, g, b in chosen]


def paint_mask(mask_xy: ArrayLike, colour: Colour = TRUTH) -> Image:
    """Colour a map (X, Y) of booleans; returns (X, Y, 3)."""
    return paint_classes(np.asarray(mask_xy)[None], [colour])


def paint_probability(probability_xy: ArrayLike) -> Image:
    """Colour a map (X, Y) of probabilities from white over blue to near black; returns (X, Y, 3)."""
    return colour_map(probability_xy, name="Blues", lowest=0.0, highest=1.0, missing=IGNORED)


def paint_overlay(truth_xy: ArrayLike, predicted_xy: ArrayLike) -> Image:
    """Ground truth red, prediction green, match yellow; two maps (X, Y) of booleans, returns (X, Y, 3)."""
    truth, predicted = np.asarray(truth_xy, dtype=bool), np.asarray(predicted_xy, dtype=bool)
    return paint_classes(
        np.stack([truth & ~predicted, predicted & ~truth, truth & predicted]), [TRUTH, PREDICTION, MATCH]
    )


def paint_classes(masks_cxy: ArrayLike, palette: Sequence[Colour]) -> Image:
    """Colour masks (C, X, Y) of booleans; where several hold, the later class is seen; returns (X, Y, 3)."""
    masks = np.asarray(masks_cxy, dtype=bool)
    painted = np.empty((*masks.shape[1:], 3), np.uint8)
    painted[:] = BACKGROUND
    for mask, colour in zip(masks, palette, strict=True):
        painted[mask] = colour
    return painted


def paint_ignored(painted_xy: Image, ignored_xy: ArrayLike) -> Image:
    """Grey out the cells (X, Y) that the metrics leave out; returns a new map (X, Y, 3)."""
    return np.where(np.asarray(ignored_xy, dtype=bool)[..., None], np.array(IGNORED, np.uint8), painted_xy)


def draw_bev(
    painted_xy: Image,
    *,
    x_range_m: Range,
    y_range_m: Range,
    height: int = 420,
    title: str = "",
    legend: Legend = (),
    ego_centre_x_m: float | None = 0.5,
) -> Image:
    """A painted map of the ego frame as a picture with axes, the ego vehicle and a legend.

    Args:
        painted_xy: (X, Y, 3) uint8, see the `paint_*` functions.
        x_range_m: lowest and highest x of the map.
        y_range_m: lowest and highest y of the map.
        height: of the map's area in pixels; text comes on top of it.
        title: line above.
        legend: (label, colour) pairs, drawn below; give pictures of one panel row the same ones.
        ego_centre_x_m: where the middle of the 4.084 m x 1.85 m vehicle lies; None draws none.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = _Canvas(orient(painted_xy), x_range_m, y_range_m, height=height, title=title, legend=legend)
    canvas.axes("x (m)", "y (m), left is +", sign=1)
    if ego_centre_x_m is not None:
        canvas.ego(ego_centre_x_m)
    return np.asarray(canvas.picture)


def draw_camera_bev(
    painted_zx: Image,
    *,
    z_range_m: Range,
    x_range_m: Range,
    height: int = 420,
    title: str = "",
    legend: Legend = (),
) -> Image:
    """A painted map of a camera's frame, x to the right and z ahead, as a picture with axes and a legend.

    Args:
        painted_zx: (Z, X, 3) uint8, row 0 nearest, column 0 farthest left.
        z_range_m: lowest and highest z of the map.
        x_range_m: lowest and highest x of the map.
        height: of the map's area in pixels; text comes on top of it.
        title: line above.
        legend: (label, colour) pairs, drawn below; give pictures of one panel row the same ones.

    Returns:
        (H, W, 3) uint8; the far end is at the top.
    """
    left_range_m = (-x_range_m[1], -x_range_m[0])
    canvas = _Canvas(painted_zx[::-1], z_range_m, left_range_m, height=height, title=title, legend=legend)
    canvas.axes("z (m)", "x (m), right is +", sign=-1)
    return np.asarray(canvas.picture)


def _ticks(low: float, high: float, pixels: float) -> list[float]:
    """Round values in [low, high], about one each 60 pixels."""
    rough = (high - low) / max(pixels / 60, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


class _Canvas:
    """The picture around a map: margins, axes, ego box, legend.

    Args:
        pixels: the map with row 0 farthest ahead and column 0 farthest left.
        ahead_m: range from the last row to the first.
        left_m: range from the last column to the first.
        height: of the map in the picture.
        title: line above.
        legend: entries below.
    """

    LEFT, RIGHT, BOTTOM, LINE = 44, 12, 40, 18

    def __init__(
        self, pixels: Image, ahead_m: Range, left_m: Range, *, height: int, title: str, legend: Legend
    ) -> None:
        self.ahead_m, self.left_m = ahead_m, left_m
        self.scale = height / (ahead_m[1] - ahead_m[0])
        width = round((left_m[1] - left_m[0]) * self.scale)
        top = 30
        lines = self._legend_lines(legend, width + self.LEFT)
        size = (
            self.LEFT + width + self.RIGHT,
            top + height + self.BOTTOM + self.LINE * len(lines),
        )
        self.picture = Pillow.new("RGB", size, WHITE)
        self.draw = ImageDraw.Draw(self.picture)
        self.origin = (self.LEFT, top)
        self.width, self.height = width, height
        self.picture.paste(Pillow.fromarray(resize_map(pixels, height, width)), self.origin)
        self._text((self.LEFT, top - 10), title, "ls", size=14)
        for index, entries in enumerate(lines):
            self._legend_line(entries, top + height + self.BOTTOM + self.LINE * index)

    @staticmethod
    def _legend_lines(legend: Legend, width: int) -> list[Legend]:
        lines: list[list[tuple[str, Colour]]] = []
        used = width
        for label, colour in legend:
            need = 16 + text_width(label, 11) + 14
            if used + need > width:
                lines.append([])
                used = 0
            lines[-1].append((label, colour))
            used += need
        return list(lines)

    def _legend_line(self, entries: Legend, top: int) -> None:
        left = 10
        for label, colour in entries:
            self.draw.rectangle((left, top + 1, left + 10, top + 11), fill=colour, outline=GREY)
            self._text((left + 16, top + 6), label, "lm")
            left += 16 + text_width(label, 11) + 14

    def _text(self, xy: tuple[float, float], text: str, anchor: str, size: int = 11) -> None:
        self.draw.text(xy, text, fill=INK, font=font_for(text, size), anchor=anchor)

    def axes(self, ahead_name: str, side_name: str, *, sign: int) -> None:
        """Frame, ticks and labels; the sideways axis grows to the left (sign 1) or to the right (-1)."""
        left, top = self.origin
        right, bottom = left + self.width, top + self.height
        for value in _ticks(*self.ahead_m, self.height):
            row = top + (self.ahead_m[1] - value) * self.scale
            self.draw.line((left - 4, row, left, row), fill=INK)
            self._text((left - 6, row), f"{value:g}", "rm")
        for value in _ticks(*self.left_m, self.width):
            column = left + (self.left_m[1] - value) * self.scale
            self.draw.line((column, bottom, column, bottom + 4), fill=INK)
            self._text((column, bottom + 6), f"{sign * value or 0:g}", "ma")
        self.draw.rectangle((left, top, right, bottom), outline=GREY)
        self._text((left + self.width / 2, bottom + 21), side_name, "ma")
        self._text((4, top - 12), ahead_name, "ls")

    def ego(self, centre_m: float) -> None:
        """The vehicle's outline with a nose that points ahead."""
        left, top = self.origin
        column = left + self.left_m[1] * self.scale
        row = top + (self.ahead_m[1] - centre_m) * self.scale
        half_length, half_width = EGO_LENGTH_M * self.scale / 2, max(EGO_WIDTH_M * self.scale / 2, 2)
        box = (column - half_width, row - half_length, column + half_width, row + half_length)
        self.draw.rectangle(box, fill=LIGHT, outline=INK, width=2)
        nose = [(column, box[1]), (box[0], box[1] + half_width * 1.5), (box[2], box[1] + half_width * 1.5)]
        self.draw.polygon(nose, fill=INK)
