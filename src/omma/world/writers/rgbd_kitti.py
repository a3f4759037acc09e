"""KITTI depth completion from street scenes: colour, one LiDAR turn, and eleven turns as ground truth.

`{train,val}/DRIVE/` holds `image_02/data/`, `proj_depth/{velodyne_raw,groundtruth}/image_02/` (uint16,
metres times 256, 0 unknown), `velodyne_points/data/` (float32 x, y, z, reflectance) and the calibration in
KITTI raw's text files. As there, frames are numbered from 5, the scanner is above and behind the camera, so
that raw depth looks past the edges of near things, and ground truth keeps only points that the camera sees.
Pixel (0, 0) of the calibration is centred on 0, as in KITTI.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, pose, project_points, transform_points
from omma.data.formats.rgbd import KITTI
from omma.world.capture import Capture
from omma.world.sensors import LidarModel, PinholeCamera, sweep_lidar
from omma.world.writers.files import write_bytes, write_image

IMAGE_SIZE = (375, 1242)
FRAME_INTERVAL_S = 1.0
SPLITS = ("train", "val")
FIRST_FRAME = 5  # KITTI's ground truth needs five turns before and after

_FOCAL_PX, _CENTRE_PX, _WIDTH = 721.5377, (609.5593, 172.854), 1242
_BASELINE_M = 0.0599  # of camera 2 from camera 0, to the left
_VELO_T_CAM0 = pose([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (0.27, 0.0, -0.08))
_EGO_T_VELO = pose(np.eye(3), (0.0, 0.0, 1.73))
_CAM0_T_CAM2 = pose(np.eye(3), (-_BASELINE_M, 0, 0))
_SCAN_S = 0.1
_NEIGHBOURS = range(-5, 6)
_AGREE = 0.02  # share by which a point's depth may differ from the camera's
_MOST_M = 80.0


@dataclass(frozen=True)
class _AheadLidar(LidarModel):
    """The part of a turn that the camera can see; `columns` counts its measurements alone."""

    def directions(self) -> NDArray[np.float32]:
        """See LidarModel."""
        elevation = np.radians(np.linspace(self.lowest_deg, self.highest_deg, self.beams))[:, None]
        azimuth = np.radians(np.linspace(-_AHEAD_DEG, _AHEAD_DEG, self.columns))[None]
        level = np.cos(elevation)
        grid = np.broadcast_arrays(level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation))
        return np.stack([part.ravel() for part in grid]).astype(np.float32)


_AHEAD_DEG = 45.0
_LIDAR = LidarModel(-24.8, 2.0, 64, 2083)
_LIDAR_AHEAD = _AheadLidar(-24.8, 2.0, 64, 521)


@dataclass(frozen=True)
class _Points:
    """Scan points: (N, 3) in the scanner's frame at its own time, and (N,) reflectance."""

    xyz: NDArray[np.float32]
    reflectance: NDArray[np.float32]


def write_frame(folder: Path, capture: Capture) -> str:
    """Write the files of one frame; returns its drive for `finish`."""
    drive = drive_name(capture.scene.number)
    home, name = folder / capture.split / drive, f"{capture.frame + FIRST_FRAME:010d}"
    camera = kitti_camera(capture)
    picture = capture.picture(camera, 0)
    write_image(home / "image_02" / "data" / f"{name}.png", picture.rgb)
    scan = _scan(capture, 0)
    raw = _projected(capture, camera, scan.xyz, 0)
    truth = _accumulated(capture, camera, picture.depth_m, raw)
    for kind, depth_m in (("velodyne_raw", raw), ("groundtruth", truth)):
        stored = np.rint(np.minimum(depth_m, 255) * KITTI).astype(np.uint16)
        write_image(home / "proj_depth" / kind / "image_02" / f"{name}.png", stored)
    points = np.column_stack([scan.xyz, scan.reflectance]).astype("<f4")
    write_bytes(home / "velodyne_points" / "data" / f"{name}.bin", points.tobytes())
    return drive


def drive_name(scene: int) -> str:
    """Folder of a scene."""
    return f"2011_09_26_drive_{scene + 1:04d}_sync"


def kitti_intrinsics(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """(3, 3) of the calibration for pictures of (H, W); pixel (0, 0) is centred on 0."""
    across, down = image_size[1] / _WIDTH, image_size[0] / IMAGE_SIZE[0]
    u, v = ((c + 0.5) * scale - 0.5 for c, scale in zip(_CENTRE_PX, (across, down), strict=True))
    return np.array([[_FOCAL_PX * across, 0, u], [0, _FOCAL_PX * down, v], [0, 0, 1]]).round(6)


def kitti_camera(capture: Capture) -> PinholeCamera:
    """The left colour camera."""
    intrinsics = kitti_intrinsics(capture.image_size)
    intrinsics[:2, 2] += 0.5
    return capture.camera(_EGO_T_VELO @ _VELO_T_CAM0 @ _CAM0_T_CAM2, intrinsics)


def _scene_T_velo(capture: Capture, step: int) -> NDArray[np.float64]:  # noqa: N802
    """Pose of the scanner some turns later; a vehicle is never quite still, so turns differ."""
    rng = np.random.default_rng([capture.seed, capture.scene.number, capture.frame, 40, step + 5])
    turn, nod = rng.uniform(-0.0015, 0.0015), rng.uniform(-0.003, 0.003)
    wobble = np.array([[1, -turn, nod], [turn, 1, 0], [-nod, 0, 1.0]])
    rotation, _ = np.linalg.qr(wobble)
    rotation = rotation * np.sign(np.diag(rotation))
    shake = pose(rotation, (0, 0, 0)) if step else np.eye(4)
    return capture.scene_T_ego(step * _SCAN_S) @ _EGO_T_VELO @ shake


def _scan(capture: Capture, step: int) -> _Points:
    """Points of one turn of the scanner; all but the ego vehicle stands still meanwhile."""
    rng = np.random.default_rng([capture.seed, capture.scene.number, capture.frame, 41, step + 5])
    sweep = sweep_lidar(capture.snapshot, _scene_T_velo(capture, step), rng, _LIDAR_AHEAD if step else _LIDAR)
    kept = rng.random(len(sweep.xyz)) > 0.06  # a real scanner misses some
    kept &= np.linalg.norm(sweep.xyz, axis=1) < _MOST_M
    return _Points(sweep.xyz[kept], sweep.brightness[kept])


def _projected(
    capture: Capture, camera: PinholeCamera, xyz: NDArray[np.float32], step: int
) -> NDArray[np.float32]:
    """(H, W) depth of points of a turn in the camera, the nearest where several fall, else 0."""
    cam_T_velo = invert_rigid(camera.scene_T_cam) @ _scene_T_velo(capture, step)
    uv, depth = project_points(camera.intrinsics, transform_points(cam_T_velo, xyz.astype(float)))
    height, width = camera.image_size
    column, row = np.floor(uv[:, 0]), np.floor(uv[:, 1])
    seen = (depth > 0.5) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row[seen] * width + column[seen]).astype(np.intp)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, place, depth[seen])
    return np.where(np.isfinite(nearest), nearest, 0).reshape(height, width).astype(np.float32)


def _accumulated(
    capture: Capture, camera: PinholeCamera, depth_m: NDArray[np.float32], raw: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(H, W) depth of eleven turns where the camera sees the same, the turns nearest in time first.

    Args:
        capture: the frame.
        camera: as of `kitti_camera`.
        depth_m: (H, W) what that camera sees, infinite for the sky.
        raw: (H, W) depth of the turn of this instant.
    """
    total = np.zeros(camera.image_size, np.float32)
    for step in sorted(_NEIGHBOURS, key=abs):
        found = _projected(capture, camera, _scan(capture, step).xyz, step) if step else raw
        agree = np.abs(found - depth_m) < _AGREE * np.minimum(depth_m, _MOST_M)
        fresh = (total == 0) & (found > 0) & agree
        total[fresh] = found[fresh]
    return total


def finish(folder: Path, records: dict[str, dict[str, list[Any]]], image_size: tuple[int, int]) -> None:
    """Write the calibration of every drive; `records` by split and scene."""
    for split, scenes in records.items():
        for drives in scenes.values():
            home = folder / split / drives[0]
            write_bytes(home / "calib_cam_to_cam.txt", _cam_to_cam(image_size))
            write_bytes(home / "calib_velo_to_cam.txt", _velo_to_cam())


def _line(key: str, values: Any) -> str:
    return f"{key}: {' '.join(f'{value:.6e}' for value in np.asarray(values, float).ravel())}\n"


def _cam_to_cam(image_size: tuple[int, int]) -> bytes:
    K = kitti_intrinsics(image_size)
    size = image_size[1], image_size[0]
    lines = [_line("corner_dist", [0.0995])]
    for camera, shift_m in (("00", 0.0), ("02", _BASELINE_M)):
        matrix = np.column_stack([K, K @ [shift_m, 0, 0]])
        lines += [
            _line(f"S_{camera}", size),
            _line(f"K_{camera}", K),
            _line(f"D_{camera}", np.zeros(5)),
            _line(f"R_{camera}", np.eye(3)),
            _line(f"T_{camera}", (shift_m, 0, 0)),
            _line(f"S_rect_{camera}", size),
            _line(f"R_rect_{camera}", np.eye(3)),
            _line(f"P_rect_{camera}", matrix),
        ]
    return "".join(lines).encode()


def _velo_to_cam() -> bytes:
    cam0_T_velo = invert_rigid(_VELO_T_CAM0)
    lines = (_line("R", cam0_T_velo[:3, :3]), _line("T", cam0_T_velo[:3, 3]))
    return "".join(lines).encode()
