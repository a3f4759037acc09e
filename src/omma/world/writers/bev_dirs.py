"""DiffBEV's folders: one camera image is one sample with its bird's-eye-view label and sparse depth.

`img_dir/{train,val}/<token>.png` (JPEG data under that name, as users have it), `ann_bev_dir/{train,val}/`
the 16-bit labels, `ann_bev_dir/{train,val}_depth/` depth as .npz in metres at the size of the images,
`calib.json` and `cameras.json` the intrinsics and the camera of each token. Everything is as format nuscenes
and the preparation of its labels and depths make it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import STRtree

from omma.data.formats.nuscenes import CAMERAS, LIDAR
from omma.data.formats.nuscenes_bev import (
    LABEL_NOTE,
    Ignore,
    LabelView,
    Layers,
    Style,
    encode_png,
    label_note,
    read_footprints,
    render_label,
)
from omma.data.formats.nuscenes_depth import points_in_camera, project_depth
from omma.world.capture import Capture
from omma.world.scene import Scene
from omma.world.writers.files import write_bytes, write_image, write_json, write_npz
from omma.world.writers.nuscenes_maps import areas
from omma.world.writers.nuscenes_rig import (
    LIDAR_MODEL,
    MOUNTS,
    annotate,
    cameras,
    data_token,
    global_T_ego,
)

IMAGE_SIZE = (360, 640)
FRAME_INTERVAL_S = 1.0
SPLITS = ("train", "val")
_STYLE: Style = "reference"
_IGNORE: Ignore = "fov+occlusion"


def write_frame(folder: Path, capture: Capture) -> dict[str, str]:
    """Write the files of one frame; returns token -> camera for `finish`."""
    sweep = capture.lidar(MOUNTS[LIDAR].ego_T_sensor, LIDAR_MODEL)
    footprints = read_footprints(annotate(capture, sweep))
    layers = _layers(capture.scene)
    labels = folder / "ann_bev_dir"
    for index, (channel, camera) in enumerate(zip(CAMERAS, cameras(capture), strict=True)):
        token, picture = data_token(capture, channel), capture.picture(camera, index)
        write_image(folder / "img_dir" / capture.split / f"{token}.png", picture.rgb, kind=".jpg")
        points = _points(capture, channel, sweep.xyz)
        view = LabelView(
            global_T_ego(capture, channel) @ MOUNTS[channel].ego_T_sensor,
            camera.intrinsics,
            capture.image_size[1],
        )
        label = render_label(view, layers, footprints, points, style=_STYLE, ignore=_IGNORE)
        write_bytes(labels / capture.split / f"{token}.png", encode_png(label))
        depth_m = project_depth(points, camera.intrinsics, capture.image_size, capture.image_size)
        depth_file = labels / f"{capture.split}_depth" / f"{token}.npz"
        write_npz(depth_file, depth=depth_m, mask=(depth_m > 0).astype(np.uint8))
    return {data_token(capture, channel): channel for channel in CAMERAS}


def _layers(scene: Scene) -> Layers:
    return {
        layer: STRtree(np.concatenate([shapely.polygons(pieces) for pieces in groups]))
        for layer, groups in areas(scene).items()
    }


def _points(capture: Capture, channel: str, xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """LiDAR points (P, 3) in a camera's frame."""
    poses = [global_T_ego(capture, name) for name in (LIDAR, channel)]
    return points_in_camera(xyz, MOUNTS[LIDAR].ego_T_sensor, poses, MOUNTS[channel].ego_T_sensor)


def finish(
    folder: Path, records: dict[str, dict[str, list[dict[str, str]]]], image_size: tuple[int, int]
) -> None:
    """Write what all frames share; `records` by split and scene."""
    frames = [frame for scenes in records.values() for found in scenes.values() for frame in found]
    channels = {token: channel for frame in frames for token, channel in frame.items()}
    intrinsics = {channel: MOUNTS[channel].intrinsics(image_size) for channel in CAMERAS}
    write_json(folder / "ann_bev_dir" / LABEL_NOTE, label_note(style=_STYLE, ignore=_IGNORE))
    write_json(folder / "cameras.json", channels)
    write_json(folder / "calib.json", {token: intrinsics[channel] for token, channel in channels.items()})
