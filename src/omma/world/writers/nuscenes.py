"""nuScenes: `v1.0-trainval/` with its 13 tables, keyframes of six cameras and LIDAR_TOP, maps.

Scenes carry names that both PON and the official lists put into the same split. Objects are what the world
has: cars, trucks, buses, motorcycles, bicycles, pedestrians, traffic cones and barriers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.nuscenes import CAMERAS, LIDAR
from omma.data.formats.nuscenes_splits import common_scenes
from omma.world.capture import Capture
from omma.world.sensors import Sweep
from omma.world.writers.files import write_bytes, write_image
from omma.world.writers.nuscenes_maps import areas
from omma.world.writers.nuscenes_rig import (
    LIDAR_MODEL,
    MOUNTS,
    annotate,
    cameras,
    data_token,
    global_T_ego,
    timestamp_us,
)
from omma.world.writers.nuscenes_tables import write_tables
from omma.world.writers.rig import quaternion_and_position

IMAGE_SIZE = (360, 640)
FRAME_INTERVAL_S = 1.0
SPLITS = ("train", "val")


def most_scenes(split: str) -> int:
    """How many scenes of a split there are names for."""
    return len(common_scenes(split))


def write_frame(folder: Path, capture: Capture) -> dict[str, Any]:
    """Write the files of one frame; returns its record for `finish`."""
    for index, (channel, camera) in enumerate(zip(CAMERAS, cameras(capture), strict=True)):
        write_image(folder / filename(capture, channel), capture.picture(camera, index).rgb)
    sweep = capture.lidar(MOUNTS[LIDAR].ego_T_sensor, LIDAR_MODEL)
    write_bytes(folder / filename(capture, LIDAR), lidar_points(sweep).tobytes())
    return {
        "seed": capture.seed,
        "number": capture.scene.number,
        "frame": capture.frame,
        "log": log_name(capture),
        "timestamp": timestamp_us(capture, LIDAR),
        "sensors": {channel: _sensor(capture, channel) for channel in (*CAMERAS, LIDAR)},
        "annotations": annotate(capture, sweep),
        "areas": areas(capture.scene) if capture.frame == 0 else None,
    }


def log_name(capture: Capture) -> str:
    """Name of the drive that a scene is of."""
    return f"town-{capture.seed}-{capture.scene.number:04d}"


def filename(capture: Capture, channel: str) -> str:
    """Path of a sensor's file in the data set."""
    suffix = "pcd.bin" if channel == LIDAR else "jpg"
    return f"samples/{channel}/{log_name(capture)}__{channel}__{timestamp_us(capture, channel)}.{suffix}"


def lidar_points(sweep: Sweep) -> NDArray[np.float32]:
    """(P, 5) x, y, z, intensity 0 to 255, ring."""
    return np.column_stack([sweep.xyz, np.rint(255 * sweep.brightness), sweep.ring]).astype("<f4")


def _sensor(capture: Capture, channel: str) -> dict[str, Any]:
    rotation, translation = quaternion_and_position(global_T_ego(capture, channel))
    return {
        "token": data_token(capture, channel),
        "timestamp": timestamp_us(capture, channel),
        "filename": filename(capture, channel),
        "rotation": rotation,
        "translation": translation,
    }


def finish(
    folder: Path, records: dict[str, dict[str, list[dict[str, Any]]]], image_size: tuple[int, int]
) -> None:
    """Write tables and maps; `records` by split and scene."""
    scenes = [
        (name, frames)
        for split, found in records.items()
        for name, frames in zip(common_scenes(split), found.values(), strict=False)
    ]
    write_tables(folder, scenes, image_size)
