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
    tiles = [Tile(picture, "image")]
    if number:
        tiles.append(_depth_tile(given, scale, f"given: {number} depths, {percent(share)} of the pixels"))
    if (true > 0).any():
        tiles.append(_depth_tile(true, scale, "true"))
    rows = _run_rows(predictions, scale)
    rows = [tiles + rows[0]] if len(tiles) == len(rows) == 1 else [tiles, *rows]
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


def _run_rows(predictions: Sequence[tuple[str, Prediction]], scale: ColourScale) -> list[list[Tile]]:
    """Each run's depth, and its error where there is something to compare with; errors share a scale too."""
    errors = [_error(prediction) for _, prediction in predictions]
    values = np.concatenate([error[np.isfinite(error)] for error in errors])
    highest = float(np.percentile(values, _ENDS[1])) if values.size else 0.0
    error_scale = ColourScale(0.0, highest or 1e-6, name="inferno")
    tested = (predictions[0][1].arrays["depth"] > 0).any()
    kind = "error" if tested else "error at the given points, no test"
    rows = []
    for (name, prediction), error in zip(predictions, errors, strict=True):
        head = f"{name}: " if name else ""
        rows.append([_found_tile(head, prediction, scale)])
        if np.isfinite(error).any():
            rows[-1].append(_error_tile(error, error_scale, f"{head}{kind}"))
    return rows


def _found_tile(head: str, prediction: Prediction, scale: ColourScale) -> Tile:
    found = prediction.arrays["prediction"][0]
    caption = f"{head}predicted"
    if nothing := float((found <= 0).mean()):
        caption += f", {100 * nothing:.2g} % not above 0 (dark)"
    if prediction.meta["keep_input"] and prediction.meta["given"]:
        caption += ", given depths kept"
    return _depth_tile(found, scale, caption)


def _error(prediction: Prediction) -> NDArray[np.floating]:
    """Absolute error (H, W) in metres, NaN where none is known: of the true depth, else of the given."""
    found, true, given = (prediction.arrays[key][0] for key in ("prediction", "depth", "point"))
    if not (true > 0).any():
        true = np.zeros_like(given) if prediction.meta["keep_input"] else given
    return np.where(true > 0, np.abs(found - true), np.nan)


def _error_tile(error: NDArray[np.floating], scale: ColourScale, caption: str) -> Tile:
    # where dots meet, the largest error is the one to see
    drawn = -enlarge_points(-error)
    image = colour_map(drawn, name=scale.name, lowest=scale.low, highest=scale.high, missing=GREY)
    return Tile(image, f"{caption}: mean {np.nanmean(error):.3g} m", scale)


def percent(share: float) -> str:
    """A share in per cent with two digits, such as "0.024 %", or "100 %"."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
