"""How a prediction is drawn: picture, given depth, true depth, and each run's depth and error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.engine.task import Prediction
from omma.systems.g2_monodepth.sheet import draw_depth, enlarge_points
from omma.viz.image import GREY, Image, Tile, colour_map, panel
from omma.viz.scale import ColourScale

_WIDTH, _ROW_HEIGHT = 1280, 440
_WIDE = 2.0  # pictures of such an aspect stand one below the other
_ENDS = (1, 99)  # percentiles of the first and the last colour, so that a few far points do not take them all


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one picture as several runs see it; all depths share one scale of colours.

    Where no depth is true, the error is that at the given points, if there are any.

    Args:
        predictions: (run name, prediction) pairs of the same picture.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    first = predictions[0][1]
    true, given = first.arrays["depth"][0], first.arrays["point"][0]
    scale = _scale([prediction.arrays["prediction"][0] for _, prediction in predictions], true, given)
    share, number = (given > 0).mean(), int((given > 0).sum())
    picture = np.ascontiguousarray(first.arrays["rgb"].transpose(1, 2, 0))
    text = f"given: {number} depths, {share:.2%} of the pixels" if number else "given: no depth"
    rows = [[Tile(picture, "image"), _depth_tile(given, scale, text)]]
    if (true > 0).any():
        rows[0].append(_depth_tile(true, scale, "true"))
    rows += [_run_row(name, prediction, scale) for name, prediction in predictions]
    if picture.shape[1] / picture.shape[0] >= _WIDE:
        rows = [[tile] for row in rows for tile in row]
    kind = "metric" if first.meta["metric"] else "relative, no depth was given: the metres are a guess"
    title = f"{first.meta['token']}, {kind}"
    return panel(rows, width=_WIDTH, title=title, max_row_height=_ROW_HEIGHT)


def _scale(found: Sequence[NDArray[np.floating]], true: NDArray, given: NDArray) -> ColourScale:
    """Colours over the true depths, or, where there are none, over the given and the predicted ones."""
    maps = [true] if (true > 0).any() else [given, *found]
    known = [depth[np.isfinite(depth) & (depth > 0)] for depth in maps]
    ends = [np.percentile(values, _ENDS) for values in known if values.size]
    if not ends:
        return ColourScale(0.0, 1.0)
    return ColourScale(float(min(low for low, _ in ends)), float(max(high for _, high in ends)))


def _depth_tile(depth: NDArray[np.floating], scale: ColourScale, caption: str) -> Tile:
    return Tile(draw_depth(depth, scale.low, scale.high), caption, scale)


def _run_row(name: str, prediction: Prediction, scale: ColourScale) -> list[Tile]:
    """A run's depth, and its error where there is something to compare with."""
    found, true, given = (prediction.arrays[key][0] for key in ("prediction", "depth", "point"))
    head = f"{name}: " if name else ""
    nothing = float((found <= 0).mean())
    caption = f"{head}predicted" + (f", {nothing:.1%} not above 0 (dark)" if nothing else "")
    tiles = [_depth_tile(found, scale, caption)]
    if (true > 0).any():
        tiles.append(_error_tile(found, true, f"{head}error"))
    elif prediction.meta["keep_input"]:
        tiles[0] = _depth_tile(found, scale, f"{caption}, given depths kept")
    elif (given > 0).any():
        tiles.append(_error_tile(found, given, f"{head}error at the given points, no test"))
    return tiles


def _error_tile(found: NDArray[np.floating], against: NDArray[np.floating], caption: str) -> Tile:
    error = np.where(against > 0, np.abs(found - against), np.nan)
    values = error[np.isfinite(error)]
    highest = float(np.percentile(values, 98)) if values.size else 0.0
    scale = ColourScale(0.0, highest or 1e-6, name="inferno")
    # the largest error of the points that meet is the one to see
    drawn = -enlarge_points(-error)
    image = colour_map(drawn, name=scale.name, lowest=0.0, highest=scale.high, missing=GREY)
    mean = f"mean {values.mean():.3g} m" if values.size else "unknown"
    return Tile(image, f"{caption}: {mean}", scale)
