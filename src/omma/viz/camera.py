"""Draw into a camera image what lies in the ego frame: bird's-eye-view cells on the ground, and 3D boxes.

Everything is clipped to the view frustum in homogeneous image coordinates before the division by depth, so
that nothing behind the camera comes out mirrored and nothing beside it wraps around.
Frames: ego x forward, y left, z up; camera x right, y down, z forward. Pixel (0, 0) is a pixel's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from omma.viz.bev import PREDICTION, Range
from omma.viz.image import Colour, Image, blend

Points = NDArray[np.float64]

NEAR_M = 0.1
_MARGIN_PX = 8.0
_SUBPIXEL_BITS = 4

BOX_EDGES = tuple((low, low | bit) for bit in (1, 2, 4) for low in range(8) if not low & bit)
FRONT_FACE = (4, 5, 7, 6)


@dataclass(frozen=True)
class CameraView:
    """How ego points reach the pixels of one image.

    Args:
        intrinsics: (3, 3) camera matrix in pixels of the camera's own image.
        cam_T_ego: (4, 4) rigid transform from ego to camera axes, metres.
        img_T_sensor: (3, 3) from the camera's own pixels to those of the image at hand (scale, crop, flip,
            rotation; last row 0 0 1); None if the image is the camera's own.
    """

    intrinsics: Points
    cam_T_ego: Points  # noqa: N815
    img_T_sensor: Points | None = None  # noqa: N815

    def homogeneous(self, xyz_ego: ArrayLike) -> Points:
        """Ego points (..., 3) in metres as (u * depth, v * depth, depth), shape (..., 3)."""
        points = np.asarray(xyz_ego, dtype=np.float64)
        cam = points @ self.cam_T_ego[:3, :3].T + self.cam_T_ego[:3, 3]
        matrix = self.intrinsics if self.img_T_sensor is None else self.img_T_sensor @ self.intrinsics
        return cam @ np.asarray(matrix, dtype=np.float64).T

    def pixels(self, xyz_ego: ArrayLike) -> Points:
        """Ego points (..., 3) as pixels (..., 2) of column and row; NaN for points behind the near plane."""
        uvw = self.homogeneous(xyz_ego)
        depth = np.where(uvw[..., 2:] > NEAR_M, uvw[..., 2:], np.nan)
        return uvw[..., :2] / depth


def _frustum(image: Image) -> Points:
    """Near plane and four sides (5, 3): the product with (u * depth, v * depth, depth) is >= offset."""
    height, width = image.shape[:2]
    return np.array(
        [
            [0, 0, 1],
            [1, 0, _MARGIN_PX],
            [-1, 0, width - 1 + _MARGIN_PX],
            [0, 1, _MARGIN_PX],
            [0, -1, height - 1 + _MARGIN_PX],
        ],
        dtype=np.float64,
    )


_OFFSETS = np.array([NEAR_M, 0, 0, 0, 0])


def _clip_polygon(corners: Points, planes: Points) -> Points:
    """Sutherland-Hodgman: the part (M, 3) of a convex polygon (N, 3) inside all planes; M may be 0."""
    for plane, offset in zip(planes, _OFFSETS, strict=True):
        if not len(corners):
            break
        signed = corners @ plane - offset
        kept = []
        for here, there, at_here, at_there in zip(
            corners, np.roll(corners, -1, axis=0), signed, np.roll(signed, -1), strict=True
        ):
            if at_here >= 0:
                kept.append(here)
            if (at_here >= 0) != (at_there >= 0):
                kept.append(here + (there - here) * (at_here / (at_here - at_there)))
        corners = np.array(kept).reshape(-1, 3)
    return corners


def _clip_segment(ends: Points, planes: Points) -> Points | None:
    """The part (2, 3) of a segment inside all planes, or None."""
    signed = ends @ planes.T - _OFFSETS
    enter, leave = 0.0, 1.0
    for at_start, at_end in signed.T:
        if at_start < 0 and at_end < 0:
            return None
        if (at_start < 0) != (at_end < 0):
            crossing = at_start / (at_start - at_end)
            enter, leave = (max(enter, crossing), leave) if at_start < 0 else (enter, min(leave, crossing))
    if enter >= leave:
        return None
    return ends[0] + np.array([[enter], [leave]]) * (ends[1] - ends[0])


def _fixed_point(uvw: Points) -> NDArray[np.int32]:
    """Pixels in the fixed-point numbers that OpenCV draws with below-pixel accuracy."""
    return np.round(uvw[:, :2] / uvw[:, 2:] * 2**_SUBPIXEL_BITS).astype(np.int32)


def _fill(mask: Image, corners: Points, planes: Points) -> None:
    whole = (corners @ planes.T >= _OFFSETS).all()
    inside = corners if whole else _clip_polygon(corners, planes)
    if len(inside) >= 3:
        cv2.fillConvexPoly(mask, _fixed_point(inside), 255, cv2.LINE_AA, _SUBPIXEL_BITS)


def cell_corners(
    cells: NDArray[np.int64], shape: tuple[int, int], x_range_m: Range, y_range_m: Range
) -> Points:
    """Ground corners of grid cells.

    Args:
        cells: (N, 2) integer indices along x and y.
        shape: number of cells along x and y.
        x_range_m: lowest and highest x of the grid.
        y_range_m: lowest and highest y of the grid.

    Returns:
        (N, 4, 2) x and y in metres, around each cell.
    """
    low = np.array([x_range_m[0], y_range_m[0]])
    step = (np.array([x_range_m[1], y_range_m[1]]) - low) / np.array(shape)
    around = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    return low + (cells[:, None, :] + around) * step


def draw_ground_cells(
    image: Image,
    occupied_xy: ArrayLike,
    view: CameraView,
    *,
    x_range_m: Range,
    y_range_m: Range,
    colour: Colour = PREDICTION,
    opacity: float = 0.5,
    ground_z_m: float = 0.0,
) -> Image:
    """Lay occupied bird's-eye-view cells into a camera image as translucent patches on the ground.

    Args:
        image: (H, W, 3) uint8.
        occupied_xy: (X, Y) booleans, axis 0 along +x, axis 1 along +y.
        view: the camera.
        x_range_m: lowest and highest x of the map.
        y_range_m: lowest and highest y of the map.
        colour: of the patches.
        opacity: in [0, 1].
        ground_z_m: height of the ground in the ego frame.

    Returns:
        a new image.
    """
    occupied = np.asarray(occupied_xy, dtype=bool)
    corners = cell_corners(np.argwhere(occupied), occupied.shape, x_range_m, y_range_m)
    ground = np.concatenate([corners, np.full((*corners.shape[:2], 1), ground_z_m)], axis=-1)
    mask = np.zeros(image.shape[:2], np.uint8)
    planes = _frustum(image)
    quads = view.homogeneous(ground)
    signed = quads @ planes.T - _OFFSETS
    for quad in quads[(signed >= 0).any(axis=1).all(axis=1)]:
        _fill(mask, quad, planes)
    return blend(image, colour, mask * np.float32(opacity / 255))


def draw_boxes(
    image: Image,
    corners_ego: ArrayLike,
    view: CameraView,
    *,
    colours: Sequence[Colour] | Colour = PREDICTION,
    thickness: int = 2,
) -> Image:
    """Draw 3D boxes as wires with a tinted front face.

    Args:
        image: (H, W, 3) uint8.
        corners_ego: (N, 8, 3) metres; corner 4 * xbit + 2 * ybit + zbit has the larger x (front), y (left),
            z (top) of the box's own axes where the bit is 1.
        view: the camera.
        colours: one for all boxes, or one for each.
        thickness: of the lines in pixels.

    Returns:
        a new image.
    """
    boxes = view.homogeneous(np.asarray(corners_ego, dtype=np.float64).reshape(-1, 8, 3))
    each = list(np.broadcast_to(np.array(colours), (len(boxes), 3)).tolist())
    planes = _frustum(image)
    drawn = image.copy()
    for box, colour in zip(boxes, each, strict=True):
        mask = np.zeros(image.shape[:2], np.uint8)
        _fill(mask, box[list(FRONT_FACE)], planes)
        drawn = blend(drawn, colour, mask * np.float32(0.25 / 255))
        for edge in BOX_EDGES:
            ends = _clip_segment(box[list(edge)], planes)
            if ends is not None:
                start, end = _fixed_point(ends)
                cv2.line(drawn, start, end, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return drawn
