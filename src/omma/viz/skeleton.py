"""People's joints and limbs on a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.viz.image import Colour, Image, resize_photo

LEFT: Colour = (31, 119, 232)
RIGHT: Colour = (240, 120, 20)
MIDDLE: Colour = (60, 190, 90)
_JOINTS = 17  # nose, then left and right in turn: eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6)),
    *((5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
_SHIFT = 4  # sixteenths of a pixel


def draw_skeleton(
    image: Image,
    joints: NDArray[np.floating],
    *,
    shown: NDArray[np.bool_] | None = None,
    sure: NDArray[np.bool_] | None = None,
    height: int | None = None,
) -> Image:
    """Draw a person's joints in COCO's order: the person's left blue, the right orange.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        joints: (17, 2) x, y in pixels of the image.
        shown: (17,) which joints and their limbs are drawn; None draws all.
        sure: (17,) which are drawn full, others are hollow and their limbs thin; None: all.
        height: of the result in pixels; None keeps the image's.

    Returns:
        (height, W', 3) uint8.
    """
    shown = np.ones(_JOINTS, bool) if shown is None else shown
    sure = np.ones(_JOINTS, bool) if sure is None else sure
    factor = 1.0 if height is None else height / image.shape[0]
    picture = image if height is None else resize_photo(image, height, round(image.shape[1] * factor))
    picture = picture.copy()
    thick = max(1, round(picture.shape[0] / 150))
    places = [tuple(int(v) for v in np.rint((joint + 0.5) * factor * (1 << _SHIFT))) for joint in joints]
    for first, second in LIMBS:
        if shown[first] and shown[second]:
            width = thick if sure[first] and sure[second] else max(1, thick // 2)
            colour = _colour(first) if _colour(first) == _colour(second) else MIDDLE
            cv2.line(picture, places[first], places[second], colour, width, cv2.LINE_AA, _SHIFT)
    for index in np.flatnonzero(shown):
        radius = (thick + 2) << _SHIFT
        filled = cv2.FILLED if sure[index] else max(1, thick // 2)
        cv2.circle(picture, places[index], radius, (255, 255, 255), filled, cv2.LINE_AA, _SHIFT)
        inner = radius - (1 << _SHIFT) if sure[index] else radius
        cv2.circle(picture, places[index], inner, _colour(index), filled, cv2.LINE_AA, _SHIFT)
    return picture


def _colour(joint: int) -> Colour:
    """Odd joints are the person's left, even ones the right, the nose is neither."""
    if joint == 0:
        return MIDDLE
    return LEFT if joint % 2 else RIGHT
