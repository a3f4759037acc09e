"""A person's box as a crop of fixed size: centre, scale (in units of 200 pixels), matrix and pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Points = NDArray[np.float32]

UNIT_PX = 200.0


def place_box(box: NDArray[np.floating], size: Size, padding: float) -> tuple[Points, Points]:
    """The centre and the scale of a crop that holds a box.

    Args:
        box: (4,) x, y, width, height in pixels.
        size: (H, W) of the crop, whose aspect the box is widened to.
        padding: crop side over box side.

    Returns:
        center (2,) x, y in pixels and scale (2,) width, height over 200 pixels, float32.
    """
    x, y, width, height = (float(value) for value in box)
    aspect = size[1] / size[0]
    center = np.array([x + 0.5 * width, y + 0.5 * height], np.float32)
    sides = np.array([max(width, aspect * height), max(height, width / aspect)])
    return center, (sides / UNIT_PX).astype(np.float32) * np.float32(padding)


def crop_matrix(
    center: NDArray[np.floating],
    scale: NDArray[np.floating],
    size: Size,
    *,
    rotation_deg: float = 0.0,
    udp: bool = False,
) -> NDArray[np.float64]:
    """The matrix from pixels of the image to those of the crop.

    The crop's width fixes the size; its height follows.

    Args:
        center: (2,) x, y of the crop's centre in the image.
        scale: (2,) width and height of the crop in the image over 200 pixels.
        size: (H, W) of the crop.
        rotation_deg: of the crop in the image, clockwise on the screen.
        udp: whether the first and the last pixel, not their outer edges, lie on the crop's border.

    Returns:
        (2, 3) float64.
    """
    height, width = (length - 1 if udp else length for length in size)
    angle = np.deg2rad(rotation_deg)
    reach = -0.5 * float(scale[0] * UNIT_PX)  # in the precision of the scale, as the reference
    source = _corner(np.asarray(center, np.float64), np.array([-np.sin(angle), np.cos(angle)]) * reach)
    target = _corner(np.array([0.5 * width, 0.5 * height]), np.array([0.0, -0.5 * width]))
    return cv2.getAffineTransform(source, target)


def _corner(first: NDArray[np.float64], arm: NDArray[np.float64]) -> Points:
    """Three points (3, 2): one, one an arm away, and one that makes a right angle of equal sides there."""
    points = np.zeros((3, 2), np.float32)
    points[0], points[1] = first, first + arm
    back = points[0] - points[1]
    points[2] = points[1] + np.array([-back[1], back[0]], np.float32)
    return points


def move_points(points: NDArray[np.floating], matrix: NDArray[np.float64]) -> Points:
    """Points (..., 2) times a matrix (2, 3), float32."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def cut(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: Size) -> NDArray[np.uint8]:
    """The crop (H, W, 3) of an image, bilinear, black outside."""
    return cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
