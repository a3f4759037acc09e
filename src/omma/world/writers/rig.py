"""SimBEV's six cameras on the ego vehicle of a capture, and what several writers derive from a capture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, pose, rotation_from_quaternion
from omma.data.formats.simbev_layout import (
    CAMERA_TRANSLATIONS_M,
    CAMERA_YAWS_DEG,
    CAMERAS,
    camera_intrinsics,
    camera_quaternion,
)
from omma.world.capture import Capture
from omma.world.sensors import PinholeCamera


def ego_T_cam(name: str) -> NDArray[np.float64]:  # noqa: N802  a pose is named to_T_from
    """(4, 4) pose of a camera of the rig."""
    rotation = rotation_from_quaternion(camera_quaternion(CAMERA_YAWS_DEG[name]))
    return pose(rotation, CAMERA_TRANSLATIONS_M[name])


def rig_cameras(capture: Capture) -> list[PinholeCamera]:
    """The six cameras in the order of `CAMERAS`."""
    intrinsics = camera_intrinsics(capture.image_size)
    return [capture.camera(ego_T_cam(name), intrinsics) for name in CAMERAS]


def calibration(capture: Capture) -> dict[str, Any]:
    """`intrinsics` and ego-to-camera `extrinsics` of a meta.json sample."""
    return {
        "intrinsics": [camera_intrinsics(capture.image_size)] * len(CAMERAS),
        "extrinsics": [invert_rigid(ego_T_cam(name)) for name in CAMERAS],
    }


def box_records(capture: Capture, reach_m: float, shares: dict[int, float]) -> list[dict[str, Any]]:
    """Boxes within reach as `id`, `class`, `corners_ego` (8, 3) in metres and `visible` share."""
    return [
        {
            "id": actor.instance,
            "class": actor.class_name,
            "corners_ego": capture.corners_ego(actor).round(4),
            "visible": round(shares[actor.instance], 3),
        }
        for actor in capture.actors_within(reach_m)
    ]


def quaternion_and_position(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(w, x, y, z) and position of an upright pose."""
    half = np.arctan2(matrix[1, 0], matrix[0, 0]) / 2
    return np.array([np.cos(half), 0.0, 0.0, np.sin(half)]), matrix[:3, 3]
