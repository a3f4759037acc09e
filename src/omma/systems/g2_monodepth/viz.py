"""How a prediction is drawn: picture, given depth, true depth, and each run's depth and error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omma.engine.task import Prediction
from omma.systems.g2_monodepth.sheet import draw_depth
from omma.viz.image import Image, Tile, colour_map, panel


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one picture as several runs see it; all depths share the colours of the true depth's range.

    Args:
        predictions: (run name, prediction) pairs of the same picture.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    first = predictions[0][1].arrays
    true, given = first["depth"][0], first["point"][0]
    known = true if (true > 0).any() else first["prediction"][0]
    low, high = float(known[known > 0].min(initial=np.inf)), float(known.max())
    low = min(low, high)
    rows = [
        [
            Tile(np.ascontiguousarray(first["rgb"].transpose(1, 2, 0)), "image"),
            Tile(draw_depth(given, low, high), f"given, {(given > 0).mean():.2%} of the pixels"),
        ]
    ]
    if (true > 0).any():
        rows[0].append(Tile(draw_depth(true, low, high), f"true, {low:.3g} to {high:.3g} m"))
    rows += [_run_row(name, prediction, low, high) for name, prediction in predictions]
    return panel(rows, width=1280, title=str(predictions[0][1].meta["token"]), max_row_height=440)


def _run_row(name: str, prediction: Prediction, low: float, high: float) -> list[Tile]:
    """A run's depth, and where there is truth its error."""
    found, true = prediction.arrays["prediction"][0], prediction.arrays["depth"][0]
    head = f"{name}: " if name else ""
    tiles = [Tile(draw_depth(found, low, high), f"{head}predicted, {low:.3g} to {high:.3g} m")]
    if (true > 0).any():
        error = np.where(true > 0, np.abs(found - true), np.nan)
        largest = float(np.nanquantile(error, 0.98)) or 1e-6
        tiles.append(
            Tile(
                colour_map(error, name="inferno", lowest=0.0, highest=largest, missing=(24, 24, 24)),
                f"{head}error, mean {np.nanmean(error):.3g} m, brightest {largest:.3g} m",
            )
        )
    return tiles
