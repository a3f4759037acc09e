"""Bird's-eye-view labels of nuScenes cameras: classes, bits, cells, drawing (PON, arXiv 2003.13402).

A label covers the ground ahead of one camera, in that camera's frame: rows along z (row 0 nearest), columns
along x (left to right). Bit c of a cell is class c, bit 14 means that the cell does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon, STRtree
from shapely.affinity import affine_transform

from omma.core.poses import rotation_from_quaternion
from omma.data.formats.nuscenes import Record
from omma.data.formats.nuscenes_classes import CLASSES
from omma.data.io import read_grey
from omma.errors import DataError

IGNORE_BIT = len(CLASSES)  # set where the cell is out of view or hidden
LAYERS = ("drivable_area", "ped_crossing", "walkway", "carpark_area")  # of the map; classes 0 to 3 in order

_OBJECTS = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    **{f"vehicle.bus.{kind}": "bus" for kind in ("bendy", "rigid")},
    "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle",
    **{
        f"human.pedestrian.{kind}": "pedestrian"
        for kind in ("adult", "child", "construction_worker", "police_officer")
    },
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "movable_object.trafficcone": "traffic_cone",
    "movable_object.barrier": "barrier",
}

LABEL_NOTE = "labels.json"  # beside the label folders: how the labels were made

Style = Literal["reference", "exact"]
Ignore = Literal["fov+occlusion", "fov"]
Layers = Mapping[str, STRtree]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelGrid:
    """Cells of a label, in the camera's frame.

    Args:
        x: leftmost and rightmost x in metres.
        z: nearest and farthest z in metres.
        cell_m: size of a cell.
    """

    x: tuple[float, float] = (-25.0, 25.0)
    z: tuple[float, float] = (1.0, 50.0)
    cell_m: float = 0.25

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells along z and x."""
        return round((self.z[1] - self.z[0]) / self.cell_m), round((self.x[1] - self.x[0]) / self.cell_m)

    def corners(self) -> tuple[Floats, Floats]:
        """The x and z of the near left corner of every cell, each (Z, X)."""
        rows, columns = self.shape
        x = self.x[0] + self.cell_m * np.arange(columns)
        z = self.z[0] + self.cell_m * np.arange(rows)
        return np.broadcast_to(x, self.shape), np.broadcast_to(z[:, None], self.shape)


GRID = LabelGrid()


@dataclass(frozen=True)
class LabelView:
    """The camera that a label is drawn for.

    Args:
        global_T_cam: (4, 4) camera to global at the camera's time.
        intrinsics: (3, 3) in pixels of the original image.
        image_width: of the original image.
    """

    global_T_cam: Floats  # noqa: N815  a pose is named to_T_from
    intrinsics: Floats
    image_width: int

    def ground_map(self) -> Floats:
        """(3, 3) affine map from (x, z, 1) of the camera to global (X, Y, 1); heights are left out."""
        return self.global_T_cam[np.ix_([0, 1, 3], [0, 2, 3])]


@dataclass(frozen=True)
class Footprint:
    """The ground area of one box.

    Args:
        category: nuScenes category such as vehicle.car.
        corners: (4, 2) global x, y of the bottom corners in order around it.
    """

    category: str
    corners: Floats


def read_footprints(annotations: Sequence[Record]) -> list[Footprint]:
    """The ground areas of annotations with their category; sizes are (width, length, height)."""
    around = np.array([[0.5, -0.5, -0.5], [0.5, 0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, -0.5]])
    footprints = []
    for record in annotations:
        width, length, height = record["size"]
        rotation = rotation_from_quaternion(record["rotation"])
        corners = around * [length, width, height] @ rotation.T + record["translation"]
        footprints.append(Footprint(record["category"], corners[:, :2]))
    return footprints


def object_class(category: str) -> str | None:
    """The label's class of a nuScenes category; None for one whose cells do not count."""
    return _OBJECTS.get(category)


def render_label(
    view: LabelView,
    layers: Layers,
    footprints: Sequence[Footprint],
    points_cam: NDArray[np.floating] | None,
    *,
    style: Style = "reference",
    ignore: Ignore = "fov+occlusion",
    grid: LabelGrid = GRID,
) -> NDArray[np.uint16]:
    """Draw the label of one camera.

    Args:
        view: the camera.
        layers: map layer (see LAYERS) -> tree of its shapely polygons, global metres; an absent one is empty.
        footprints: of all boxes of the sample.
        points_cam: (P, 3) LiDAR points in the camera's frame, metres; only needed for occlusion.
        style: "reference" fills as PON does: wrong where polygons are not convex, and a hole wipes what an
            earlier polygon drew; "exact" fills by the even-odd rule and unites polygons.
        ignore: which cells do not count: out of view or hidden from the LiDAR, or only those out of view.
        grid: the cells.

    Returns:
        (Z, X) bits.

    Raises:
        DataError: occlusion is asked for without points.
    """
    map_masks = draw_layers(view, layers, style=style, grid=grid)
    objects, uncounted = draw_footprints(view, footprints, grid=grid)
    ignored = uncounted | ~visible_cells(view, grid)
    if ignore == "fov+occlusion":
        if points_cam is None:
            raise DataError("hidden cells need LiDAR points", "give LIDAR_TOP, or ignore=fov")
        ignored |= occluded_cells(points_cam, grid)
    return encode_bits(np.concatenate([map_masks, objects]), ignored)


def draw_layers(
    view: LabelView, layers: Layers, *, style: Style, grid: LabelGrid = GRID
) -> NDArray[np.bool_]:
    """The four map classes (4, Z, X); see `render_label`."""
    ground = view.ground_map()
    patch = _transform(shapely.box(grid.x[0], grid.z[0], grid.x[1], grid.z[1]), ground)
    back = np.linalg.inv(ground)
    masks = np.zeros((len(LAYERS), *grid.shape), np.uint8)
    for mask, name in zip(masks, LAYERS, strict=True):
        tree = layers.get(name)
        for index in sorted(tree.query(patch)) if tree is not None else ():
            for part in _polygons(tree.geometries[index].intersection(patch)):
                _fill(mask, _transform(part, back), style, grid)
    return masks > 0


def draw_footprints(
    view: LabelView, footprints: Sequence[Footprint], *, grid: LabelGrid = GRID
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The ten object classes (10, Z, X), and the cells (Z, X) of objects of no class."""
    back = np.linalg.inv(view.ground_map())
    first = len(LAYERS)
    masks = np.zeros((len(CLASSES) - first + 1, *grid.shape), np.uint8)
    for footprint in footprints:
        name = object_class(footprint.category)
        channel = len(masks) - 1 if name is None else CLASSES.index(name) - first
        cv2.fillConvexPoly(masks[channel], _cells(footprint.corners @ back[:2, :2].T + back[:2, 2], grid), 1)
    return masks[:-1] > 0, masks[-1] > 0


def visible_cells(view: LabelView, grid: LabelGrid = GRID) -> NDArray[np.bool_]:
    """Cells (Z, X) whose near left corner projects between the image's left and right side."""
    x, z = grid.corners()
    u = x / z * view.intrinsics[0, 0] + view.intrinsics[0, 2]
    return (u >= 0) & (u < view.image_width)


def occluded_cells(points_cam: NDArray[np.floating], grid: LabelGrid = GRID) -> NDArray[np.bool_]:
    """Cells (Z, X) farther than every LiDAR point (P, 3) in their direction, among directions x / z."""
    width = grid.cell_m / grid.z[1]
    half = round(max(abs(bound) for bound in grid.x) / width)
    x, z = points_cam[:, 0], points_cam[:, 2]
    slopes = np.round(x[z > 0] / z[z > 0] / width + half)
    inside = (slopes > 0) & (slopes < 2 * half)
    farthest = np.zeros(2 * half)
    np.maximum.at(farthest, slopes[inside].astype(np.int64), z[z > 0][inside])
    cell_x, cell_z = grid.corners()
    cell_slopes = np.round(cell_x / cell_z / width + half)
    bins = np.clip(cell_slopes, 0, 2 * half - 1).astype(np.int64)
    return farthest[bins] < cell_z


def encode_bits(masks: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Bits (Z, X) of class masks (K, Z, X) and the cells (Z, X) that do not count."""
    bits = np.zeros(ignored.shape, np.uint16)
    for index, mask in enumerate(masks):
        bits |= mask.astype(np.uint16) << np.uint16(index)
    return bits | ignored.astype(np.uint16) << np.uint16(IGNORE_BIT)


def expand_bits(bits: NDArray[Any], num_classes: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Class masks (num_classes, Z, X) and the cells (Z, X) that count, of bits (Z, X)."""
    wide = bits.astype(np.int32)
    masks = wide >> np.arange(num_classes)[:, None, None] & 1
    return masks > 0, wide >> IGNORE_BIT & 1 == 0


def label_note(*, style: Style, ignore: Ignore, grid: LabelGrid = GRID) -> dict[str, Any]:
    """The content of LABEL_NOTE: what the labels beside it are made of."""
    return {
        "style": style,
        "ignore": ignore,
        "classes": list(CLASSES),
        "ignore_bit": IGNORE_BIT,
        "x_m": list(grid.x),
        "z_m": list(grid.z),
        "cell_m": grid.cell_m,
    }


def encode_png(bits: NDArray[np.uint16]) -> bytes:
    """A label (Z, X) as a 16-bit PNG with one channel."""
    done, data = cv2.imencode(".png", bits)
    assert done, "OpenCV encodes every two-dimensional uint16 array"
    return data.tobytes()


def read_label(path: Path) -> NDArray[np.int16]:
    """The bits (Z, X) of a label file.

    Raises:
        DataError: the file is missing, damaged, not 16-bit or has a bit beyond IGNORE_BIT.
    """
    bits = read_grey(path)
    if bits.dtype != np.uint16:
        raise DataError(f"{path}: has {bits.dtype} values, expected a 16-bit label of one bit a class")
    if bits.max() >> (IGNORE_BIT + 1):
        raise DataError(
            f"{path}: has value {bits.max()}; labels use bits 0 to {IGNORE_BIT}",
            "is this a label? `omma prepare nuscenes-bev-labels` makes them",
        )
    return bits.astype(np.int16)


def coarsen_label(bits: NDArray[np.int16], factor: int) -> NDArray[np.int16]:
    """A label of cells `factor` times as long, (Z / factor, X / factor).

    A coarse cell counts if any of its cells does, and holds every class that one of those holds.
    """
    rows, columns = (cells // factor for cells in bits.shape)
    hidden = (bits >> IGNORE_BIT).astype(bool)
    blocks = np.where(hidden, 0, bits).reshape(rows, factor, columns, factor)
    classes = np.bitwise_or.reduce(blocks, axis=(1, 3))
    nothing_counts = hidden.reshape(rows, factor, columns, factor).all(axis=(1, 3))
    return (classes | nothing_counts * np.int16(1 << IGNORE_BIT)).astype(np.int16)


def _transform(polygon: Polygon, matrix: Floats) -> Polygon:
    (a, b, c), (d, e, f) = matrix[:2]
    return affine_transform(polygon, [a, b, d, e, c, f])


def _polygons(geometry: shapely.Geometry) -> list[Polygon]:
    """The parts with an area; an intersection may also hold lines and points."""
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    if isinstance(geometry, MultiPolygon | shapely.GeometryCollection):
        return [part for member in geometry.geoms for part in _polygons(member)]
    return []


def _fill(mask: NDArray[np.uint8], polygon: Polygon, style: Style, grid: LabelGrid) -> None:
    rings = [_cells(np.array(ring.coords), grid) for ring in (polygon.exterior, *polygon.interiors)]
    if style == "exact":
        drawn = np.zeros_like(mask)
        cv2.fillPoly(drawn, rings, 1)
        mask |= drawn
        return
    for ring, value in zip(rings, (1, *[0] * (len(rings) - 1)), strict=True):
        cv2.fillConvexPoly(mask, ring, value)


def _cells(xz: Floats, grid: LabelGrid) -> NDArray[np.int32]:
    """Camera x, z (N, 2) in metres as whole columns and rows, half to even."""
    return np.round((xz - [grid.x[0], grid.z[0]]) / grid.cell_m).astype(np.int32)
