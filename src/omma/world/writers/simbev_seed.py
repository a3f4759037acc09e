"""SimBEV as train/val folders: `{train,val}/<scene>/yaw0pitch0/meta.json` with images and labels beside it.

Labels are (200, 200) uint8 in Lift-Splat orientation (axis 0 along +x, axis 1 along +y), 0.5 m cells, the
union of cars, trucks and buses without the ego vehicle. Every sample names a JSON file of `boxes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omma.data.formats.simbev_layout import (
    CAMERAS,
    CVT_CELL_M,
    CVT_CELLS,
    DEFAULT_ORIENTATION,
    VEHICLE_CLASSES,
    flip_bev,
    scene_key,
)
from omma.world.bev import bev_masks
from omma.world.capture import Capture
from omma.world.writers.files import write_image, write_json, write_npy
from omma.world.writers.rig import box_records, calibration, rig_cameras

IMAGE_SIZE = (224, 480)
FRAME_INTERVAL_S = 2.0
SPLITS = ("train", "val")


def write_frame(folder: Path, capture: Capture) -> dict[str, Any]:
    """Write the files of one frame; returns its record for `finish`."""
    scene = scene_key(capture.scene.number)
    home, number = folder / capture.split / scene / DEFAULT_ORIENTATION, f"{capture.frame:04d}"
    cameras = rig_cameras(capture)
    images = [f"images/{name.removeprefix('CAM_').lower()}_{number}.jpg" for name in CAMERAS]
    for index, (camera, image) in enumerate(zip(cameras, images, strict=True)):
        write_image(home / image, capture.picture(camera, index).rgb)
    masks = bev_masks(capture.snapshot, VEHICLE_CLASSES, CVT_CELLS, CVT_CELL_M, with_ego=False)
    write_npy(
        home / f"labels/bev_{number}.npy", np.ascontiguousarray(flip_bev(masks.any(0)).astype(np.uint8))
    )
    boxes = box_records(capture, CVT_CELLS * CVT_CELL_M / 2, capture.visible_shares(cameras))
    write_json(home / f"boxes/boxes_{number}.json", boxes, indent=None)
    return {
        "token": f"{scene}_{number}",
        "images": images,
        **calibration(capture),
        "label": f"labels/bev_{number}.npy",
        "boxes": f"boxes/boxes_{number}.json",
    }


def finish(
    folder: Path, records: dict[str, dict[str, list[dict[str, Any]]]], _image_size: tuple[int, int]
) -> None:
    """Write the meta.json of every scene; `records` by split and scene."""
    for split, scenes in records.items():
        for scene, samples in scenes.items():
            write_json(folder / split / scene / DEFAULT_ORIENTATION / "meta.json", samples)
