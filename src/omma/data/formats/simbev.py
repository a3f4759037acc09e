"""SimBEV as its own tool writes it: infos, sweeps, ground truth.

`ROOT/infos/simbev_infos_{train,val,test}.json` describes every frame; its paths are those of the machine that
made the data and hold from `sweeps/`, `ground-truth/` ... on. Masks are in SimBEV orientation.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import pose, rotation_from_quaternion, transform_points
from omma.data.formats.frame import Boxes, Frame, Masks, require, require_array
from omma.data.formats.simbev_boxes import boxes_of, plain_records, read_boxes, read_pickled_records
from omma.data.formats.simbev_layout import (
    CAMERAS,
    CLASSES_BY_COUNT,
    OFFICIAL_CELL_M,
    OFFICIAL_FOLDERS,
    infos_path,
)
from omma.data.io import read_json, read_npz
from omma.errors import DataError

FRAME_STRIDE = 20  # frames come at 20 Hz and neighbours are near duplicates; the benchmark takes one a second
_APART_US = 500_000
CELL_KEY = "bev_res"  # in a scene's own configuration, where it is kept


def is_layout(root: Path) -> bool:
    """Whether the folder, or a folder `simbev` in it, has infos of SimBEV."""
    return any((base / "infos").is_dir() for base in (root, root / "simbev"))


def _base(root: Path) -> Path:
    return root if (root / "infos").is_dir() else root / "simbev"


def read_frames(root: Path, split: str, *, frame_stride: int | None = None) -> list[Frame]:
    """The frames of a split, scenes in sorted order.

    Args:
        root: data set folder.
        split: "train", "val" or "test".
        frame_stride: take every n-th frame of each scene; default 20, or 1 where the time stamps
            (microseconds) say that frames are half a second apart already.

    Raises:
        DataError: the infos of the split are missing or lack something.
    """
    base = _base(root)
    file = base / infos_path(split)
    if not file.is_file():
        known = sorted(path.stem.rpartition("_")[2] for path in (base / "infos").glob("simbev_infos_*.json"))
        raise DataError(f"{file}: no such file", f"splits there are: {', '.join(known) or 'none'}")
    infos = read_json(file)
    rig = _rig(require(infos, "metadata", str(file)), f"{file}, metadata")
    scenes = require(infos, "data", str(file))
    return [
        _frame(record, scenes[scene], base, rig, (scene, index, f"{file}, {scene}, frame {index}"))
        for scene in sorted(scenes)
        for index, record in _thinned(scenes[scene], frame_stride, f"{file}, {scene}")
    ]


def _thinned(scene: Any, frame_stride: int | None, where: str) -> list[tuple[int, Any]]:
    frames = require(scene, "scene_data", where)
    return list(enumerate(frames))[:: frame_stride or _default_stride(frames)]


def _default_stride(frames: Any) -> int:
    times = [record.get("timestamp", 0) for record in frames[:2]]
    return 1 if times[-1] - times[0] >= _APART_US else FRAME_STRIDE


def _rig(metadata: Any, where: str) -> dict[str, Any]:
    """Cameras of the data set; the arrays are shared by all frames."""
    cameras = [name for name in CAMERAS if name in metadata]
    if not cameras:
        raise DataError(f"{where}: has none of {', '.join(CAMERAS)}")
    intrinsics = require_array(metadata, "camera_intrinsics", (3, 3), where)
    poses = [_pose(metadata[name], "sensor2ego", f"{where}, {name}") for name in cameras]
    lidar = _pose(metadata["LIDAR"], "sensor2ego", f"{where}, LIDAR") if "LIDAR" in metadata else None
    return {
        "ego_T_lidar": lidar,
        "cameras": tuple(cameras),
        "intrinsics": np.stack([intrinsics] * len(cameras)),
        "ego_T_cam": np.stack(poses),
    }


def _pose(record: Any, prefix: str, where: str) -> NDArray[np.float64]:
    rotation = require_array(record, f"{prefix}_rotation", (4,), where)
    translation = require_array(record, f"{prefix}_translation", (3,), where)
    return pose(rotation_from_quaternion(rotation), translation)


def _frame(
    record: Any, scene_record: Any, base: Path, rig: dict[str, Any], place: tuple[str, int, str]
) -> Frame:
    scene, index, where = place
    optional = {key: _re_root(record[key], key, where) for key in ("GT_DET", "LIDAR") if key in record}
    return Frame(
        token=f"{scene}_{index:04d}",
        scene=scene,
        where=where,
        folder=base,
        images=tuple(_re_root(require(record, f"RGB-{name}", where), name, where) for name in rig["cameras"]),
        label=_re_root(require(record, "GT_SEG", where), "GT_SEG", where),
        cell_m=_find(scene_record.get("scene_info"), CELL_KEY) or OFFICIAL_CELL_M,
        boxes=optional.get("GT_DET"),
        global_T_ego=_pose(record, "ego2global", where),
        lidar=optional.get("LIDAR"),
        **rig,
    )


def _re_root(name: Any, field: str, where: str) -> str:
    """The part of a path from a folder of the data set on."""
    parts = PurePosixPath(str(name).replace("\\", "/")).parts
    starts = [index for index, part in enumerate(parts) if part in OFFICIAL_FOLDERS]
    if not starts:
        raise DataError(f"{where}: {field} is {name!r}, with none of {', '.join(OFFICIAL_FOLDERS)} in it")
    return "/".join(parts[starts[-1] :])


def _find(value: Any, key: str) -> float | None:
    """The first number under a key at any depth."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(key), (int, float)):
        return float(value[key])
    found = (_find(item, key) for item in value.values())
    return next((number for number in found if number), None)


def read_masks(frame: Frame) -> Masks:
    """The class masks of a frame as stored: rows along -x, columns along -y.

    Raises:
        DataError: the file is missing or has a number of classes that no version of SimBEV has.
    """
    path = frame.folder / str(frame.label)
    values = read_npz(path, "data")
    if values.ndim != 3 or len(values) not in CLASSES_BY_COUNT:
        counts = ", ".join(map(str, CLASSES_BY_COUNT))
        raise DataError(
            f"{path}: data has shape {values.shape}, expected (classes, rows, columns) with {counts}"
        )
    return Masks(values.astype(bool), CLASSES_BY_COUNT[len(values)], frame.cell_m)


def read_frame_boxes(frame: Frame, *, trust_pickle: bool = False) -> Boxes | None:
    """The boxes of a frame in its ego frame, or None where there are none that may be read.

    A .json beside a pickled .bin comes first; the .bin itself is opened only with `trust_pickle`.
    """
    if not isinstance(frame.boxes, str):
        return frame.boxes
    path = frame.folder / frame.boxes
    plain = path.with_suffix(".json")
    if plain.is_file():
        return read_boxes(plain, frame.global_T_ego)
    if path.suffix == ".bin" and trust_pickle:
        return boxes_of(plain_records(read_pickled_records(path)), frame.global_T_ego, str(path))
    return None


def read_points(frame: Frame) -> NDArray[np.floating] | None:
    """LiDAR points (P, 3) in the ego frame, or None where the frame has none."""
    if frame.lidar is None or frame.ego_T_lidar is None:
        return None
    return transform_points(frame.ego_T_lidar, read_npz(frame.folder / frame.lidar, "data")[:, :3])
