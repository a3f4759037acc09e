"""How a prediction is drawn: the image, the ground truth and each run's map, all with one palette."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from omma.engine.task import Prediction
from omma.systems.diffbev.palette import COLOURS, IGNORED, paint
from omma.viz.bev import draw_camera_bev
from omma.viz.image import Image, Tile, panel


@dataclass(frozen=True)
class Look:
    """How samples are drawn.

    Args:
        threshold: cells of a higher probability than this are painted.
        size: (width, height) in pixels that the picture has at most; None: as its columns need.
    """

    threshold: float = 0.5
    size: tuple[int, int] | None = None


_LOOK: ContextVar[Look] = ContextVar("look", default=Look())  # noqa: B039  it is frozen
_HEAD = 84  # pixels of a picture besides its columns


@contextmanager
def drawn_as(look: Look) -> Iterator[None]:
    """Draw samples in this way inside the block."""
    before = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(before)


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one image as several runs see it.

    Columns: the image, ground truth where there is one, then the runs. In the maps the far end is at the top,
    a later class is painted over an earlier one, and cells that do not count are dark grey in all columns.

    Args:
        predictions: (run name, prediction) pairs of the same image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    look = _LOOK.get()
    first = predictions[0][1]
    visible = first.arrays.get("visible")
    above = np.log(look.threshold) - np.log1p(-look.threshold)
    maps = {name or "prediction": prediction.arrays["logits"] > above for name, prediction in predictions}
    if "target" in first.arrays:
        maps = {"ground truth": first.arrays["target"], **maps}
    if visible is None:
        visible = np.ones(first.arrays["logits"].shape[1:], bool)
    legend = _legend(first.meta["classes"], list(maps.values()), visible)
    ranges = {"z_range_m": tuple(first.meta["z"][:2]), "x_range_m": tuple(first.meta["x"][:2])}
    image = np.ascontiguousarray(first.arrays["image"].transpose(1, 2, 0))
    tiles = [Tile(image, first.meta["channel"] or "image")]
    tiles += [
        Tile(draw_camera_bev(paint(found, ~visible), title=title, legend=legend, **ranges))
        for title, found in maps.items()
    ]
    title = f"{first.meta['token']}, probability > {look.threshold:g}"
    width, height = look.size or (400 * len(tiles) + 200, 520 + _HEAD)
    return panel([tiles], width=width, title=title, max_row_height=max(height - _HEAD, 1))


def _legend(
    classes: Sequence[str], maps: Sequence[np.ndarray], visible: np.ndarray
) -> list[tuple[str, tuple[int, int, int]]]:
    """The classes that any map shows, and the colour of cells that do not count if there are any."""
    shown = [
        (name, COLOURS[index])
        for index, name in enumerate(classes)
        if any((found[index] & visible).any() for found in maps)
    ]
    return shown if visible.all() else [*shown, ("does not count", IGNORED)]
