"""Poses, pinhole projection and image transforms in NumPy, for readers, drawing and checks.

A pose is named to_T_from: `xyz_ego = ego_T_cam @ xyz_cam`. Ego: x forward, y left, z up. Camera: x right,
y down, z forward. Metres and pixels. Users: lss, diffbev, viz, world.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def rotation_from_quaternion(wxyz: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrix (..., 3, 3) of a quaternion (..., 4) in the order (w, x, y, z), of any length but 0."""
    q = np.asarray(wxyz, np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    entries = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in entries], axis=-2)


def pose(rotation: ArrayLike, translation: ArrayLike) -> NDArray[np.float64]:
    """a_T_b (..., 4, 4) of a rotation (..., 3, 3) and the position of b's origin in a (..., 3)."""
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., :3, :3], matrix[..., :3, 3], matrix[..., 3, 3] = rotation, translation, 1.0
    return matrix


def invert_rigid(a_T_b: ArrayLike) -> NDArray[np.float64]:
    """b_T_a of a rotation and translation (..., 4, 4), by transposing: R' = R^T, t' = -R^T t."""
    matrix = np.asarray(a_T_b, np.float64)
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return pose(rotation, -(rotation @ matrix[..., :3, 3, None])[..., 0])


def transform_points(a_T_b: Array, xyz_b: Array) -> Array:
    """Points (..., 3) of frame b in frame a; `a_T_b` (4, 4)."""
    return xyz_b @ a_T_b[:3, :3].T + a_T_b[:3, 3]


def project_points(intrinsics: Array, xyz_cam: Array) -> tuple[Array, Array]:
    """Pixels (..., 2) as (u, v) and depths (...,) in metres of camera-frame points (..., 3).

    A point with depth <= 0 lies behind the camera and its pixel means nothing: test with `in_image`.
    """
    depth_m = xyz_cam[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = (xyz_cam @ intrinsics.T)[..., :2] / depth_m[..., None]
    return uv, depth_m


def unproject_points(intrinsics: Array, uv: Array, depth_m: Array) -> Array:
    """Camera-frame points (..., 3) of pixels (..., 2) at depths (...,) in metres along the optical axis."""
    pixels = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1)
    return pixels @ np.linalg.inv(intrinsics).T * depth_m[..., None]


def in_image(uv: Array, depth_m: Array, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether projected points (..., 2) lie in front of the camera and inside an image of (height, width)."""
    height, width = image_size
    u, v = uv[..., 0], uv[..., 1]
    return (depth_m > 0) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)


def image_augmentation_matrix(
    scale: tuple[float, float],
    crop: tuple[float, float, float, float],
    flip: bool = False,
    rotate_deg: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What resizing, cropping, mirroring and rotating (in this order) do to a pixel: uv' = A uv + b.

    Args:
        scale: new width / file width and new height / file height; they differ where the aspect changes.
        crop: (left, top, right, bottom) in pixels of the resized image.
        flip: mirrored left to right after the crop.
        rotate_deg: rotation about the centre of the crop, counter-clockwise on the screen.

    Returns:
        A (2, 2) and b (2,): the upper left of `post_rots` and the head of `post_trans`.
    """
    left, top, right, bottom = crop
    size = np.array([right - left, bottom - top], np.float64)
    A, b = np.diag(np.asarray(scale, np.float64)), -np.array([left, top], np.float64)
    if flip:
        mirror = np.diag([-1.0, 1.0])
        A, b = mirror @ A, mirror @ b + np.array([size[0], 0.0])
    cos, sin = math.cos(math.radians(rotate_deg)), math.sin(math.radians(rotate_deg))
    rotation, centre = np.array([[cos, sin], [-sin, cos]]), size / 2.0
    return rotation @ A, rotation @ (b - centre) + centre
