"""Where pictures and depths are: folders, NYUv2, KITTI, nuScenes, or a picture with points of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omma.data.formats import nuscenes, rgbd_folders, rgbd_kitti, rgbd_nuscenes, rgbd_nyu, rgbd_reference
from omma.data.formats.nuscenes_depth import scatter_nearest
from omma.data.formats.rgbd import DEPTH_SUFFIXES, Depth, DepthFile, DepthSource, ImageFile, RgbdFrame
from omma.data.formats.rgbd_folders import DepthUnits
from omma.data.io import read_bytes
from omma.errors import ConfigError, DataError

Layout = Literal["auto", "folders", "reference", "nyu_mat", "nyu_h5", "kitti", "nuscenes"]

MAX_DEPTHS_M = (10.0, 20.0, 30.0, 100.0, 150.0)
_HEADROOM = 1.25
POINT_SUFFIXES = (".csv", ".txt")


def find_layout(root: Path) -> Layout:
    """The layout that a folder looks like.

    Raises:
        DataError: there is no such folder, or it looks like none.
    """
    if rgbd_nyu.find_labelled(root) is not None:
        return "nyu_mat"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if nuscenes.is_layout(root):
        return "nuscenes"
    if rgbd_kitti.is_layout(root):
        return "kitti"
    if rgbd_reference.is_layout(root):
        return "reference"
    if rgbd_folders.is_layout(root):
        return "folders"
    if rgbd_nyu.is_h5_layout(root):
        return "nyu_h5"
    raise DataError(
        f"{root}: no layout is recognised",
        f"expected rgb/ and depth/ (in a split's folder or beside {rgbd_folders.NOTE}), RGBD_Datasets/, "
        f"{rgbd_nyu.LABELLED}, "
        "{train,val}/**/*.h5, {train,val}/DRIVE/proj_depth/groundtruth/, or nuScenes v1.0-*/ tables",
    )


def read_frames(
    root: Path,
    split: str,
    *,
    layout: Layout = "auto",
    units_per_metre: float | None = None,
    max_depth_m: float | None = None,
) -> list[RgbdFrame]:
    """The frames of a split.

    Args:
        root: data set folder, or the labelled .mat.
        split: "train", "val" or what else the data set has.
        layout: "auto" finds out.
        units_per_metre: stored value of one metre, for folders of pictures; none reads `rgbd.json`.
        max_depth_m: depth that counts as 1 when normalised; none takes that of the layout or of `rgbd.json`.

    Raises:
        DataError: the data set, the split or a file is missing.
        ConfigError: units are given for a layout that has its own, or only half of them.
    """
    found = find_layout(root) if layout == "auto" else layout
    if found in ("folders", "reference"):
        reader = rgbd_folders if found == "folders" else rgbd_reference
        return reader.read_frames(root, split, units=_given_units(units_per_metre, max_depth_m))
    if units_per_metre is not None:
        raise ConfigError(
            f"data.units_per_metre={units_per_metre:g}: layout {found} has its own units",
            "take the setting out",
        )
    settings = {} if max_depth_m is None else {"max_depth_m": max_depth_m}
    if found == "nyu_mat":
        return rgbd_nyu.read_labelled(rgbd_nyu.find_labelled(root) or root, split, **settings)
    if found == "nyu_h5":
        return rgbd_nyu.read_h5_frames(root, split, **settings)
    if found == "kitti":
        return rgbd_kitti.read_frames(root, split, **settings)
    return rgbd_nuscenes.read_frames(root, split, **settings)


def _given_units(units_per_metre: float | None, max_depth_m: float | None) -> DepthUnits | None:
    if units_per_metre is None and max_depth_m is None:
        return None
    if units_per_metre is None or max_depth_m is None:
        lacking = "data.units_per_metre" if units_per_metre is None else "data.max_depth"
        raise ConfigError(
            f"{lacking} is not set, its counterpart is", "set both, or none and write both into rgbd.json"
        )
    return DepthUnits(units_per_metre, max_depth_m)


@dataclass(frozen=True)
class PointDepth:
    """Depths at single pixels: a text file with `u, v, depth in metres` a line; u counts columns.

    Args:
        path: the file; a first line without numbers is skipped.
        size: (H, W) of the picture.
    """

    path: Path
    size: tuple[int, int]

    def read(self) -> Depth:
        """See DepthSource; where several points meet, the nearest counts.

        Raises:
            DataError: a line is not three numbers, or a point lies outside the picture.
        """
        points = read_points(self.path)
        height, width = self.size
        columns, rows = (np.floor(points[:, axis]).astype(np.int64) for axis in (0, 1))
        outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
        if outside.any():
            first = points[outside.argmax()]
            raise DataError(
                f"{self.path}: {int(outside.sum())} of {len(points)} points lie outside the picture of "
                f"{width} x {height} pixels, first u {first[0]:g}, v {first[1]:g}",
                "u counts columns from the left, v rows from the top, in pixels of the picture file",
            )
        return scatter_nearest(rows, columns, points[:, 2], self.size)

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


def read_points(path: Path) -> NDArray[np.float64]:
    """The points (P, 3) of a text file: u, v, depth in metres.

    Raises:
        DataError: a line is no three numbers, or a depth is not above 0.
    """
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words or (number == 1 and not _is_number(words[0])):
            continue
        if len(words) != 3 or not all(_is_number(word) for word in words):
            raise DataError(f"{path}, line {number}: {line.strip()!r} is not `u, v, depth`")
        rows.append([float(word) for word in words])
        if not 0 < rows[-1][2] < np.inf:
            raise DataError(f"{path}, line {number}: depth {words[2]} is not above 0")
    if not rows:
        raise DataError(f"{path}: holds no point")
    return np.array(rows, np.float64)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def read_pair(
    image: Path,
    raw: Path | None = None,
    *,
    units_per_metre: float | None = None,
    max_depth_m: float | None = None,
) -> RgbdFrame:
    """A picture of one's own, with or without known depths, for prediction.

    Args:
        image: the picture.
        raw: a 16-bit picture, an array of metres (.npy, .npz) or a text of points (.csv, .txt).
        units_per_metre: stored value of one metre, needed for a 16-bit picture.
        max_depth_m: depth that counts as 1 when normalised; none takes the smallest of 10, 20, 30, 100 and
            150 m that leaves a quarter above the largest known depth, and 10 m where none is known.

    Raises:
        DataError: a file is missing or damaged, of another size than the picture, or its units are unknown.
    """
    colour = ImageFile(image)
    source = None if raw is None else _raw_source(raw, colour.size(), units_per_metre)
    if max_depth_m is None:
        max_depth_m = choose_max_depth(source.read()) if source is not None else MAX_DEPTHS_M[0]
    return RgbdFrame(image.stem, "input", colour, None, max_depth_m, raw=source)


def _raw_source(path: Path, size: tuple[int, int], units_per_metre: float | None) -> DepthSource:
    suffix = path.suffix.lower()
    if suffix in POINT_SUFFIXES:
        return PointDepth(path, size)
    if suffix not in DEPTH_SUFFIXES:
        raise DataError(
            f"{path}: a depth file ends in {', '.join(DEPTH_SUFFIXES)}, points in {', '.join(POINT_SUFFIXES)}"
        )
    if suffix == ".png" and units_per_metre is None:
        raise DataError(
            f"{path}: the units of this depth picture are unknown",
            "set data.units_per_metre: 1000 for millimetres, 256 for KITTI's coding",
        )
    return DepthFile(path, units_per_metre if suffix == ".png" and units_per_metre else 1.0)


def choose_max_depth(depth: Depth) -> float:
    """The smallest usual max_depth that leaves a quarter above the largest depth, else the largest."""
    wanted = _HEADROOM * float(depth.max(initial=0.0))
    return next((limit for limit in MAX_DEPTHS_M if limit >= wanted), MAX_DEPTHS_M[-1])
