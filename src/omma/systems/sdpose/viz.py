"""How people are drawn: the crop with the annotated joints, and with each run's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.engine.task import Prediction
from omma.viz.image import Image, Tile, panel
from omma.viz.skeleton import draw_skeleton

SEEN_FROM = 0.2  # height of a peak from which a joint is drawn full
_HEIGHT = 512


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one person as annotated and as several runs see it; joints of low peaks are hollow.

    Args:
        predictions: (run name, prediction) pairs of the same person.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    first = predictions[0][1].arrays
    crop = np.ascontiguousarray(first["image"].transpose(1, 2, 0))
    tiles = []
    if "true_in_crop" in first:
        sure = ~first["hidden"]
        tiles.append(_tile("annotated", crop, first["true_in_crop"], first["visible"] > 0, sure))
    for name, prediction in predictions:
        joints, scores = prediction.arrays["in_crop"], prediction.arrays["scores"]
        head = f"{name}: " if name else ""
        caption = f"{head}predicted, mean peak {scores.mean():.2f}"
        tiles.append(_tile(caption, crop, joints, scores > 0, scores > SEEN_FROM))
    title = str(predictions[0][1].meta["token"])
    return panel([tiles], width=420 * len(tiles), title=title, max_row_height=_HEIGHT)


def _tile(
    caption: str,
    crop: Image,
    joints: NDArray[np.floating],
    shown: NDArray[np.bool_],
    sure: NDArray[np.bool_],
) -> Tile:
    return Tile(draw_skeleton(crop, joints, shown=shown, sure=sure, height=_HEIGHT), caption)
