"""SimBEV labels as cross-view transformers take them, beside the sweeps of SimBEV.

`SimBEV_cvt_label/scene_NNNN/yaw0pitch0/` holds meta.json, bev_*.npz with `bev` (8, 200, 200) at 0.5 m in
SimBEV orientation and visibility_*.png; images lie under `sweeps/`. The layout knows no splits but a share of
the sorted scenes, so world.json tells which scenes were meant for what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omma.core.poses import invert_rigid
from omma.data.formats.simbev_layout import (
    CAMERAS,
    CLASSES_BY_COUNT,
    CVT_CELL_M,
    CVT_CELLS,
    CVT_FOLDER,
    CVT_NO_OBJECT,
    DEFAULT_ORIENTATION,
    VEHICLE_CLASSES,
    scene_key,
    sweep_path,
)
from omma.world.bev import bev_masks, visibility_map
from omma.world.capture import Capture
from omma.world.writers.files import write_image, write_json, write_npz
from omma.world.writers.rig import box_records, calibration, rig_cameras

IMAGE_SIZE = (224, 480)
FRAME_INTERVAL_S = 2.0
SPLITS = ("train", "val")
_HALF = CVT_CELLS / 2
_VIEW = [[0.0, -1 / CVT_CELL_M, _HALF], [-1 / CVT_CELL_M, 0.0, _HALF], [0.0, 0.0, 1.0]]
_VISIBLE_FROM = (0.4, 0.6, 0.8)  # where visibility levels 2, 3 and 4 begin


def write_frame(folder: Path, capture: Capture) -> dict[str, Any]:
    """Write the files of one frame; returns its record for `finish`."""
    number, frame = capture.scene.number, capture.frame
    scene = scene_key(number)
    home, stem = folder / CVT_FOLDER / scene / DEFAULT_ORIENTATION, f"{scene}_{frame:06d}"
    cameras = rig_cameras(capture)
    images = [sweep_path(f"RGB-{name}", number, frame, ".jpg") for name in CAMERAS]
    for index, (camera, image) in enumerate(zip(cameras, images, strict=True)):
        write_image(folder / image, capture.picture(camera, index).rgb)
    bev = bev_masks(capture.snapshot, CLASSES_BY_COUNT[8], CVT_CELLS, CVT_CELL_M).astype(np.uint8)
    write_npz(home / f"bev_{stem}.npz", bev=bev)
    shares = capture.visible_shares(cameras)
    visibility = visibility_map(
        capture.snapshot, _levels(capture, shares), CVT_CELLS, CVT_CELL_M, CVT_NO_OBJECT
    )
    write_image(home / f"visibility_{stem}.png", visibility)
    write_json(home / f"boxes_{stem}.json", box_records(capture, _HALF * CVT_CELL_M, shares), indent=None)
    return {
        "token": f"{number}_{frame}",
        "scene": scene,
        "images": images,
        "cam_channels": list(CAMERAS),
        **calibration(capture),
        "bev": f"bev_{stem}.npz",
        "view": _VIEW,
        "pose": capture.global_T_ego,
        "pose_inverse": invert_rigid(capture.global_T_ego),
        "visibility": f"visibility_{stem}.png",
        "boxes": f"boxes_{stem}.json",
    }


def _levels(capture: Capture, shares: dict[int, float]) -> dict[int, int]:
    """Visibility level 1 to 4 of every vehicle by instance; the ego vehicle counts as fully visible."""
    ego = capture.snapshot.ego
    levels = {
        a.instance: 1 + sum(shares[a.instance] >= least for least in _VISIBLE_FROM)
        for a in capture.snapshot.actors
        if a.class_name in VEHICLE_CLASSES
    }
    return {**levels, ego.instance: 4}


def finish(
    folder: Path, records: dict[str, dict[str, list[dict[str, Any]]]], _image_size: tuple[int, int]
) -> None:
    """Write the meta.json of every scene; `records` by split and scene."""
    for scenes in records.values():
        for scene, samples in scenes.items():
            write_json(folder / CVT_FOLDER / scene / DEFAULT_ORIENTATION / "meta.json", samples)
