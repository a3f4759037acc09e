"""A picture of the views that an answer comes from: each view with a bar of what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.core.panorama import View
from omma.systems.panollava.viz import draw_lines, view_name
from omma.viz.image import GREY, WHITE, Image, Tile, panel

HELPS, HARMS = (0, 114, 178), (213, 94, 0)
_WIDTH, _MOST, _BAR = 1200, 8, (100, 140)
_SMALLEST = 1e-3  # rise of the loss that fills the height


def draw_attribution(
    views: NDArray[np.uint8],
    layout: Sequence[View | None],
    drops: Sequence[float],
    *,
    title: str,
    lines: Sequence[str],
) -> Image:
    """Draw one question's views.

    Args:
        views: (V, h, w, 3).
        layout: where they look.
        drops: rise of the answer's loss without each view.
        title: first line.
        lines: question and answers.

    Returns:
        (H, 1200, 3) uint8 RGB.
    """
    tiles = [Tile(view, view_name(where)) for view, where in zip(views, layout, strict=True)]
    low, high = min(0.0, *drops), max(0.0, *drops)
    reach = max(_SMALLEST, high - low)
    bars = [Tile(_bar(drop / reach, zero=high / reach), f"{drop:+.3f}") for drop in drops]
    rows = []
    for start in range(0, len(tiles), _MOST):
        rows += [tiles[start : start + _MOST], bars[start : start + _MOST]]
    legend = "bars: rise of the loss of the expected answer when a view is grey (blue: the view helps)"
    return np.concatenate(
        [panel(rows, width=_WIDTH, title=title), draw_lines([*lines, legend], width=_WIDTH)]
    )


def _bar(share: float, *, zero: float) -> Image:
    """A bar of a share of the height, from a line that is so far below the top."""
    height, width = _BAR
    image: Image = np.full((height, width, 3), WHITE, np.uint8)
    line = round(zero * (height - 1))
    top, bottom = sorted((line, line - round(share * (height - 1))))
    image[top:bottom, width // 4 : -width // 4] = HELPS if share > 0 else HARMS
    image[line] = GREY
    return image
