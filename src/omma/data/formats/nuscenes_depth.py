"""Depth ground truth of nuScenes cameras: LiDAR points of the sample, projected into the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, project_points, transform_points

BORDER_PX = 1.0  # points this close to the image's border, or to the camera in metres, are left out


def points_in_camera(
    points: NDArray[np.floating],
    ego_T_lidar: NDArray[np.float64],
    global_T_ego: Sequence[NDArray[np.float64]],
    ego_T_cam: NDArray[np.float64],
) -> NDArray[np.float64]:
    """LiDAR points in a camera's frame, through the vehicle's pose at either time.

    Args:
        points: (P, 3) in the LiDAR frame, metres.
        ego_T_lidar: (4, 4) mounting of the LiDAR.
        global_T_ego: (4, 4) at the LiDAR's and at the camera's time.
        ego_T_cam: (4, 4) mounting of the camera.

    Returns:
        (P, 3) camera frame: x right, y down, z forward.
    """
    at_lidar, at_camera = global_T_ego
    cam_T_lidar = invert_rigid(at_camera @ ego_T_cam) @ at_lidar @ ego_T_lidar
    return transform_points(cam_T_lidar, points.astype(np.float64))


def project_depth(
    points_cam: NDArray[np.floating],
    intrinsics: NDArray[np.float64],
    file_size: tuple[int, int],
    size: tuple[int, int],
    *,
    min_depth: float = 1.0,
    max_depth: float = 50.0,
) -> NDArray[np.float32]:
    """A sparse depth picture; where several points meet, the nearest counts.

    Args:
        points_cam: (P, 3) in the camera's frame, metres.
        intrinsics: (3, 3) in pixels of the image file.
        file_size: (H, W) of the image file.
        size: (H, W) of the result.
        min_depth: nearest depth kept, metres.
        max_depth: farthest depth kept, metres.

    Returns:
        (H, W) float32 depth along the camera's axis in metres, 0 where unknown.
    """
    uv, depth_m = project_points(intrinsics, points_cam)
    kept = (depth_m > BORDER_PX) & (depth_m >= min_depth) & (depth_m <= max_depth)
    for axis, extent in ((0, file_size[1]), (1, file_size[0])):
        kept &= (uv[:, axis] > BORDER_PX) & (uv[:, axis] < extent - BORDER_PX)
    columns = np.floor(uv[kept, 0] * size[1] / file_size[1]).astype(np.int64)
    rows = np.floor(uv[kept, 1] * size[0] / file_size[0]).astype(np.int64)
    return scatter_nearest(rows, columns, depth_m[kept], size)


def scatter_nearest(
    rows: NDArray[np.int64], columns: NDArray[np.int64], depth_m: NDArray[np.floating], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Depths (P,) at pixels (P,), the nearest where several meet; (H, W) float32, 0 where none."""
    picture = np.full(size, np.inf, np.float32)
    np.minimum.at(picture, (rows, columns), depth_m.astype(np.float32))
    picture[np.isinf(picture)] = 0
    return picture
