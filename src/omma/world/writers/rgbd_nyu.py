"""RGB-D folders of furnished rooms in the manner of NYU Depth v2.

`{train,val}/{rgb,depth,raw}/scene_0000_0000.png`: 8-bit colour, true depth of every pixel, and what a depth
camera with structured light measures of it. Depths are uint16 millimetres, 0 is a hole. `rgbd.json` says
so, `{train,val}.txt` list the pairs, `intrinsics.txt` is the camera of all pictures (3 x 3; pixel (0, 0)
covers the interval from 0 to 1) and `poses/` holds each picture's room_T_cam (4 x 4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import MILLIMETRES
from omma.data.formats.rgbd_folders import DEPTH, NOTE, RAW, RGB
from omma.data.formats.rgbd_nyu import MAX_DEPTH_M
from omma.data.formats.simbev_layout import scene_key
from omma.world.handheld import RoomCapture, handheld_intrinsics
from omma.world.rooms import build_room
from omma.world.writers.files import write_bytes, write_image, write_json

IMAGE_SIZE = (480, 640)
FRAME_INTERVAL_S = 1.0
SPLITS = ("train", "val")
INTRINSICS, POSES = "intrinsics.txt", "poses"
build_scene = build_room
Capture = RoomCapture


def write_frame(folder: Path, capture: RoomCapture) -> str:
    """Write the files of one frame; returns its name for `finish`."""
    name, home = f"{scene_key(capture.scene.number)}_{capture.frame:04d}", folder / capture.split
    write_image(home / RGB / f"{name}.png", capture.shot.rgb)
    write_image(home / DEPTH / f"{name}.png", _millimetres(capture.shot.depth_m))
    write_image(home / RAW / f"{name}.png", _millimetres(capture.measured().depth_m))
    write_bytes(home / POSES / f"{name}.txt", _matrix_text(capture.camera.scene_T_cam))
    return name


def _millimetres(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.rint(depth_m * MILLIMETRES).astype(np.uint16)


def _matrix_text(matrix: NDArray[np.float64]) -> bytes:
    return "".join(" ".join(f"{value:.9f}" for value in row) + "\n" for row in matrix).encode()


def finish(folder: Path, records: dict[str, dict[str, list[str]]], image_size: tuple[int, int]) -> None:
    """Write what all frames share; `records` by split and scene."""
    for split, scenes in records.items():
        names = [name for found in scenes.values() for name in found]
        lines = [f"{split}/{RGB}/{name}.png {split}/{DEPTH}/{name}.png\n" for name in names]
        write_bytes(folder / f"{split}.txt", "".join(lines).encode())
    write_json(folder / NOTE, {"units_per_metre": MILLIMETRES, "max_depth": MAX_DEPTH_M})
    write_bytes(folder / INTRINSICS, _matrix_text(handheld_intrinsics(image_size)))
