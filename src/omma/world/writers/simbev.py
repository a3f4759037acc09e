"""SimBEV as its own tool writes it: infos, sweeps, ground truth of version 3 (14 classes, 400 x 0.4 m).

Boxes are written as JSON with the fields of SimBEV's dictionaries: the original's pickles can carry code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose, transform_points
from omma.data.formats.simbev_layout import (
    CAMERA_TRANSLATIONS_M,
    CAMERA_YAWS_DEG,
    CAMERAS,
    CLASSES_BY_COUNT,
    LIDAR_TRANSLATION_M,
    OFFICIAL_CELL_M,
    OFFICIAL_CELLS,
    OFFICIAL_PATH_ROOT,
    SEG_VIZ_RGB,
    SEMANTIC_TAGS,
    camera_intrinsics,
    camera_quaternion,
    encode_depth,
    encode_instances,
    ground_truth_path,
    infos_path,
    sweep_path,
)
from omma.world.bev import bev_masks
from omma.world.capture import Capture
from omma.world.scene import CLASSES, ActorState
from omma.world.sensors import Picture, Sweep
from omma.world.writers.files import write_image, write_json, write_npz
from omma.world.writers.rig import quaternion_and_position, rig_cameras

IMAGE_SIZE = (450, 800)
FRAME_INTERVAL_S = 2.0
SPLITS = ("train", "val", "test")
NUM_CLASSES = 14
_TAGS = np.array([SEMANTIC_TAGS[name] for name in CLASSES], np.uint8)
_EGO_T_LIDAR = pose(np.eye(3), LIDAR_TRANSLATION_M)


def write_frame(folder: Path, capture: Capture) -> dict[str, Any]:
    """Write the files of one frame; returns its record for `finish`."""
    number, frame = capture.scene.number, capture.frame
    rotation, translation = quaternion_and_position(capture.global_T_ego)
    record: dict[str, Any] = {
        "ego2global_translation": translation,
        "ego2global_rotation": rotation,
        "timestamp": round(capture.time_s * 1e6),
    }

    def path(local: str, key: str) -> Path:
        record[key] = f"{OFFICIAL_PATH_ROOT}/{local}"
        return folder / local

    for index, (name, camera) in enumerate(zip(CAMERAS, rig_cameras(capture), strict=True)):
        for kind, suffix, image in _images(capture.picture(camera, index)):
            write_image(path(sweep_path(f"{kind}-{name}", number, frame, suffix), f"{kind}-{name}"), image)
    sweep = capture.lidar(_EGO_T_LIDAR)
    write_npz(path(sweep_path("LIDAR", number, frame, ".npz"), "LIDAR"), data=sweep.xyz)
    classes = CLASSES_BY_COUNT[NUM_CLASSES]
    masks = bev_masks(capture.snapshot, classes, OFFICIAL_CELLS[NUM_CLASSES], OFFICIAL_CELL_M)
    write_npz(path(ground_truth_path("GT_SEG", number, frame), "GT_SEG"), data=masks)
    write_image(path(ground_truth_path("GT_SEG_VIZ", number, frame), "GT_SEG_VIZ"), _painted(masks, classes))
    boxes = _boxes(capture, sweep)
    write_json(path(ground_truth_path("GT_DET_JSON", number, frame), "GT_DET"), boxes, indent=None)
    return {**record, "scene": number, "frame": frame}


def _images(picture: Picture) -> list[tuple[str, str, NDArray[np.uint8]]]:
    """Kind, suffix and pixels of the pictures of one camera."""
    tags = _TAGS[picture.class_index]
    return [
        ("RGB", ".jpg", picture.rgb),
        ("DPT", ".png", encode_depth(picture.depth_m)),
        ("SEG", ".png", encode_instances(tags, np.zeros_like(picture.instance))),
        ("IST", ".png", encode_instances(tags, picture.instance)),
    ]


def _painted(masks: NDArray[np.bool_], classes: tuple[str, ...]) -> NDArray[np.uint8]:
    picture = np.full((*masks.shape[1:], 3), 255, np.uint8)
    for mask, name in zip(masks, classes, strict=True):
        picture[mask] = SEG_VIZ_RGB[name]
    return picture


def _boxes(capture: Capture, sweep: Sweep) -> list[dict[str, Any]]:
    reach_m = OFFICIAL_CELLS[NUM_CLASSES] * OFFICIAL_CELL_M / 2
    points = np.bincount(sweep.instance, minlength=1 + max(a.instance for a in capture.snapshot.actors))
    return [_box(capture, actor, int(points[actor.instance])) for actor in capture.actors_within(reach_m)]


def _box(capture: Capture, actor: ActorState, num_points: int) -> dict[str, Any]:
    global_T_scene = capture.scene.global_T_scene
    return {
        "id": actor.instance,
        "type": actor.kind,
        "semantic_tags": [SEMANTIC_TAGS[actor.class_name]],
        "bounding_box": transform_points(global_T_scene, actor.corners).round(4),
        "linear_velocity": (global_T_scene[:3, :3] @ actor.velocity).round(4),
        "angular_velocity": [0.0, 0.0, 0.0],
        "num_lidar_pts": num_points,
        "num_radar_pts": 0,
        "valid_flag": num_points > 0,
    }


def finish(
    folder: Path, records: dict[str, dict[str, list[dict[str, Any]]]], image_size: tuple[int, int]
) -> None:
    """Write the infos of every split; `records` by split and scene."""
    for split, scenes in records.items():
        data = {name: {"scene_info": _SCENE_INFO, "scene_data": frames} for name, frames in scenes.items()}
        write_json(folder / infos_path(split), {"metadata": _metadata(image_size), "data": data})


_SCENE_INFO = {"map": "procedural", "config": {"bev_res": OFFICIAL_CELL_M}}


def _metadata(image_size: tuple[int, int]) -> dict[str, Any]:
    sensors = {
        name: _mounting(camera_quaternion(CAMERA_YAWS_DEG[name]), CAMERA_TRANSLATIONS_M[name])
        for name in CAMERAS
    }
    lidar = _mounting(np.array([1.0, 0.0, 0.0, 0.0]), LIDAR_TRANSLATION_M)
    return {"camera_intrinsics": camera_intrinsics(image_size), "LIDAR": lidar, **sensors}


def _mounting(rotation: NDArray[np.float64], translation: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "sensor2lidar_translation": np.subtract(translation, LIDAR_TRANSLATION_M).round(6),
        "sensor2lidar_rotation": rotation,
        "sensor2ego_translation": translation,
        "sensor2ego_rotation": rotation,
    }
