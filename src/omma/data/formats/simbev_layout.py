"""What the three SimBEV on-disk layouts share: names, classes, the camera rig, the file patterns and codings.

Ego frame: x forward, y left, z up, metres; the origin lies on the ground below the middle of the vehicle.
Camera frame: x right, y down, z forward. BEV masks in SimBEV orientation have axis 1 (rows) along -x and
axis 2 (columns) along -y, like a picture with "up" ahead; Lift-Splat labels have axis 0 along +x and axis 1
along +y.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

CAMERAS: Final = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
CAMERA_YAWS_DEG: Final = dict(zip(CAMERAS, (55.0, 0.0, -55.0, 110.0, 180.0, -110.0), strict=True))
CAMERA_TRANSLATIONS_M: Final = {
    "CAM_FRONT_LEFT": (0.4, 0.4, 1.6),
    "CAM_FRONT": (0.6, 0.0, 1.6),
    "CAM_FRONT_RIGHT": (0.4, -0.4, 1.6),
    "CAM_BACK_LEFT": (0.0, 0.4, 1.6),
    "CAM_BACK": (-1.0, 0.0, 1.6),
    "CAM_BACK_RIGHT": (0.0, -0.4, 1.6),
}
CAMERA_FOV_DEG: Final = 80.0
LIDAR_TRANSLATION_M: Final = (0.0, 0.0, 1.8)
SPLITS: Final = ("train", "val", "test")

# The number of mask channels tells the version of the tool that wrote a data set.
CLASSES_BY_COUNT: Final = {
    8: ("road", "car", "truck", "bus", "motorcycle", "bicycle", "rider", "pedestrian"),
    11: (
        *("road", "road_line", "sidewalk", "crosswalk"),
        *("car", "truck", "bus", "motorcycle", "bicycle", "rider", "pedestrian"),
    ),
    14: (
        *("road", "hazard", "road_line", "sidewalk", "crosswalk", "traffic_cone", "barrier"),
        *("car", "truck", "bus", "motorcycle", "bicycle", "rider", "pedestrian"),
    ),
}
VEHICLE_CLASSES: Final = ("car", "truck", "bus")
SEMANTIC_TAGS: Final = {
    "road": 1,
    "sidewalk": 2,
    "building": 3,
    "pole": 6,
    "light": 7,
    "sign": 8,
    "vegetation": 9,
    "terrain": 10,
    "sky": 11,
    "pedestrian": 12,
    "rider": 13,
    "car": 14,
    "truck": 15,
    "bus": 16,
    "motorcycle": 18,
    "bicycle": 19,
    "road_line": 24,
    "traffic_cone": 30,
    "barrier": 31,
}
SEG_VIZ_RGB: Final = {
    "road": (196, 80, 196),
    "hazard": (240, 80, 80),
    "road_line": (196, 196, 64),
    "sidewalk": (240, 196, 240),
    "crosswalk": (240, 196, 196),
    "traffic_cone": (240, 128, 0),
    "barrier": (160, 120, 80),
    "car": (0, 128, 240),
    "truck": (80, 240, 80),
    "bus": (0, 144, 0),
    "motorcycle": (0, 240, 240),
    "bicycle": (240, 240, 0),
    "rider": (240, 144, 144),
    "pedestrian": (240, 0, 0),
}

OFFICIAL_CELL_M: Final = 0.4  # not stored in GT_SEG.npz
OFFICIAL_CELLS: Final = {8: 360, 11: 360, 14: 400}
CVT_CELL_M: Final = 0.5
CVT_CELLS: Final = 200
CVT_FOLDER: Final = "SimBEV_cvt_label"
CVT_NO_OBJECT: Final = 255
DEFAULT_ORIENTATION: Final = "yaw0pitch0"

# infos hold paths of the machine that made the data: they hold from the first of these folders on
OFFICIAL_FOLDERS: Final = ("sweeps", "ground-truth", "infos", "configs", "logs")
OFFICIAL_PATH_ROOT: Final = "/dataset/simbev"
_GROUND_TRUTH_FILES: Final = {
    "GT_DET": ("det", ".bin"),
    "GT_DET_JSON": ("det", ".json"),
    "GT_SEG": ("seg", ".npz"),
    "GT_SEG_VIZ": ("seg_viz", ".jpg"),
    "HD_MAP": ("hd_map", ".json"),
}
_DEPTH_RANGE_M: Final = 1000.0
_DEPTH_LEVELS: Final = 256**3 - 1


def scene_key(scene: int) -> str:
    """Key of a scene in an infos file and name of its folder, e.g. `scene_0027`."""
    return f"scene_{scene:04d}"


def sweep_path(sensor: str, scene: int, frame: int, suffix: str) -> str:
    """Path of one sensor file below the data set folder.

    Args:
        sensor: kind and name, e.g. `RGB-CAM_FRONT`, `DPT-CAM_BACK`, `LIDAR`.
        scene: scene number.
        frame: frame number within the scene.
        suffix: file suffix with its dot.

    Returns:
        Relative path with forward slashes, e.g. `sweeps/LIDAR/SimBEV-scene-0027-frame-0012-LIDAR.npz`.
    """
    return f"sweeps/{sensor}/SimBEV-scene-{scene:04d}-frame-{frame:04d}-{sensor}{suffix}"


def ground_truth_path(kind: str, scene: int, frame: int) -> str:
    """Path of one ground truth file below the data set folder.

    Args:
        kind: `GT_DET`, `GT_DET_JSON` (the same boxes as plain JSON), `GT_SEG`, `GT_SEG_VIZ` or `HD_MAP`.
        scene: scene number.
        frame: frame number within the scene.

    Returns:
        Relative path with forward slashes.
    """
    folder, suffix = _GROUND_TRUTH_FILES[kind]
    stem = kind.removesuffix("_JSON")
    return f"ground-truth/{folder}/SimBEV-scene-{scene:04d}-frame-{frame:04d}-{stem}{suffix}"


def infos_path(split: str) -> str:
    """Path of the infos file of a split below the data set folder."""
    return f"infos/simbev_infos_{split}.json"


def camera_quaternion(yaw_deg: float) -> np.ndarray:
    """Rotation from the frame of a level camera to the ego frame.

    Args:
        yaw_deg: direction of view, degrees counter-clockwise from straight ahead.

    Returns:
        (4,) float64 unit quaternion (w, x, y, z) with w > 0.
    """
    c, s = math.cos(math.radians(yaw_deg) / 2), math.sin(math.radians(yaw_deg) / 2)
    quaternion = 0.5 * np.array([c + s, -c - s, c - s, s - c])
    return quaternion if c + s > 0 else -quaternion


def camera_intrinsics(image_size: tuple[int, int], fov_deg: float = CAMERA_FOV_DEG) -> np.ndarray:
    """Pinhole matrix of a camera with square pixels and its principal point in the middle.

    Args:
        image_size: (H, W) in pixels.
        fov_deg: horizontal field of view in degrees.

    Returns:
        (3, 3) float64, pixels; pixel (0, 0) covers the interval from 0 to 1, so the middle is (W / 2, H / 2).
    """
    height, width = image_size
    focal = width / (2 * math.tan(math.radians(fov_deg) / 2))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def encode_depth(depth_m: np.ndarray) -> np.ndarray:
    """Depth as the three bytes of a SimBEV depth picture.

    Args:
        depth_m: (H, W) metres along the optical axis; what exceeds 1000 m is stored as 1000 m.

    Returns:
        (H, W, 3) uint8 in the order R (least significant), G, B.
    """
    levels = np.rint(np.clip(depth_m, 0, _DEPTH_RANGE_M) / _DEPTH_RANGE_M * _DEPTH_LEVELS).astype(np.uint32)
    return np.stack([levels & 255, levels >> 8 & 255, levels >> 16], -1).astype(np.uint8)


def decode_depth(rgb: np.ndarray) -> np.ndarray:
    """Depth of a SimBEV depth picture.

    Args:
        rgb: (H, W, 3) uint8 in the order R (least significant), G, B.

    Returns:
        (H, W) float32 metres along the optical axis, 0 to 1000.
    """
    levels = rgb.astype(np.float64) @ np.array([1.0, 256.0, 65536.0])
    return (levels * (_DEPTH_RANGE_M / _DEPTH_LEVELS)).astype(np.float32)


def encode_instances(tags: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Instance picture: semantic tag in R, instance number in G (low byte) and B (high byte).

    Args:
        tags: (H, W) uint8 values of `SEMANTIC_TAGS`.
        instances: (H, W) int, 0 to 65535, 0 where there is no object.

    Returns:
        (H, W, 3) uint8 in the order R, G, B. A semantic picture has the tag in R alone.
    """
    return np.stack([tags, instances & 255, instances >> 8], -1).astype(np.uint8)


def flip_bev(mask: np.ndarray) -> np.ndarray:
    """Turn a BEV mask by 180 degrees: SimBEV orientation to Lift-Splat orientation and back.

    Args:
        mask: (..., X, Y) any type; the last two axes are the grid.

    Returns:
        (..., X, Y) view with both grid axes reversed.
    """
    return mask[..., ::-1, ::-1]
