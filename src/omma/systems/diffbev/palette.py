"""Colours of label maps: later classes are painted over earlier ones, cells that do not count over all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.viz.image import Colour, Image

BACKGROUND: Colour = (0, 0, 0)
IGNORED: Colour = (0x30, 0x30, 0x30)
COLOURS: Sequence[Colour] = tuple(
    (value >> 16, value >> 8 & 0xFF, value & 0xFF)
    for value in (
        *(0xA6CEE3, 0x1F78B4, 0xB2DF8A, 0x33A02C),  # what the map has
        *(0xFB9A99, 0xE31A1C, 0xFDBF6F, 0xFF7F00, 0xCAB2D6),  # vehicles
        *(0x6A3D9A, 0x7E772E, 0x00FF00, 0x0000FF, 0x00FFFF),  # all else
    )
)


def paint(masks: NDArray[Any], ignored: NDArray[Any]) -> Image:
    """Colour a label map.

    Args:
        masks: (K, Z, X) booleans, at most 14 classes; row 0 is nearest.
        ignored: (Z, X) booleans, cells that do not count.

    Returns:
        (Z, X, 3) uint8 RGB, rows as they were.
    """
    painted = np.empty((*ignored.shape, 3), np.uint8)
    painted[:] = BACKGROUND
    for mask, colour in zip(masks, COLOURS, strict=False):
        painted[mask.astype(bool)] = colour
    painted[ignored.astype(bool)] = IGNORED
    return painted
