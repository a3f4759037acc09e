"""What `omma doctor` checks about calibration and labels: each function looks at frames and returns findings.

Two mistakes cost the most time with this model: extrinsics the wrong way round and mirrored labels. Both
train without an error and end near zero (spec section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omma.core.grid import BevGrid
from omma.core.symmetry import AS_IT_IS, SYMMETRIES, symmetries
from omma.data.formats.frame import Boxes, Frame
from omma.data.transforms import fill_boxes
from omma.errors import Finding
from omma.systems.data_checks import check_shares

BoolMap = NDArray[np.bool_]

LEVEL_COSINE = 0.5  # a camera whose "down" points within 60 degrees of the ground
HEIGHT_M = (0.3, 4.0)
LARGEST_OFFSET_M = 5.0
SIDE_TOLERANCE = 0.1  # a camera at the side may look a little back though it is called front
GOOD_OVERLAP, CLEARLY_BETTER = 0.3, 2.0


def check_extrinsics(ego_T_cam: NDArray[np.float64], cameras: Sequence[str], where: str) -> list[Finding]:
    """Whether poses are rigid, camera-to-ego, at a plausible place and look where their names say.

    Args:
        ego_T_cam: (N, 4, 4) as the model gets them.
        cameras: N names.
        where: the frame, for the evidence.
    """
    rotations, positions = ego_T_cam[:, :3, :3], ego_T_cam[:, :3, 3]
    products = rotations @ np.swapaxes(rotations, -1, -2)
    determinants = np.linalg.det(rotations)
    if np.abs(products - np.eye(3)).max() > 1e-2 or determinants.min() < 0:
        return [
            Finding(
                "error",
                "extrinsics are no rotations",
                f"{where}: determinants {determinants.round(3).tolist()}",
                "write rigid matrices of a right-handed frame; CARLA's left-handed y must be negated",
            )
        ]
    down, inverted_down = rotations[:, 2, 1].mean(), rotations[:, 1, 2].mean()
    if down > -LEVEL_COSINE:
        return [_not_level(down, inverted_down, where)]
    return [*_misplaced(positions, cameras, where), *_look_astray(rotations, cameras, where)] or [
        Finding("ok", "extrinsics lead from the cameras to the ego frame", f"{where}: down maps to -z")
    ]


def _not_level(down: float, inverted_down: float, where: str) -> Finding:
    if inverted_down < -LEVEL_COSINE:
        return Finding(
            "error",
            "extrinsics are the wrong way round",
            f"{where}: the cameras' down axis maps to z = {down:+.2f}, expected -1; in the inverse it is "
            f"{inverted_down:+.2f}",
            "set data.invert_extrinsics=false; if it is false, the files hold camera-to-ego matrices where "
            "this layout stores ego-to-camera: invert them in the files",
        )
    return Finding(
        "warning",
        "the cameras are not level",
        f"{where}: their down axis maps to z = {down:+.2f} on average, expected about -1",
        "check that the ego frame has z up and camera frames have y down",
    )


def _misplaced(positions: NDArray[np.float64], cameras: Sequence[str], where: str) -> list[Finding]:
    odd = [
        f"{name} at ({x:.1f}, {y:.1f}, {z:.1f})"
        for name, (x, y, z) in zip(cameras, positions, strict=True)
        if not HEIGHT_M[0] <= z <= HEIGHT_M[1] or max(abs(x), abs(y)) > LARGEST_OFFSET_M
    ]
    if not odd:
        return []
    return [
        Finding(
            "warning",
            "cameras are at unlikely places",
            f"{where}: {', '.join(odd)} m",
            f"expected {HEIGHT_M[0]} to {HEIGHT_M[1]} m above ground, within {LARGEST_OFFSET_M:g} m of the "
            "vehicle's middle; check units and the origin of the ego frame",
        )
    ]


def _look_astray(rotations: NDArray[np.float64], cameras: Sequence[str], where: str) -> list[Finding]:
    """Cameras whose name says one side and whose axis points to another."""
    expected = {"FRONT": (0, 1.0), "BACK": (0, -1.0), "LEFT": (1, 1.0), "RIGHT": (1, -1.0)}
    astray = [
        f"{name} looks along ({rotation[0, 2]:+.2f}, {rotation[1, 2]:+.2f})"
        for name, rotation in zip(cameras, rotations, strict=True)
        for axis, sign in (expected[part] for part in name.split("_") if part in expected)
        if sign * rotation[axis, 2] < -SIDE_TOLERANCE
    ]
    if not astray:
        return []
    return [
        Finding(
            "error",
            "cameras look where their names do not say",
            f"{where}: {', '.join(astray)} (x ahead, y left)",
            "the order of images and extrinsics differs, or the y axis was not negated",
        )
    ]


@dataclass(frozen=True)
class Fit:
    """How well labels agree with boxes under each symmetry.

    Args:
        overlap: symmetry -> intersection over union of all labels together.
        num_boxes: boxes that were compared.
    """

    overlap: dict[str, float]
    num_boxes: int

    @property
    def best(self) -> str:
        """The symmetry that fits best."""
        return max(self.overlap, key=lambda name: self.overlap[name])


def fit_boxes(labels: Sequence[BoolMap], boxes: Sequence[Boxes], grid: BevGrid) -> Fit:
    """Compare labels (X, Y) with the footprints of boxes under the eight symmetries of a square."""
    drawn = [fill_boxes(some.footprints, grid) > 0 for some in boxes]
    overlap = {}
    for name in symmetries(grid.nx[:2]):
        turned = [SYMMETRIES[name](label) for label in labels]
        shared = sum(int((label & box).sum()) for label, box in zip(turned, drawn, strict=True))
        union = sum(int((label | box).sum()) for label, box in zip(turned, drawn, strict=True))
        overlap[name] = shared / max(union, 1)
    return Fit(overlap, sum(len(some.classes) for some in boxes))


def check_orientation(fit: Fit, label_frame: str) -> Finding:
    """Whether labels lie as the boxes do.

    Args:
        fit: of `fit_boxes`.
        label_frame: the present setting, "lss" or "simbev".
    """
    own, best = fit.overlap[AS_IT_IS], fit.overlap[fit.best]
    evidence = f"IoU with {fit.num_boxes} boxes: {own:.2f} as it is, {best:.2f} {fit.best}"
    if fit.best != AS_IT_IS and best > CLEARLY_BETTER * own:
        other = "simbev" if label_frame == "lss" else "lss"
        fix = f"set data.label_frame={other}"
        if fit.best != "turned by 180 degrees":
            fix = "write the labels with axis 0 along +x and axis 1 along +y; no setting mirrors labels"
        return Finding("error", f"the labels fit only when {fit.best}", evidence, fix)
    if own < GOOD_OVERLAP:
        return Finding(
            "warning",
            "labels hardly agree with the boxes",
            evidence,
            "check system.grid, data.label_cell_m and whether labels and boxes are of the same frames",
        )
    return Finding("ok", "labels lie the right way round", f"IoU with {fit.num_boxes} boxes: {own:.2f}")


def check_labels(targets: Sequence[NDArray[np.float32]], names: Sequence[str]) -> list[Finding]:
    """How much the labels hold.

    Args:
        targets: labels (C, X, Y) of some frames.
        names: C target names.
    """
    shares = np.stack([target.mean((1, 2)) for target in targets])
    empty = float((shares.max(1) == 0).mean())
    listed = ", ".join(
        f"{name} {100 * share:.2f} %" for name, share in zip(names, shares.mean(0), strict=True)
    )
    evidence = f"{len(targets)} labels; occupied cells: {listed}; empty labels: {100 * empty:.0f} %"
    found = check_shares(
        dict(zip(names, shares.mean(0).tolist(), strict=True)),
        evidence,
        "check system.targets and system.grid",
    )
    if found is not None:
        return [found]
    if empty > 0.5:
        return [Finding("warning", "most labels are empty", evidence, "leave out frames without objects")]
    return [Finding("ok", "labels hold objects", evidence)]


def check_image_sizes(
    sizes: dict[str, tuple[int, int]], source_size: tuple[int, int], top_crop: int
) -> Finding:
    """Whether the files' aspect is that of the source.

    Args:
        sizes: camera -> (H, W) of its file.
        source_size: (H, W) of data.source_size.
        top_crop: data.top_crop.
    """
    listed = sorted(set(sizes.values()))
    shown = ", ".join(f"{height} x {width}" for height, width in listed)
    height, width = listed[0]
    rows = round(source_size[1] * height / width)
    if len(listed) == 1 and abs(rows - source_size[0] - top_crop) > 0.02 * rows and rows > source_size[0]:
        return Finding(
            "info",
            "images change their aspect",
            f"files are {shown}, data.source_size {source_size[0]} x {source_size[1]}; the geometry follows",
            f"data.top_crop={rows - source_size[0]} keeps the aspect and cuts rows off the top",
        )
    return Finding("ok", "image sizes", f"{shown} (height x width)")


def frame_place(frame: Frame) -> str:
    """The frame for an evidence line."""
    return f"{frame.scene}, {frame.token}"
