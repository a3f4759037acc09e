"""SimBEV as train/val folders of scenes with a meta.json each.

`ROOT/{train,val}/<scene>/<orientation>/meta.json`: a list of samples with token, six images, intrinsics,
extrinsics (ego to camera) and a label; files are relative to the meta.json. A sample may name a file of
`boxes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omma.data.formats.frame import Frame, Masks, read_records, read_rig, require
from omma.data.formats.simbev_layout import CAMERAS
from omma.data.io import read_npy, read_picture
from omma.errors import DataError

META = "meta.json"


def is_layout(root: Path) -> bool:
    """Whether the folder has a train or val folder with a meta.json in it."""
    return any(next((root / split).rglob(META), None) for split in ("train", "val"))


def read_frames(root: Path, split: str, *, orientation: str = "all", frame_stride: int = 1) -> list[Frame]:
    """The frames of a split, scenes in sorted order.

    Args:
        root: data set folder.
        split: name of the folder below it.
        orientation: folder name between scene and meta.json, or "all".
        frame_stride: take every n-th sample of each meta.json.

    Raises:
        DataError: the folder is missing, or a meta.json lacks something.
    """
    folder = root / split
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", f"split {split!r} of this layout is a folder of scenes")
    files = sorted(file for file in folder.rglob(META) if orientation in ("all", file.parent.name))
    scenes = [file.relative_to(folder).parts[0] for file in files]
    return [
        frame
        for file, scene in zip(files, scenes, strict=True)
        for frame in read_meta(file, scene)[::frame_stride]
    ]


def read_meta(file: Path, scene: str, *, labelled: bool = True) -> list[Frame]:
    """The frames of one meta.json.

    Args:
        file: the meta.json.
        scene: name of its scene.
        labelled: whether a sample without `label` is an error.

    Raises:
        DataError: the file or a field is missing or has the wrong form.
    """
    return [_frame(record, file, where, scene, labelled) for where, record in read_records(file)]


def _frame(record: Any, file: Path, where: str, scene: str, labelled: bool) -> Frame:
    return Frame(
        token=str(require(record, "token", where)),
        scene=scene,
        where=where,
        folder=file.parent,
        label=require(record, "label", where) if labelled else record.get("label"),
        boxes=record.get("boxes"),
        **read_rig(record, where, CAMERAS),
    )


def read_masks(frame: Frame) -> Masks:
    """The label of a frame as stored, anything above 0 occupied.

    It is a .npy of (X, Y) or (X, Y, channels), or a picture; the layout does not say which way it is turned.

    Raises:
        DataError: the file is missing, damaged or of another shape.
    """
    path = frame.folder / str(frame.label)
    values = read_npy(path) if path.suffix == ".npy" else read_picture(path)
    if values.ndim not in (2, 3):
        raise DataError(f"{path}: the label has shape {values.shape}, expected (X, Y) or (X, Y, channels)")
    channels = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    return Masks(channels > 0, None, None)
