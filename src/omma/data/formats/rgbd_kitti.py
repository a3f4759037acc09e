"""KITTI depth completion: 16-bit pictures of metres times 256, measured LiDAR as input.

ROOT/{train,val}/DRIVE/proj_depth/{groundtruth,velodyne_raw}/image_0{2,3}/FRAME.png; the colour images lie
beside them in ROOT/{train,val}/DRIVE/image_0X/data/ or in KITTI raw's ROOT/DATE/DRIVE/image_0X/data/. The
selected validation set is ROOT[/depth_selection]/val_selection_cropped/ with image/, groundtruth_depth/ and
velodyne_raw/. Cameras come from `calib_cam_to_cam.txt` of the drive or of its date, where it is there, or
from intrinsics/ of the selection. KITTI centres pixel (0, 0) on 0; here it covers 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import (
    KITTI,
    DepthFile,
    ImageFile,
    RgbdFrame,
    parse_intrinsics,
    read_intrinsics,
)
from omma.data.io import read_bytes
from omma.errors import DataError

MAX_DEPTH_M = 100.0
DATASET = "kitti"
CALIBRATION = "calib_cam_to_cam.txt"
CROP_ROWS = 352  # LiDAR does not reach the rows above
SELECTION = "val_selection_cropped"
SPLITS = ("train", "val", SELECTION)
_TRUTH, _RAW = "proj_depth/groundtruth", "proj_depth/velodyne_raw"
_CAMERAS = ("image_02", "image_03")
_IMAGE_SUFFIXES = (".png", ".jpg")
_DATE = len("2011_09_26")  # of a drive's name


def is_layout(root: Path) -> bool:
    """Whether the folder holds drives with projected depth, or the selected validation set."""
    drives = any(next((root / split).glob(f"*/{_TRUTH}"), None) for split in ("train", "val"))
    return drives or _selection(root) is not None


def read_frames(
    root: Path, split: str, *, max_depth_m: float = MAX_DEPTH_M, rows: int | None = CROP_ROWS
) -> list[RgbdFrame]:
    """The frames of a split, sorted by name.

    Args:
        root: data set folder.
        split: "train", "val" or "val_selection_cropped".
        max_depth_m: depth that counts as 1 when normalised.
        rows: keep only so many rows at the bottom; none keeps all.

    Raises:
        DataError: the split, an image or an input depth is missing.
    """
    if split == SELECTION:
        return _selected(root, max_depth_m, rows)
    frames = [
        frame
        for truth in sorted((root / split).glob(f"*/{_TRUTH}"))
        for camera in _CAMERAS
        for frame in _of_camera(truth.parents[1], camera, max_depth_m=max_depth_m, rows=rows)
    ]
    if not frames:
        known = ", ".join(name for name in SPLITS if (root / name).is_dir() or _is_selection(root, name))
        raise DataError(f"{root / split}: has no depth picture", f"splits there are: {known or 'none'}")
    return frames


def _is_selection(root: Path, name: str) -> bool:
    return name == SELECTION and _selection(root) is not None


def _of_camera(drive: Path, camera: str, *, max_depth_m: float, rows: int | None) -> list[RgbdFrame]:
    """The frames of one camera of a drive, which all have one size and calibration."""
    truths = sorted((drive / _TRUTH / camera).glob("*.png"))
    if not truths:
        return []
    images = [_find_image(drive, f"{camera}/data/{truth.stem}") for truth in truths]
    raws = [drive / _RAW / camera / truth.name for truth in truths]
    for raw in raws:
        if not raw.is_file():
            raise DataError(f"{raw}: no such file, the input depth of {raw.name}")
    calibration = _calibration((images[0].parents[2], drive), camera)
    intrinsics = None if calibration is None else _in_kept_rows(calibration, images[0], rows)
    return [
        RgbdFrame(
            token=f"{drive.name}/{camera}/{truth.stem}",
            dataset=DATASET,
            image=ImageFile(image, rows),
            depth=DepthFile(truth, KITTI, rows),
            max_depth_m=max_depth_m,
            raw=DepthFile(raw, KITTI, rows),
            intrinsics=intrinsics,
        )
        for truth, image, raw in zip(truths, images, raws, strict=True)
    ]


def _calibration(drives: Sequence[Path], camera: str) -> NDArray[np.float64] | None:
    """Camera matrix of the rectified pictures, as KITTI writes it, from a drive's or its date's folder."""
    dates = [drive.parents[1] / drive.name[:_DATE] for drive in drives]
    folders = [*drives, *(drive.parent for drive in drives), *dates]
    file = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    if file is None:
        return None
    key = f"P_rect_{camera[-2:]}:"
    for line in read_bytes(file).decode("utf-8", "replace").splitlines():
        if line.startswith(key):
            return parse_intrinsics(line[len(key) :], f"{file}, {key}")
    raise DataError(f"{file}: has no line {key}")


def _find_image(drive: Path, name: str) -> Path:
    places = [drive, drive.parents[1] / drive.name[:_DATE] / drive.name]
    for place in places:
        for suffix in _IMAGE_SUFFIXES:
            path = place / f"{name}{suffix}"
            if path.is_file():
                return path
    raise DataError(
        f"{places[0] / name}.png: no such image",
        f"KITTI's depth comes without images: put those of KITTI raw there or into {places[1] / name}.png",
    )


def _selection(root: Path) -> Path | None:
    places = (root, root / SELECTION, root / "depth_selection" / SELECTION)
    return next((place for place in places if (place / "groundtruth_depth").is_dir()), None)


def _selected(root: Path, max_depth_m: float, rows: int | None) -> list[RgbdFrame]:
    folder = _selection(root)
    truths = sorted((folder / "groundtruth_depth").glob("*.png")) if folder is not None else []
    if folder is None or not truths:
        raise DataError(f"{root}: has no {SELECTION} with groundtruth_depth/*.png")
    frames = []
    for truth in truths:
        image = folder / "image" / truth.name.replace("groundtruth_depth", "image")
        raw = folder / "velodyne_raw" / truth.name.replace("groundtruth_depth", "velodyne_raw")
        for path in (image, raw):
            if not path.is_file():
                raise DataError(f"{path}: no such file, it belongs to {truth.name}")
        matrix = folder / "intrinsics" / f"{image.stem}.txt"
        frames.append(
            RgbdFrame(
                token=truth.stem.replace("_groundtruth_depth", ""),
                dataset=DATASET,
                image=ImageFile(image, rows),
                depth=DepthFile(truth, KITTI, rows),
                max_depth_m=max_depth_m,
                raw=DepthFile(raw, KITTI, rows),
                intrinsics=_in_kept_rows(read_intrinsics(matrix), image, rows) if matrix.is_file() else None,
            )
        )
    return frames


def _in_kept_rows(intrinsics: NDArray[np.float64], image: Path, rows: int | None) -> NDArray[np.float64]:
    """KITTI's camera matrix in pixels of the rows that are kept, pixel (0, 0) from 0 to 1."""
    kept = intrinsics.copy()
    kept[:2, 2] += 0.5
    if rows is not None:
        kept[1, 2] -= max(0, ImageFile(image).size()[0] - rows)
    return kept
