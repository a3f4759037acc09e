"""How a prediction is drawn: the views of the panorama, the question, and each run's answer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.panorama import View
from omma.engine.task import Prediction
from omma.viz.image import Image, Tile, colour_map, draw_text, panel, resize_map

_WIDTH, _LINE, _LETTERS, _MOST, _SQUARE = 1200, 22, 140, 8, 45


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one question as several runs answer it.

    Args:
        predictions: (run name, prediction) pairs of the same question.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    first = predictions[0][1]
    views = first.arrays["views"].transpose(0, 2, 3, 1)
    names = first.meta["views"]
    tiles = [Tile(np.ascontiguousarray(view), name) for view, name in zip(views, names, strict=True)]
    rows = [tiles[start : start + _MOST] for start in range(0, len(tiles), _MOST)]
    likeness = [
        _likeness(name, run.arrays["likeness"]) for name, run in predictions if "likeness" in run.arrays
    ]
    picture = panel(rows, width=_WIDTH, title=str(first.meta["token"]))
    if likeness:
        return np.concatenate([picture, panel([likeness], width=_WIDTH, max_row_height=360)])
    return np.concatenate([picture, draw_lines(_lines(first.meta, predictions), width=_WIDTH)])


def view_name(view: View | None, turn_deg: float = 0.0) -> str:
    """Where a view looks on a panorama whose front was turned by so much, such as "yaw 45°"."""
    if view is None:
        return "whole"
    yaw = 180 - (180 - view.yaw_deg - turn_deg) % 360
    pitch = f", pitch {view.pitch_deg:.0f}°" if view.pitch_deg else ""
    return f"yaw {round(yaw)}°{pitch}"


def _likeness(name: str, cosines: NDArray[np.floating]) -> Tile:
    """Cosines (V, V) of the views' mean tokens as squares, the first view at the top left."""
    lowest = float(cosines.min())
    side = _SQUARE * len(cosines)
    squares = resize_map(colour_map(cosines, name="viridis", lowest=lowest, highest=1.0), side, side)
    return Tile(squares, f"{name} cosine of views' tokens, {lowest:.2f} to 1".strip())


def _lines(meta: dict[str, Any], predictions: Sequence[tuple[str, Prediction]]) -> Iterable[str]:
    yield f"question: {meta['query']}"
    for name, prediction in predictions:
        yield f"{name or 'answer'}: {prediction.meta['answer'] or '(nothing)'}"
    for reference in meta["references"][:_MOST]:
        yield f"reference: {reference}"


def draw_lines(lines: Iterable[str], *, width: int) -> Image:
    """Lines of text one below the other, long ones broken, as (H, width, 3)."""
    letters = round(_LETTERS * width / _WIDTH)
    wrapped = [part for line in lines for part in textwrap.wrap(line, letters) or [""]]
    image: Image = np.full((_LINE * (len(wrapped) + 1), width, 3), 255, np.uint8)
    for number, line in enumerate(wrapped):
        image = draw_text(image, line, (16, 4 + number * _LINE))
    return image
