"""How a prediction is drawn: the views of the panorama, the question, and each run's answer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from omma.engine.task import Prediction
from omma.viz.image import Image, Tile, colour_map, draw_text, panel

_WIDTH, _LINE, _LETTERS, _MOST = 1200, 22, 140, 8


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one question as several runs answer it.

    Args:
        predictions: (run name, prediction) pairs of the same question.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    first = predictions[0][1]
    views = first.arrays["views"].transpose(0, 2, 3, 1)
    tiles = [Tile(np.ascontiguousarray(view), f"view {index}") for index, view in enumerate(views)]
    rows = [tiles[start : start + _MOST] for start in range(0, len(tiles), _MOST)]
    likeness = [
        Tile(colour_map(run.arrays["likeness"], lowest=-1.0, highest=1.0), f"{name} cosine of views' tokens")
        for name, run in predictions
        if "likeness" in run.arrays
    ]
    picture = panel(rows, width=_WIDTH, title=str(first.meta["token"]))
    if likeness:
        return np.concatenate([picture, panel([likeness], width=_WIDTH, max_row_height=360)])
    return np.concatenate([picture, draw_lines(_lines(first.meta, predictions), width=_WIDTH)])


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
