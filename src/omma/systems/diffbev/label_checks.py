"""What `omma doctor` checks about labels, depths and calibration: arrays in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.nuscenes_bev import CLASSES, IGNORE_BIT, LabelGrid, expand_bits
from omma.errors import Finding
from omma.systems.data_checks import check_shares

BoolMap = NDArray[np.bool_]

VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
MOST_IGNORED = 0.99
LARGEST_OFFSET = 0.25  # of the image width, between the principal point and the middle
FIELD_OF_VIEW_DEG = (15.0, 150.0)
BELOW_CAMERA_M = (0.3, 1.0)  # points this far below a camera are at the height of car bodies
CLEARLY_BETTER, GOOD_OVERLAP, FEWEST_HITS = 2.0, 0.3, 30

_SYMMETRIES: dict[str, Callable[[Any], Any]] = {
    "as they are": lambda m: m,
    "mirrored left to right": lambda m: m[:, ::-1],
    "mirrored near to far": lambda m: m[::-1],
    "turned by 180 degrees": lambda m: m[::-1, ::-1],
}


def check_values(labels: Sequence[NDArray[np.int16]], classes: Sequence[str], making: str) -> list[Finding]:
    """How much the labels hold, and whether they use the bits of the classes.

    Args:
        labels: bits (Z, X) of some images.
        classes: K names; bit c is class c.
        making: how the labels were made, for the evidence.
    """
    used = np.bitwise_or.reduce([np.bitwise_or.reduce(bits.ravel()) for bits in labels])
    foreign = [bit for bit in range(len(classes), IGNORE_BIT) if int(used) >> bit & 1]
    if foreign:
        return [
            Finding(
                "error",
                f"labels use bits {', '.join(map(str, foreign))}, which are no class",
                f"{len(labels)} labels; there are {len(classes)} classes, bits 0 to {len(classes) - 1}",
                "set system.classes to the classes of these labels, or make the labels again",
            )
        ]
    expanded = [expand_bits(bits, len(classes)) for bits in labels]
    counted = sum(int(counts.sum()) for _, counts in expanded)
    ignored = 1 - counted / sum(bits.size for bits in labels)
    totals = np.sum([(masks & counts).sum((1, 2)) for masks, counts in expanded], axis=0)
    shares = totals / max(counted, 1)
    listed = ", ".join(f"{name} {100 * share:.2f} %" for name, share in zip(classes, shares, strict=True))
    evidence = f"{len(labels)} labels; ignored {100 * ignored:.1f} %; of the others {listed}; {making}"
    if ignored > MOST_IGNORED:
        fix = "make them with ignore=fov, or check calibration and LiDAR"
        return [Finding("error", "hardly a cell of the labels counts", evidence, fix)]
    found = check_shares(dict(zip(classes, shares.tolist(), strict=True)), evidence, "make them again")
    return [found or Finding("ok", "labels hold all classes", evidence)]


def check_intrinsics(
    intrinsics: NDArray[np.float64], sizes: Sequence[tuple[int, int]], names: Sequence[str]
) -> Finding:
    """Whether calibrations are camera matrices of images of these sizes.

    Args:
        intrinsics: (N, 3, 3) in pixels of the image files.
        sizes: N heights and widths of the files.
        names: N images, for the evidence.
    """
    for matrix, (height, width), name in zip(intrinsics, sizes, names, strict=True):
        problem = _odd(matrix, height, width)
        if problem:
            return Finding(
                "error",
                "intrinsics are those of another image size",
                f"{name}: {problem}",
                "write the files' own intrinsics: scale fx, cx by the width, fy, cy by the height",
            )
    angles = 2 * np.degrees(np.arctan([size[1] / 2 for size in sizes] / intrinsics[:, 0, 0]))
    listed = ", ".join(f"{height} x {width}" for height, width in sorted(set(sizes)))
    evidence = f"files of {listed}; {angles.min():.0f} to {angles.max():.0f} degrees wide"
    return Finding("ok", "intrinsics fit the images", evidence)


def _odd(matrix: NDArray[np.float64], height: int, width: int) -> str:
    """What is wrong with a camera matrix, or nothing."""
    fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    if min(fx, fy) <= 0 or not np.allclose(matrix[2], [0, 0, 1]):
        return f"{matrix.round(2).tolist()} is no camera matrix"
    if abs(cx - width / 2) > LARGEST_OFFSET * width or abs(cy - height / 2) > LARGEST_OFFSET * height:
        return f"the principal point is ({cx:.0f}, {cy:.0f}), the image {width} pixels wide and {height} high"
    degrees = 2 * np.degrees(np.arctan(width / 2 / fx))
    if not FIELD_OF_VIEW_DEG[0] <= degrees <= FIELD_OF_VIEW_DEG[1]:
        return f"fx {fx:.0f} means a view of {degrees:.0f} degrees over {width} pixels"
    return ""


@dataclass(frozen=True)
class Fit:
    """How well labels agree with what is known otherwise, under each symmetry.

    Args:
        scores: symmetry -> agreement; larger is better.
        what: the evidence that they are compared with.
    """

    scores: Mapping[str, float]
    what: str

    @property
    def best_turned(self) -> str:
        """The symmetry other than none that fits best."""
        return max(list(self.scores)[1:], key=lambda name: self.scores[name])

    def finding(self, least: float) -> Finding:
        """Whether labels lie as they should; `least` is the agreement that one may expect."""
        own, turned = self.scores["as they are"], self.scores[self.best_turned]
        evidence = f"{self.what}: {own:.2f} as they are, {turned:.2f} {self.best_turned}"
        if turned > CLEARLY_BETTER * own:
            return Finding(
                "error",
                f"the labels fit only when {self.best_turned}",
                evidence,
                "row 0 is the nearest, column 0 the leftmost: turn the label files; no setting does it",
            )
        if own < least:
            return Finding(
                "warning",
                "labels hardly agree with the boxes",
                evidence,
                "check system.grid and whether labels, images and tables are of one data set",
            )
        return Finding("ok", "labels lie the right way round", evidence)


def vehicles_in(bits: NDArray[np.int16], classes: Sequence[str]) -> BoolMap:
    """Cells (Z, X) of any vehicle, also those that do not count."""
    chosen = sum(1 << index for index, name in enumerate(classes) if name in (*VEHICLES, "vehicle"))
    return (bits & chosen) > 0


def object_channels() -> list[int]:
    """Which of the ten object masks of `draw_footprints` are vehicles."""
    first = len(CLASSES) - 10
    return [CLASSES.index(name) - first for name in VEHICLES]


def fit_boxes(labels: Sequence[BoolMap], boxes: Sequence[BoolMap]) -> Fit:
    """Overlap of vehicle labels (Z, X) with the footprints of vehicle boxes in the same cells."""
    scores = {}
    for name, turn in _SYMMETRIES.items():
        shared = sum(int((turn(label) & box).sum()) for label, box in zip(labels, boxes, strict=True))
        union = sum(int((turn(label) | box).sum()) for label, box in zip(labels, boxes, strict=True))
        scores[name] = shared / max(union, 1)
    return Fit(scores, f"IoU with the boxes of {len(labels)} images")


def fit_points(labels: Sequence[BoolMap], points: Sequence[BoolMap]) -> Fit | None:
    """Share of cells with a LiDAR point at the height of car bodies that are vehicles.

    Returns:
        None where hardly any such cell is a vehicle under any symmetry, so that nothing can be told.
    """
    cells = sum(int(point.sum()) for point in points)
    hits = {
        name: sum(int((turn(label) & point).sum()) for label, point in zip(labels, points, strict=True))
        for name, turn in _SYMMETRIES.items()
    }
    if max(hits.values()) < FEWEST_HITS:
        return None
    scores = {name: number / cells for name, number in hits.items()}
    return Fit(scores, f"share of {cells} cells with LiDAR at car height that are vehicles")


def point_cells(depth_m: NDArray[np.float32], intrinsics: NDArray[np.floating], grid: LabelGrid) -> BoolMap:
    """Cells (Z, X) with a depth at the height of car bodies.

    Args:
        depth_m: (H, W) metres, 0 where unknown.
        intrinsics: (3, 3) in pixels of the depth picture.
        grid: the cells.
    """
    rows, columns = np.nonzero(depth_m)
    z = depth_m[rows, columns].astype(np.float64)
    x = (columns + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0] * z
    below = (rows + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1] * z
    row = np.floor((z - grid.z[0]) / grid.cell_m).astype(np.int64)
    column = np.floor((x - grid.x[0]) / grid.cell_m).astype(np.int64)
    kept = (below > BELOW_CAMERA_M[0]) & (below < BELOW_CAMERA_M[1])
    kept &= (row >= 0) & (row < grid.shape[0]) & (column >= 0) & (column < grid.shape[1])
    cells = np.zeros(grid.shape, bool)
    cells[row[kept], column[kept]] = True
    return cells


def check_depths(depths: Sequence[NDArray[np.float32]], max_depth: float, shapes: str) -> Finding:
    """Whether depths are in metres, somewhere known and within reach (R15).

    Args:
        depths: (H, W) metres of some images, 0 where unknown.
        max_depth: largest depth that was to be kept.
        shapes: what a batch holds, for the evidence.
    """
    ratios = np.array([(depth > 0).mean() for depth in depths])
    known = [depth[depth > 0] for depth in depths if depth.any()]
    low = min((float(values.min()) for values in known), default=0.0)
    high = max((float(values.max()) for values in known), default=0.0)
    evidence = (
        f"{shapes}; gt_depth {low:.3f} to {high:.3f} m; gt_depth_mask valid_ratio {ratios.mean():.6f} "
        f"({ratios.min():.6f} to {ratios.max():.6f} over {len(depths)} samples)"
    )
    step = "`omma prepare nuscenes-depth` makes them"
    if not known:
        return Finding("error", "no depth is known in the samples looked at", evidence, step)
    if high <= 1:
        fix = f"npz and npy hold metres, 16-bit png metres times 256; {step}"
        return Finding("error", "depths are not in metres: all are at most 1", evidence, fix)
    if high > max_depth + 1e-3:
        fix = f"write metres and keep at most {max_depth:g}; {step}"
        return Finding("error", f"depths reach {high:.1f} m, beyond {max_depth:g} m", evidence, fix)
    return Finding("ok", "depths are in metres", evidence)
