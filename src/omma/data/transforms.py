"""Joint changes of an image and its camera matrices, and of a bird's-eye-view label and the ego frame.

An image change is resize, crop, mirror, rotate, in this order (LSS, arXiv 2008.05711). What it does to pixels
is uv' = A uv + b; intrinsics stay as they are stored, A and b travel as `post_rots` and `post_trans`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from omma.core.grid import BevGrid
from omma.core.poses import image_augmentation_matrix

Size = tuple[int, int]
Range = tuple[float, float]


class Random(Protocol):
    """The two draws that are needed; `numpy.random.Generator` and `RandomState` have them."""

    def uniform(self, low: float, high: float) -> float:
        """A number of [low, high)."""
        ...

    def choice(self, a: Any) -> Any:
        """One of the elements."""
        ...


@dataclass(frozen=True)
class ImageChange:
    """One draw: scale the source image, cut a window out of it, mirror and rotate the window.

    Args:
        scale: factor of the source size.
        resized: (H, W) of the scaled source image.
        crop: left, top, right, bottom in the scaled source image; what lies outside is black.
        flip: mirrored left to right.
        rotate_deg: counter-clockwise on the screen about the window's centre.
    """

    scale: float
    resized: Size
    crop: tuple[int, int, int, int]
    flip: bool = False
    rotate_deg: float = 0.0


def validation_scale(source_size: Size, image_size: Size) -> float:
    """The smallest scale at which the source covers the image."""
    return max(image_size[0] / source_size[0], image_size[1] / source_size[1])


def draw_image_change(
    rng: Random,
    source_size: Size,
    image_size: Size,
    *,
    scale: Range,
    bottom_crop: Range = (0.0, 0.0),
    rotate_deg: Range = (0.0, 0.0),
    flip: bool = False,
) -> ImageChange:
    """A random change for training, drawn in the reference's order: scale, bottom, left, flip, angle.

    Args:
        rng: where the draws come from.
        source_size: (H, W) that scales are relative to.
        image_size: (H, W) of the result.
        scale: range of the factor of the source size.
        bottom_crop: range of the share of the scaled rows that is cut off the bottom.
        rotate_deg: range of the rotation in degrees.
        flip: whether half of the results are mirrored.
    """
    factor = float(rng.uniform(*scale))
    height, width = _scaled(source_size, factor)
    top = int((1 - rng.uniform(*bottom_crop)) * height) - image_size[0]
    left = int(rng.uniform(0, max(0, width - image_size[1])))
    mirrored = bool(rng.choice([0, 1])) if flip else False
    angle = float(rng.uniform(*rotate_deg))
    window = (left, top, left + image_size[1], top + image_size[0])
    return ImageChange(factor, (height, width), window, mirrored, angle)


def central_image_change(source_size: Size, image_size: Size, bottom_crop: Range = (0.0, 0.0)) -> ImageChange:
    """The change for validation: smallest covering scale, middle columns, bottom rows, nothing random."""
    factor = validation_scale(source_size, image_size)
    height, width = _scaled(source_size, factor)
    top = int((1 - sum(bottom_crop) / 2) * height) - image_size[0]
    left = int(max(0, width - image_size[1]) / 2)
    return ImageChange(factor, (height, width), (left, top, left + image_size[1], top + image_size[0]))


def _scaled(size: Size, factor: float) -> Size:
    return int(size[0] * factor), int(size[1] * factor)


@dataclass(frozen=True)
class PlacedChange:
    """An ImageChange brought onto a file of a certain size.

    Args:
        resized: (H, W) that the whole file is resized to.
        scale: recorded factors (x, y) from file pixels to resized pixels.
        crop: left, top, right, bottom in the resized file.
        flip: mirrored left to right.
        rotate_deg: counter-clockwise on the screen about the window's centre.
    """

    resized: Size
    scale: tuple[float, float]
    crop: tuple[int, int, int, int]
    flip: bool
    rotate_deg: float

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The changed image, (h, w, 3) uint8; `image` is the file's content, decoded at any size."""
        window = crop_image(resize_image(image, self.resized), self.crop)
        if self.flip:
            window = window[:, ::-1]
        return rotate_image(window, self.rotate_deg) if self.rotate_deg else window

    def matrices(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`post_rot` (3, 3) and `post_tran` (3,): uv' = A uv + b in the upper left of identity and zero."""
        A, b = image_augmentation_matrix(self.scale, self.crop, self.flip, self.rotate_deg)
        rotation, translation = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
        rotation[:2, :2], translation[:2] = A, b
        return rotation, translation


def resized_file(change: ImageChange, top_crop: int) -> Size:
    """(H, W) that a whole file is resized to: the scaled source and the rows cut off above it."""
    return change.resized[0] + round(top_crop * change.scale), change.resized[1]


def place_image_change(
    change: ImageChange,
    *,
    file_size: Size,
    source_size: Size,
    top_crop: int = 0,
    nominal_scale: bool = False,
) -> PlacedChange:
    """Bring a change onto a file: the source is the file resized to its width, less rows cut off the top.

    Args:
        change: drawn for `source_size`.
        file_size: (H, W) of the file; intrinsics belong to it.
        source_size: (H, W) that the change is relative to.
        top_crop: rows between the file's top and the source's, counted at source size.
        nominal_scale: record the drawn factor, as the reference does, instead of the true one; as sizes are
            whole numbers, they differ by less than a pixel over the image.
    """
    resized = resized_file(change, top_crop)
    top = resized[0] - change.resized[0]
    left, upper, right, lower = change.crop
    if nominal_scale:
        nominal = (source_size[0] + top_crop, source_size[1])
        factors = [change.scale * (whole / stored) for whole, stored in zip(nominal, file_size, strict=True)]
    else:
        factors = [whole / stored for whole, stored in zip(resized, file_size, strict=True)]
    return PlacedChange(
        resized=resized,
        scale=(factors[1], factors[0]),
        crop=(left, upper + top, right, lower + top),
        flip=change.flip,
        rotate_deg=change.rotate_deg,
    )


def resize_image(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Antialiased bicubic resize of (H, W, C) uint8 to (H, W) `size`; within one grey level of Pillow's."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1)
    resized = F.resize(planes, list(size), InterpolationMode.BICUBIC, antialias=True)
    return resized.permute(1, 2, 0).numpy()


def crop_image(image: NDArray[Any], crop: tuple[int, int, int, int]) -> NDArray[Any]:
    """The window (left, top, right, bottom) of (H, W, C), black where it reaches outside."""
    left, top, right, bottom = crop
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (bottom - top, right - left):
        return inside
    window = np.zeros((bottom - top, right - left, *image.shape[2:]), image.dtype)
    y, x = max(-top, 0), max(-left, 0)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return window


def rotate_image(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotation counter-clockwise about the centre, nearest neighbour, black outside, size kept."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).rotate(degrees))


def draw_ego_change(rng: Random, *, rotate_deg: float, flip: bool) -> NDArray[np.float64]:
    """A random turn of the ego frame about z, with mirrored x or y axis half of the time each if `flip`.

    Returns:
        (3, 3): changed_R_ego. Poses become `changed_R_ego @ ego_T_cam`, labels `resample_label`.
    """
    angle = math.radians(float(rng.uniform(-rotate_deg, rotate_deg)))
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    signs = [1 - 2 * int(rng.choice([0, 1])) for _ in range(2)] if flip else [1, 1]
    return np.diag([*signs, 1.0]) @ turn


def resample_label(label: NDArray[Any], grid: BevGrid, changed_R_ego: NDArray[np.float64]) -> NDArray[Any]:
    """A label (C, X, Y) in the changed ego frame: each cell takes the nearest old one, 0 outside the grid."""
    centres = np.stack(np.meshgrid(grid.centres("x"), grid.centres("y"), indexing="ij"), axis=-1)
    old = centres @ changed_R_ego[:2, :2]  # the inverse of an orthogonal matrix is its transpose
    index = np.floor((old - [grid.x[0], grid.y[0]]) / [grid.x[2], grid.y[2]] + 1e-9).astype(np.int64)
    inside = ((index >= 0) & (index < grid.nx[:2])).all(-1)
    row, column = (np.where(inside, index[..., axis], 0) for axis in (0, 1))
    return np.where(inside, label[:, row, column], 0).astype(label.dtype)


def masks_to_grid(masks: NDArray[Any], cell_m: float, grid: BevGrid) -> NDArray[Any]:
    """Square masks around the ego vehicle, sampled at the centres of the grid's cells.

    Equal cell sizes give the centre crop; others the nearest cell. What the masks do not cover is 0.

    Args:
        masks: (C, d, d) in Lift-Splat orientation (axis 1 along +x, axis 2 along +y), ego in the middle.
        cell_m: size of a cell of the masks in metres.
        grid: the cells wanted.

    Returns:
        (C, X, Y) of the type of `masks`.
    """
    axes = []
    for axis, cells in zip("xy", masks.shape[1:], strict=True):
        # counted from the far end, as in SimBEV's own rows and columns
        from_far_end = np.floor((cells * cell_m / 2 - grid.centres(axis)) / cell_m + 1e-9).astype(np.int64)
        axes.append(cells - 1 - from_far_end)
    inside = [(index >= 0) & (index < cells) for index, cells in zip(axes, masks.shape[1:], strict=True)]
    picked = masks[:, np.where(inside[0], axes[0], 0)[:, None], np.where(inside[1], axes[1], 0)[None]]
    return np.where(inside[0][:, None] & inside[1][None], picked, 0).astype(masks.dtype)


def fill_boxes(corners_xy: NDArray[np.floating], grid: BevGrid) -> NDArray[np.uint8]:
    """Occupied cells of upright boxes, drawn as the official nuScenes target is.

    Corners go to the nearest cell and the outline is filled inclusively: boxes come out about a cell larger.

    Args:
        corners_xy: (M, 4, 2) corners in order around each box, ego frame, metres.
        grid: the cells.

    Returns:
        (X, Y) uint8, 1 inside a box; axis 0 along +x.
    """
    image = np.zeros(grid.nx[:2], np.uint8)
    lower, step = np.array([grid.x[0], grid.y[0]]), np.array(grid.dx[:2])
    for corners in np.round((corners_xy - lower) / step).astype(np.int32):
        cv2.fillPoly(image, [corners[:, ::-1].copy()], 1)
    return image
