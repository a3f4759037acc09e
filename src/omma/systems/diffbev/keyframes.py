"""Samples of nuScenes tables as small records that worker processes make labels and depths from.

Nothing here imports torch: a worker needs these records, OpenCV and shapely alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose, rotation_from_quaternion
from omma.data.formats.frame import require_array
from omma.data.formats.nuscenes import LIDAR, Record, Tables, read_lidar
from omma.data.formats.nuscenes_bev import (
    Footprint,
    Ignore,
    LabelView,
    Layers,
    Style,
    read_footprints,
    render_label,
)
from omma.data.formats.nuscenes_depth import points_in_camera, project_depth
from omma.data.formats.nuscenes_maps import locations, read_layers
from omma.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """One image of a sample.

    Args:
        token: of the image.
        channel: of the camera.
        global_T_ego: (4, 4) pose of the vehicle at the camera's time.
        ego_T_cam: (4, 4) mounting.
        intrinsics: (3, 3) in pixels of the image file.
        size: height and width of the image file.
    """

    token: str
    channel: str
    global_T_ego: Floats  # noqa: N815  a pose is named to_T_from
    ego_T_cam: Floats  # noqa: N815
    intrinsics: Floats
    size: tuple[int, int]

    @property
    def view(self) -> LabelView:
        """What a label is drawn for."""
        return LabelView(self.global_T_ego @ self.ego_T_cam, self.intrinsics, self.size[1])


@dataclass(frozen=True)
class Keyframe:
    """One sample.

    Args:
        token: of the sample.
        location: city of the scene.
        lidar: file of the LiDAR's points.
        global_T_ego: (4, 4) pose of the vehicle at the LiDAR's time.
        ego_T_lidar: (4, 4) mounting.
        cameras: those wanted.
        footprints: ground areas of all boxes.
    """

    token: str
    location: str
    lidar: Path
    global_T_ego: Floats  # noqa: N815
    ego_T_lidar: Floats  # noqa: N815
    cameras: tuple[Camera, ...]
    footprints: tuple[Footprint, ...]

    def points(self) -> NDArray[np.float32]:
        """LiDAR points (P, 3) in the LiDAR's frame."""
        return read_lidar(self.lidar)[:, :3]

    def points_in(self, camera: Camera, points: NDArray[np.floating]) -> Floats:
        """Those points in a camera's frame."""
        at_times = (self.global_T_ego, camera.global_T_ego)
        return points_in_camera(points, self.ego_T_lidar, at_times, camera.ego_T_cam)


def read_keyframes(tables: Tables, tokens: Collection[str], *, boxes: bool) -> Iterator[Keyframe]:
    """The samples that the images belong to, city by city, so that few maps are needed at a time.

    Args:
        tables: of one version.
        tokens: images wanted.
        boxes: whether boxes are needed.

    Raises:
        DataError: a sample has no LIDAR_TOP, or a record is broken.
    """
    wanted = set(tokens)
    cities = locations(tables) if boxes else {}
    samples = sorted(
        tables.rows("sample"), key=lambda one: (cities.get(one["scene_token"], ""), one["timestamp"])
    )
    for sample in samples:
        sweeps = tables.keyframes.get(sample["token"], {})
        chosen = {name: one for name, one in sweeps.items() if one["token"] in wanted and name != LIDAR}
        if chosen:
            yield _keyframe(tables, sample, chosen, cities.get(sample["scene_token"], ""), boxes)


def _keyframe(tables: Tables, sample: Record, chosen: dict[str, Record], city: str, boxes: bool) -> Keyframe:
    token = sample["token"]
    lidar = tables.keyframes[token].get(LIDAR)
    if lidar is None:
        raise DataError(f"{tables.root / tables.version}, sample {token}: has no keyframe of {LIDAR}")
    annotations = tables.annotations.get(token, []) if boxes else []
    return Keyframe(
        token=token,
        location=city,
        lidar=tables.root / lidar["filename"],
        global_T_ego=_pose(lidar["ego_pose"]),
        ego_T_lidar=_pose(tables.sensors[lidar["calibrated_sensor_token"]]),
        cameras=tuple(_camera(tables, name, record) for name, record in sorted(chosen.items())),
        footprints=tuple(read_footprints(annotations)),
    )


def _camera(tables: Tables, channel: str, record: Record) -> Camera:
    rig = tables.sensors[record["calibrated_sensor_token"]]
    where = f"{tables.root / tables.version}, calibrated_sensor {rig['token']}"
    return Camera(
        token=record["token"],
        channel=channel,
        global_T_ego=_pose(record["ego_pose"]),
        ego_T_cam=_pose(rig),
        intrinsics=require_array(rig, "camera_intrinsic", (3, 3), where),
        size=(record["height"], record["width"]),
    )


def _pose(record: Record) -> Floats:
    return pose(rotation_from_quaternion(record["rotation"]), record["translation"])


@lru_cache(maxsize=1)  # keyframes come city by city
def _layers(root: Path, location: str) -> Layers:
    return read_layers(root, location)


def draw_labels(
    keyframe: Keyframe, root: Path, *, style: Style, ignore: Ignore
) -> dict[str, NDArray[np.uint16]]:
    """Image token -> its label's bits (Z, X).

    Raises:
        DataError: the city's map or the LiDAR file is missing or damaged.
    """
    layers = _layers(root, keyframe.location)
    points = keyframe.points() if ignore == "fov+occlusion" else None
    return {
        camera.token: render_label(
            camera.view,
            layers,
            keyframe.footprints,
            None if points is None else keyframe.points_in(camera, points),
            style=style,
            ignore=ignore,
        )
        for camera in keyframe.cameras
    }


def measure_depths(
    keyframe: Keyframe, size: tuple[int, int], *, min_depth: float, max_depth: float
) -> dict[str, NDArray[np.float32]]:
    """Image token -> its sparse depth (H, W) of `size` in metres.

    Raises:
        DataError: the LiDAR file is missing or damaged.
    """
    points = keyframe.points()
    return {
        camera.token: project_depth(
            keyframe.points_in(camera, points),
            camera.intrinsics,
            camera.size,
            size,
            min_depth=min_depth,
            max_depth=max_depth,
        )
        for camera in keyframe.cameras
    }
