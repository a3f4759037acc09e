"""What every multi-camera reader produces: one Frame an instant, label masks and boxes in the ego frame.

Ego frame: x forward, y left, z up, metres. Masks come in the orientation that their
format stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid
from omma.data.io import read_json
from omma.errors import ConfigError, DataError

BOTTOM_FACE = (0, 2, 6, 4)  # corner numbers in order around the box; bit 4 is x, bit 2 is y, bit 1 is z


@dataclass(frozen=True)
class Boxes:
    """Upright 3-D boxes around one vehicle.

    Args:
        corners: (M, 8, 3) float, ego frame, metres; corner 4 * xbit + 2 * ybit + zbit.
        classes: M names.
        visibility: (M,) 1 (hidden) to 4 (in full view), 0 where unknown.
    """

    corners: NDArray[np.floating]
    classes: tuple[str, ...]
    visibility: NDArray[np.int64]

    @property
    def footprints(self) -> NDArray[np.float64]:
        """(M, 4, 2): x, y of the bottom corners in order around each box."""
        return self.corners[:, BOTTOM_FACE, :2]

    def of_classes(self, names: Sequence[str]) -> Boxes:
        """The boxes whose class is one of the names, or lies below one (`vehicle` admits `vehicle.car`)."""
        return self.chosen(
            np.array([any(is_class(own, name) for name in names) for own in self.classes], bool)
        )

    def chosen(self, keep: NDArray[np.bool_]) -> Boxes:
        """The boxes where `keep` (M,) is true."""
        classes = tuple(name for name, kept in zip(self.classes, keep, strict=True) if kept)
        return Boxes(self.corners[keep], classes, self.visibility[keep])


def is_class(own: str, name: str) -> bool:
    """Whether a dotted class name is `name`, lies below it, or has it as a part: car of `vehicle.car`."""
    return own == name or own.startswith(f"{name}.") or name in own.split(".")


@dataclass(frozen=True)
class Frame:
    """One instant of one scene.

    Args:
        token: unique name.
        scene: name of the scene.
        where: file and index that describe it, for messages.
        folder: what `images` and the other names are relative to.
        cameras: N camera names.
        images: N image files.
        intrinsics: (N, 3, 3) pixels of the image files.
        ego_T_cam: (N, 4, 4) camera to ego.
        label: label file.
        cell_m: cell size of the label, where the data set says it.
        visibility: file with the visibility of every label cell.
        boxes: file of boxes, or the boxes themselves.
        global_T_ego: (4, 4) pose of the vehicle.
        lidar: file of points.
        ego_T_lidar: (4, 4) LiDAR to ego.
    """

    token: str
    scene: str
    where: str
    folder: Path
    cameras: tuple[str, ...]
    images: tuple[str, ...]
    intrinsics: NDArray[np.float64]
    ego_T_cam: NDArray[np.float64]  # noqa: N815  a pose is named to_T_from
    label: str | None = None
    cell_m: float | None = None
    visibility: str | None = None
    boxes: str | Boxes | None = None
    global_T_ego: NDArray[np.float64] | None = None  # noqa: N815
    lidar: str | None = None
    ego_T_lidar: NDArray[np.float64] | None = None  # noqa: N815

    @cached_property
    def files(self) -> list[Path]:
        """Every file of the frame."""
        names = [*self.images, self.label, self.visibility]
        return [self.folder / name for name in names if name is not None]


@dataclass(frozen=True)
class Masks:
    """Label masks around the vehicle.

    Args:
        values: (C, d, d) bool, the vehicle in the middle.
        classes: C names; none where the file does not tell classes apart.
        cell_m: size of a cell in metres; none where the cells are those of the grid wanted.
    """

    values: NDArray[np.bool_]
    classes: tuple[str, ...] | None
    cell_m: float | None

    def unite(self, targets: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
        """One mask a target, the union of its classes; (T, d, d).

        Without class names a single target takes the union of all channels and several targets take one each.

        Raises:
            ConfigError: a target names a class that the masks do not have.
        """
        if self.classes is None:
            return self._unite_unnamed(targets)
        unknown = {name for names in targets.values() for name in names} - set(self.classes)
        if unknown:
            raise ConfigError(
                f"system.targets names {', '.join(sorted(unknown))}, which the labels do not have",
                f"they have {', '.join(self.classes)}",
            )
        channels = [[self.classes.index(name) for name in names] for names in targets.values()]
        return np.stack([self.values[indices].any(0) for indices in channels])

    def _unite_unnamed(self, targets: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
        if len(targets) == 1:
            return self.values.any(0, keepdims=True)
        if len(targets) == len(self.values):
            return self.values
        raise ConfigError(
            f"system.targets has {len(targets)} entries, the label {len(self.values)} channels without names",
            "take one target, or as many as channels in their order",
        )


def require(record: Any, field: str, where: str) -> Any:
    """The value of a field of a JSON record.

    Raises:
        DataError: the record is no mapping or lacks the field.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected fields and values, found {type(record).__name__}")
    if field not in record:
        raise DataError(
            f"{where}: field {field!r} is missing", f"it holds {', '.join(map(str, record)) or 'nothing'}"
        )
    return record[field]


def require_array(record: Any, field: str, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """A field as a float64 array of the given shape.

    Raises:
        DataError: it is missing, not numeric, not finite or of another shape.
    """
    value = require(record, field, where)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {field} is not an array of numbers of shape {shape}") from None
    if array.shape != shape:
        raise DataError(f"{where}: {field} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {field} holds a value that is not finite")
    return array


def read_records(file: Path) -> list[tuple[str, Any]]:
    """The records of a JSON list, each with its place for messages.

    Raises:
        DataError: the file is missing or holds no list.
    """
    records = read_json(file)
    if not isinstance(records, list):
        raise DataError(f"{file}: holds {type(records).__name__}, expected a list of samples")
    return [(f"{file}, sample {index}", record) for index, record in enumerate(records)]


def read_rig(record: Any, where: str, default_cameras: Sequence[str]) -> dict[str, Any]:
    """`cameras`, `images`, `intrinsics` and `ego_T_cam` of a record with ego-to-camera `extrinsics`.

    Raises:
        DataError: a field is missing or does not fit the number of cameras.
    """
    names = require(record, "images", where)
    cameras = tuple(record.get("cam_channels", default_cameras))
    if not isinstance(names, list) or len(names) != len(cameras):
        count = f"{len(names)} entries" if isinstance(names, list) else "no list"
        raise DataError(f"{where}: images has {count}, expected {len(cameras)}: {', '.join(cameras)}")
    return {
        "cameras": cameras,
        "images": tuple(names),
        "intrinsics": require_array(record, "intrinsics", (len(cameras), 3, 3), where),
        "ego_T_cam": invert_rigid(require_array(record, "extrinsics", (len(cameras), 4, 4), where)),
    }


def read_scene_names(path: Path) -> list[str]:
    """Scene names of a split file, one a line.

    Raises:
        DataError: the file is missing or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"{path}: no such split file") from None
    if not lines:
        raise DataError(f"{path}: names no scene")
    return lines
