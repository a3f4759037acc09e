"""nuScenes as RGB-D: camera keyframes with the depth of the LiDAR points of the same sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose, rotation_from_quaternion
from omma.data.formats.frame import require_array
from omma.data.formats.nuscenes import CAMERAS, LIDAR, Record, Tables, read_lidar
from omma.data.formats.nuscenes_depth import points_in_camera, project_depth
from omma.data.formats.nuscenes_splits import official_scenes
from omma.data.formats.rgbd import Depth, ImageFile, RgbdFrame
from omma.data.io import image_size
from omma.errors import DataError

MAX_DEPTH_M = 80.0
DATASET = "nuscenes"


@dataclass(frozen=True)
class LidarDepth:
    """LiDAR points projected into an image; where several meet, the nearest counts.

    Args:
        path: file of the points.
        mountings: mounting and vehicle's pose of the LiDAR, then of the camera, each (4, 4): ego_T_lidar,
            global_T_ego at its time, ego_T_cam, global_T_ego at its time.
        intrinsics: (3, 3) in pixels of the image.
        image: file of the image; its header gives the size.
        max_depth_m: farthest depth kept.
    """

    path: Path
    mountings: tuple[NDArray[np.float64], ...]
    intrinsics: NDArray[np.float64]
    image: Path
    max_depth_m: float

    def read(self) -> Depth:
        """See DepthSource."""
        ego_T_lidar, at_lidar, ego_T_cam, at_camera = self.mountings
        points = read_lidar(self.path)[:, :3]
        in_camera = points_in_camera(points, ego_T_lidar, (at_lidar, at_camera), ego_T_cam)
        size = image_size(self.image)
        return project_depth(in_camera, self.intrinsics, size, size, max_depth=self.max_depth_m)

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


def read_frames(
    root: Path,
    split: str,
    *,
    version: str | None = None,
    cameras: Sequence[str] = CAMERAS,
    max_depth_m: float = MAX_DEPTH_M,
) -> list[RgbdFrame]:
    """The camera keyframes of a split, by sample and channel.

    Args:
        root: data set folder.
        split: "train" or "val", official.
        version: name of the table folder; none takes the only one.
        cameras: channels wanted.
        max_depth_m: farthest LiDAR depth, also what counts as 1 when normalised.

    Raises:
        DataError: tables, the split or a sample's LiDAR are missing.
    """
    tables = Tables(root, version)
    names = {token: scene["name"] for token, scene in tables.scenes.items()}
    chosen = official_scenes(split, names.values(), tables.version)
    frames = []
    for sample in sorted(tables.rows("sample"), key=lambda one: one["timestamp"]):
        if names[sample["scene_token"]] not in chosen:
            continue
        sweeps = tables.keyframes.get(sample["token"], {})
        if LIDAR not in sweeps:
            raise DataError(f"{root / tables.version}, sample {sample['token']}: has no keyframe of {LIDAR}")
        present = [name for name in cameras if name in sweeps]
        frames += [_frame(tables, sweeps[name], sweeps[LIDAR], max_depth_m) for name in present]
    if not frames:
        raise DataError(f"{root / tables.version}: split {split!r} has no camera keyframe")
    return frames


def _frame(tables: Tables, camera: Record, lidar: Record, max_depth_m: float) -> RgbdFrame:
    rig = tables.sensors[camera["calibrated_sensor_token"]]
    where = f"{tables.root / tables.version}, calibrated_sensor {rig['token']}"
    intrinsics = require_array(rig, "camera_intrinsic", (3, 3), where)
    records = (tables.sensors[lidar["calibrated_sensor_token"]], lidar["ego_pose"], rig, camera["ego_pose"])
    return RgbdFrame(
        token=camera["token"],
        dataset=DATASET,
        image=ImageFile(tables.root / camera["filename"]),
        depth=LidarDepth(
            path=tables.root / lidar["filename"],
            mountings=tuple(_pose(record) for record in records),
            intrinsics=intrinsics,
            image=tables.root / camera["filename"],
            max_depth_m=max_depth_m,
        ),
        max_depth_m=max_depth_m,
        intrinsics=intrinsics,
    )


def _pose(record: Record) -> NDArray[np.float64]:
    return pose(rotation_from_quaternion(record["rotation"]), record["translation"])
