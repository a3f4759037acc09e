"""SimBEV labels in the form of cross-view transformers, beside SimBEV's own sweeps.

`ROOT/SimBEV_cvt_label/scene_NNNN/<orientation>/` holds meta.json, bev_*.npz (or packed .png) and
visibility_*.png, perhaps files of boxes; images are relative to ROOT, extrinsics are ego to camera, masks are
in SimBEV orientation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.frame import Frame, Masks, read_records, read_rig, require, require_array
from omma.data.formats.simbev_layout import (
    CAMERAS,
    CLASSES_BY_COUNT,
    CVT_CELL_M,
    CVT_FOLDER,
    DEFAULT_ORIENTATION,
)
from omma.data.io import read_grey, read_npz
from omma.errors import DataError

TRAIN_SHARE = 0.8
_PACKED_CLASSES = CLASSES_BY_COUNT[8]


def is_layout(root: Path) -> bool:
    """Whether the folder is, or holds, a folder of CVT labels."""
    return _label_folder(root).is_dir()


def _label_folder(root: Path) -> Path:
    return root if root.name == CVT_FOLDER else root / CVT_FOLDER


def scene_names(root: Path) -> list[str]:
    """Names of all scenes, sorted."""
    return sorted(folder.name for folder in _label_folder(root).iterdir() if folder.is_dir())


def read_frames(
    root: Path,
    split: str,
    *,
    orientation: str = DEFAULT_ORIENTATION,
    frame_stride: int = 1,
    scenes: list[str] | None = None,
) -> list[Frame]:
    """The frames of a split: the first 80 % of the sorted scenes train, the rest validate.

    Args:
        root: data set folder.
        split: "train" or "val".
        orientation: rig folder, or "all"; other rigs are turned replicas of the same frames.
        frame_stride: take every n-th sample of each meta.json.
        scenes: the split's scenes, instead of the 80 % rule.

    Raises:
        DataError: there is no such split or scene, or a meta.json lacks something.
    """
    labels = _label_folder(root)
    known = scene_names(root)
    chosen = scenes if scenes is not None else _split(known, split)
    missing = sorted(set(chosen) - set(known))
    if missing:
        raise DataError(
            f"{labels}: has no scene {missing[0]}", f"{len(missing)} scenes of the split are missing"
        )
    files = [file for scene in chosen for file in sorted((labels / scene).rglob("meta.json"))]
    files = [file for file in files if orientation in ("all", file.parent.name)]
    return [
        _frame(record, file, where, labels)
        for file in files
        for where, record in read_records(file)[::frame_stride]
    ]


def _split(scenes: list[str], split: str) -> list[str]:
    num_train = int(TRAIN_SHARE * len(scenes))
    parts = {"train": scenes[:num_train], "val": scenes[num_train:]}
    if split not in parts:
        raise DataError(
            f"split {split!r}: this layout has train and val", "data.split_file names other scenes"
        )
    return parts[split]


def _frame(record: Any, file: Path, where: str, labels: Path) -> Frame:
    beside = file.parent.relative_to(labels.parent).as_posix()
    return Frame(
        token=str(require(record, "token", where)),
        scene=file.relative_to(labels).parts[0],
        where=where,
        folder=labels.parent,
        label=f"{beside}/{require(record, 'bev', where)}",
        cell_m=_cell_m(record, where),
        visibility=f"{beside}/{record['visibility']}" if record.get("visibility") else None,
        boxes=f"{beside}/{record['boxes']}" if record.get("boxes") else None,
        global_T_ego=require_array(record, "pose", (4, 4), where) if "pose" in record else None,
        **read_rig(record, where, CAMERAS),
    )


def _cell_m(record: Any, where: str) -> float:
    """Cell size from the view matrix, which takes (x, y, 1) in metres to (column, row, 1)."""
    if "view" not in record:
        return CVT_CELL_M
    view = require_array(record, "view", (3, 3), where)
    return float(1 / np.abs(view[0, :2]).max())


def read_masks(frame: Frame) -> Masks:
    """The class masks of a frame as stored: rows along -x, columns along -y.

    Raises:
        DataError: the file is missing or has a number of classes that no version of SimBEV has.
    """
    path = frame.folder / str(frame.label)
    values = read_npz(path, "bev") if path.suffix == ".npz" else _unpack(path)
    if values.ndim != 3 or len(values) not in CLASSES_BY_COUNT:
        counts = ", ".join(map(str, CLASSES_BY_COUNT))
        raise DataError(
            f"{path}: bev has shape {values.shape}, expected (classes, rows, columns) with {counts}"
        )
    return Masks(values > 0, CLASSES_BY_COUNT[len(values)], frame.cell_m)


def _unpack(path: Path) -> NDArray[np.bool_]:
    """Bit k of every pixel is class k."""
    packed = read_grey(path).astype(np.int64)
    if packed.max(initial=0) >> len(_PACKED_CLASSES):
        raise DataError(f"{path}: has class bits above the {len(_PACKED_CLASSES)} classes of SimBEV 1.0")
    return np.stack([packed >> bit & 1 for bit in range(len(_PACKED_CLASSES))]).astype(bool)


def read_visibility(frame: Frame) -> NDArray[np.uint8]:
    """(1, d, d) visibility of the object in each cell as stored, 1 to 4, 255 where none is.

    Raises:
        DataError: the frame has no such file.
    """
    if frame.visibility is None:
        raise DataError(f"{frame.where}: field 'visibility' is missing", "data.min_visibility needs it")
    return read_grey(frame.folder / frame.visibility)[None]
