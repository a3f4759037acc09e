"""SimBEV's boxes (GT_DET): JSON is read as it is, the pickled original only where the user trusts it.

Unpickling can run code. The reader here admits NumPy arrays and plain containers alone, and still is used on
request only (`data.trust_pickle=true`); `omma prepare boxes` turns the files into JSON once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid, transform_points
from omma.data.formats.frame import Boxes, require, require_array
from omma.data.formats.simbev_layout import SEMANTIC_TAGS
from omma.data.io import read_json
from omma.data.pickles import read_pickled
from omma.errors import DataError

ASSUMED_HEIGHT_M = 1.5  # of boxes that are known from above only
_CLASS_OF_TAG = {tag: name for name, tag in SEMANTIC_TAGS.items()}


def read_boxes(path: Path, global_T_ego: NDArray[np.float64] | None) -> Boxes:
    """The boxes of one frame in its ego frame.

    Args:
        path: a .json with a list of records: `bounding_box` (8, 3) in the global frame, `corners_ego` (8, 3)
            or `center_xy_ego`, `length`, `width`, `yaw_rad_mod_pi`; class from `class` or `semantic_tags`.
        global_T_ego: (4, 4) pose of the vehicle; needed for global boxes.

    Raises:
        DataError: the file is missing, no JSON, or lacks a field.
    """
    return boxes_of(read_json(path), global_T_ego, str(path))


def boxes_of(records: Any, global_T_ego: NDArray[np.float64] | None, where: str) -> Boxes:
    """The boxes of a list of records; see `read_boxes`."""
    if not isinstance(records, list):
        raise DataError(f"{where}: holds {type(records).__name__}, expected a list of boxes")
    corners, classes = [], []
    for index, record in enumerate(records):
        place = f"{where}, box {index}"
        name = _class_name(record, place)
        if name is not None:
            corners.append(_corners(record, global_T_ego, place))
            classes.append(name)
    stacked = np.stack(corners) if corners else np.zeros((0, 8, 3))
    return Boxes(stacked, tuple(classes), np.zeros(len(classes), np.int64))


def _class_name(record: Any, where: str) -> str | None:
    """The class of the first tag that has one; None for kinds of objects that no mask shows."""
    if isinstance(record, dict) and "class" in record:
        return str(record["class"])
    names = [_CLASS_OF_TAG[tag] for tag in require(record, "semantic_tags", where) if tag in _CLASS_OF_TAG]
    return names[0] if names else None


def _corners(record: Any, global_T_ego: NDArray[np.float64] | None, where: str) -> NDArray[np.float64]:
    if "corners_ego" in record:
        return require_array(record, "corners_ego", (8, 3), where)
    if "bounding_box" not in record:
        return _corners_from_above(record, where)
    if global_T_ego is None:
        raise DataError(f"{where}: bounding_box is in the global frame and the vehicle's pose is not known")
    return transform_points(invert_rigid(global_T_ego), require_array(record, "bounding_box", (8, 3), where))


def _corners_from_above(record: Any, where: str) -> NDArray[np.float64]:
    centre = require_array(record, "center_xy_ego", (2,), where)
    length, width, yaw = (
        float(require_array(record, field, (), where)) for field in ("length", "width", "yaw_rad_mod_pi")
    )
    bits = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    local = (bits - [0.5, 0.5, 0]) * [length, width, ASSUMED_HEIGHT_M]
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return turned + np.array([*centre, 0.0])


def read_pickled_records(path: Path) -> list[Any]:
    """The records of a GT_DET.bin (a pickled list, or an object array in NumPy's own format).

    Raises:
        DataError: the file is missing, damaged, or holds anything but arrays and plain values.
    """
    value = read_pickled(path, "box file")
    if not isinstance(value, (list, np.ndarray)):
        raise DataError(f"{path}: holds {type(value).__name__}, expected a list of boxes")
    return list(value)


def plain_records(records: Iterable[Any]) -> list[Any]:
    """Records with arrays as lists, for JSON."""
    return [_plain(record) for record in records]


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
