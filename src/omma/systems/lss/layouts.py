"""The four folder layouts behind one face: frames of a split, label grids, ignored cells, boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.grid import BevGrid
from omma.data.formats import nuscenes, simbev, simbev_cvt, simbev_seed
from omma.data.formats.frame import Boxes, Frame, Masks, read_scene_names
from omma.data.formats.simbev_boxes import read_boxes
from omma.data.formats.simbev_layout import DEFAULT_ORIENTATION, flip_bev
from omma.data.root import find_root
from omma.data.transforms import fill_boxes, masks_to_grid
from omma.errors import ConfigError, DataError
from omma.systems.lss.config import Layout, LSSConfig, LSSData

_NO_OBJECT = 255
_EGO_LENGTH_M, _EGO_WIDTH_M = 4.8, 2.0

# Settings that only some layouts can honour.
_HONOURED_BY: dict[str, tuple[Layout, ...]] = {
    "label_frame": ("simbev", "simbev-seed", "simbev-cvt"),
    "label_cell_m": ("simbev", "simbev-seed", "simbev-cvt"),
    "orientation": ("simbev-seed", "simbev-cvt"),
    "split_file": ("simbev-cvt", "nuscenes"),
    "version": ("nuscenes",),
    "min_visibility": ("simbev-cvt", "nuscenes"),
    "trust_pickle": ("simbev",),
}


def data_root(data: LSSData) -> Path:
    """The data set's folder; see `find_root`."""
    return find_root(data, "lss", "simbev-seed")


def find_layout(data: LSSData, root: Path) -> Layout:
    """The layout that the settings name, or that the folder looks like.

    Raises:
        DataError: the folder looks like none.
        ConfigError: a setting is not for this layout.
    """
    layout = data.layout if data.layout != "auto" else _look(root)
    for name, layouts in _HONOURED_BY.items():
        value = getattr(data, name)
        if layout not in layouts and value != type(data).model_fields[name].default:
            raise ConfigError(
                f"data.{name}={value}: layout {layout} does not have it; {', '.join(layouts)} do"
            )
    return layout


def _look(root: Path) -> Layout:
    if nuscenes.is_layout(root):
        return "nuscenes"
    if simbev_cvt.is_layout(root):
        return "simbev-cvt"
    if simbev.is_layout(root):
        return "simbev"
    if simbev_seed.is_layout(root):
        return "simbev-seed"
    raise DataError(
        f"{root}: no layout is recognised",
        "expected train/ and val/ with meta.json files, infos/, SimBEV_cvt_label/ or v1.0-*/ tables in it",
    )


def read_frames(data: LSSData, layout: Layout, root: Path, split: str) -> list[Frame]:
    """The frames of a split, in order.

    Raises:
        DataError: something is missing, or there is no frame.
    """
    stride = {"frame_stride": data.frame_stride} if data.frame_stride else {}
    options: dict[str, Any] = dict(stride)
    if layout in ("simbev-seed", "simbev-cvt"):
        default = "all" if layout == "simbev-seed" else DEFAULT_ORIENTATION
        options["orientation"] = default if data.orientation == "auto" else data.orientation
    if data.split_file is not None:
        options["scenes"] = read_scene_names(Path(data.split_file.replace("{split}", split)))
    if layout == "nuscenes":
        options["version"] = data.version
    reader = {
        "simbev": simbev.read_frames,
        "simbev-seed": simbev_seed.read_frames,
        "simbev-cvt": simbev_cvt.read_frames,
        "nuscenes": nuscenes.read_frames,
    }[layout]
    frames = reader(root, split, **options)
    if not frames:
        raise DataError(
            f"{root}: split {split!r} has no sample (layout {layout})",
            "check data.root, data.orientation and data.split_file",
        )
    return frames


class Labels:
    """Label grids of one layout.

    Args:
        config: grid, targets and how labels are stored.
        layout: where the frames come from.
    """

    def __init__(self, config: LSSConfig, layout: Layout) -> None:
        self.layout, self.data = layout, config.data
        self.targets, self.grid = config.system.targets, config.system.grid.bev
        self.label_frame = config.data.label_frame
        if self.label_frame == "auto":
            self.label_frame = "lss" if layout == "simbev-seed" else "simbev"

    def available(self, frame: Frame) -> bool:
        """Whether the frame has a label; inputs to predict on may have none."""
        return self.layout == "nuscenes" or frame.label is not None

    def target(self, frame: Frame) -> NDArray[np.float32]:
        """Occupied cells (T, X, Y) in {0, 1}, axis 1 along +x, axis 2 along +y.

        Raises:
            DataError: the label file is missing, damaged or of a size that does not fit the grid.
            ConfigError: the targets name a class that there is not.
        """
        occupied = self._from_boxes(frame) if self.layout == "nuscenes" else self._from_masks(frame)
        if self.data.blank_ego:
            occupied = occupied & ~_ego_cells(self.grid)
        return occupied.astype(np.float32)

    def mask(self, frame: Frame) -> NDArray[np.bool_] | None:
        """Cells (1, X, Y) that count: all but those of objects that are hardly visible; None where all do."""
        least = self.data.min_visibility
        if least is None:
            return None
        if self.layout == "nuscenes":
            assert isinstance(frame.boxes, Boxes)
            hidden = frame.boxes.chosen((frame.boxes.visibility > 0) & (frame.boxes.visibility < least))
            return fill_boxes(hidden.footprints, self.grid)[None] == 0
        visibility = self._turned(simbev_cvt.read_visibility(frame))
        inverted = _NO_OBJECT - visibility  # what the file does not cover becomes 0 and means no object
        return masks_to_grid(inverted, self._cell_m(frame.cell_m), self.grid) <= _NO_OBJECT - least

    def boxes(self, frame: Frame) -> Boxes | None:
        """The frame's boxes, or None where there are none that may be read."""
        if self.layout in ("simbev-seed", "simbev-cvt") and isinstance(frame.boxes, str):
            return read_boxes(frame.folder / frame.boxes, frame.global_T_ego)
        return simbev.read_frame_boxes(frame, trust_pickle=self.data.trust_pickle)

    def points(self, frame: Frame) -> NDArray[np.floating] | None:
        """LiDAR points (P, 3) in the ego frame, or None where the frame has none."""
        return nuscenes.read_points(frame) if self.layout == "nuscenes" else simbev.read_points(frame)

    def masks(self, frame: Frame) -> Masks:
        """The stored masks, turned so that axis 1 runs along +x and axis 2 along +y."""
        reader = {
            "simbev": simbev.read_masks,
            "simbev-seed": simbev_seed.read_masks,
            "simbev-cvt": simbev_cvt.read_masks,
        }[self.layout]
        masks = reader(frame)
        return Masks(self._turned(masks.values), masks.classes, masks.cell_m)

    def _turned(self, stored: NDArray[Any]) -> NDArray[Any]:
        return flip_bev(stored) if self.label_frame == "simbev" else stored

    def _from_boxes(self, frame: Frame) -> NDArray[np.bool_]:
        assert isinstance(frame.boxes, Boxes)
        boxes = frame.boxes
        filled = [
            fill_boxes(boxes.of_classes(names).footprints, self.grid) for names in self.targets.values()
        ]
        return np.stack(filled) > 0

    def _from_masks(self, frame: Frame) -> NDArray[np.bool_]:
        masks = self.masks(frame)
        united = masks.unite(self.targets)
        cell_m = self._cell_m(masks.cell_m)
        size = united.shape[1:]
        if cell_m is None:
            if size != self.grid.nx[:2]:
                raise DataError(
                    f"{frame.folder / str(frame.label)}: the label has {size[0]} x {size[1]} cells, the grid "
                    f"{self.grid.nx[0]} x {self.grid.nx[1]}",
                    "set system.grid to the label's extent, or data.label_cell_m to the size of its cells",
                )
            return united
        self._check_covered(frame, size[0] * cell_m / 2)
        return masks_to_grid(united, cell_m, self.grid)

    def _cell_m(self, stored: float | None) -> float | None:
        return self.data.label_cell_m or stored

    def _check_covered(self, frame: Frame, reach_m: float) -> None:
        wanted = max(abs(bound) for axis in (self.grid.x, self.grid.y) for bound in axis[:2])
        if wanted > reach_m + 1e-6:
            raise DataError(
                f"{frame.folder / str(frame.label)}: the label reaches {reach_m:g} m, the grid {wanted:g} m",
                "make system.grid smaller, or mend data.label_cell_m",
            )


def _ego_cells(grid: BevGrid) -> NDArray[np.bool_]:
    """Cells (X, Y) under the vehicle."""
    ahead, left = np.abs(grid.centres("x")), np.abs(grid.centres("y"))
    return (ahead[:, None] <= _EGO_LENGTH_M / 2) & (left[None] <= _EGO_WIDTH_M / 2)
