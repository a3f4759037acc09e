"""The same rooms as format rgbd-nyu, in the folders that the reference trains on and tests with.

`RGBD_Datasets/rooms/{rgb,depth}/scene_0000/0000.png` for training, `Hole_Datasets/rooms/` the masks of what
the depth camera missed (255 keep, 0 hole), and of the validation scenes `Test_Datasets/rooms/` with `rgb`,
`gt`, `raw_1%` (single true depths) and `raw_100%` (all that the depth camera measured). Depth is uint16 with
65535 at 20 m, 0 unknown; `rgbd.json` says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd_folders import DEPTH, FULL_SCALE, NOTE, RGB
from omma.data.formats.rgbd_reference import HOLES, TEST, TRAIN
from omma.data.formats.simbev_layout import scene_key
from omma.world.handheld import RoomCapture
from omma.world.rooms import build_room
from omma.world.writers.files import write_image, write_json

IMAGE_SIZE = (480, 640)
FRAME_INTERVAL_S = 1.0
SPLITS = ("train", "val")
MAX_DEPTH_M = 20.0
NAME = "rooms"
_SPARSE = 0.01
build_scene = build_room
Capture = RoomCapture


def write_frame(folder: Path, capture: RoomCapture) -> str:
    """Write the files of one frame; returns its name."""
    name = f"{scene_key(capture.scene.number)}/{capture.frame:04d}.png"
    true, measured = capture.shot.depth_m, capture.measured()
    if capture.split == "train":
        home = folder / TRAIN / NAME
        write_image(home / RGB / name, capture.shot.rgb)
        write_image(home / DEPTH / name, _stored(true))
        mask = np.where(measured.holes == 0, 255, 0).astype(np.uint8)
        write_image(folder / HOLES / NAME / name, mask)
        return name
    home = folder / TEST / NAME
    rng = np.random.default_rng([capture.seed, capture.scene.number, capture.frame, 50])
    sparse = np.where(rng.random(true.shape) < _SPARSE, true, 0)
    write_image(home / RGB / name, capture.shot.rgb)
    for kind, depth_m in (("gt", true), ("raw_1%", sparse), ("raw_100%", measured.depth_m)):
        write_image(home / kind / name, _stored(depth_m))
    return name


def _stored(depth_m: NDArray[np.floating]) -> NDArray[np.uint16]:
    return np.rint(np.clip(depth_m / MAX_DEPTH_M, 0, 1) * FULL_SCALE).astype(np.uint16)


def finish(folder: Path, records: dict[str, dict[str, list[str]]], image_size: tuple[int, int]) -> None:
    """Write what the depths mean, which the reference leaves to the user's memory."""
    del records, image_size
    for home in (TRAIN, TEST):
        if (folder / home).is_dir():
            write_json(folder / home / NOTE, {"full_scale": True, "max_depth": MAX_DEPTH_M})
