"""Where pictures and depths of a data set are: folders, NYUv2, KITTI, nuScenes, or sets for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from omma.data.formats import (
    nuscenes,
    rgbd_folders,
    rgbd_ibims,
    rgbd_kitti,
    rgbd_nuscenes,
    rgbd_nyu,
    rgbd_reference,
    rgbd_uniformat,
)
from omma.data.formats.rgbd import MILLIMETRES, RgbdFrame
from omma.errors import ConfigError, DataError

Layout = Literal[
    "auto",
    "folders",
    "nyu_folder",
    "reference",
    "nyu_mat",
    "nyu_h5",
    "kitti",
    "nuscenes",
    "ibims",
    "uniformat",
]


def find_layout(root: Path) -> Layout:
    """The layout that a folder looks like.

    Raises:
        DataError: there is no such folder, it looks like none, or a part of it is missing.
    """
    if rgbd_nyu.find_labelled(root) is not None:
        return "nyu_mat"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", "make one: `omma world rgbd-nyu --out DIR`")
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
    rgbd_folders.refuse_half_pairs(root)
    if rgbd_ibims.find_folder(root) is not None:
        return "ibims"
    if rgbd_uniformat.is_layout(root):
        return "uniformat"
    raise DataError(
        f"{root}: no layout is recognised",
        f"expected rgb/ and depth/ (in a split's folder or beside {rgbd_folders.NOTE}), RGBD_Datasets/, "
        f"{rgbd_nyu.LABELLED}, "
        "{train,val}/**/*.h5, {train,val}/DRIVE/proj_depth/groundtruth/, nuScenes v1.0-*/ tables, "
        f"{rgbd_ibims.FOLDER}/, or *.npy with rgb, dep and gt",
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
        layout: "auto" finds out; "nyu_folder" is "folders" in millimetres up to 10 m without `rgbd.json`.
        units_per_metre: stored value of one metre, for folders of pictures; none reads `rgbd.json`.
        max_depth_m: depth that counts as 1 when normalised; none takes that of the layout or of `rgbd.json`.

    Raises:
        DataError: the data set, the split or a file is missing.
        ConfigError: units are given for a layout that has its own.
    """
    found = find_layout(root) if layout == "auto" else layout
    if found == "nyu_folder":
        units_per_metre, max_depth_m = units_per_metre or MILLIMETRES, max_depth_m or rgbd_nyu.MAX_DEPTH_M
    if found in ("folders", "nyu_folder", "reference"):
        reader = rgbd_reference if found == "reference" else rgbd_folders
        return reader.read_frames(root, split, units_per_metre=units_per_metre, max_depth_m=max_depth_m)
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
    if found == "ibims":
        return rgbd_ibims.read_frames(root, split, **settings)
    if found == "uniformat":
        return rgbd_uniformat.read_frames(root, split, **settings)
    return rgbd_nuscenes.read_frames(root, split, **settings)
