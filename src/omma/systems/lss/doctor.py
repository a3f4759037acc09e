"""`omma doctor lss/...`: is the data there, complete, calibrated, and labelled the right way round?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from omma.core.grid import BevGrid
from omma.core.poses import invert_rigid, pose
from omma.data.formats.frame import Boxes
from omma.data.io import image_size
from omma.errors import DataError, Finding
from omma.systems.data_checks import as_finding, check_files, check_overlap, read_splits, same_files, some
from omma.systems.lss.checks import (
    check_extrinsics,
    check_image_sizes,
    check_labels,
    check_orientation,
    fit_boxes,
    frame_place,
)
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.data import BevSamples, build, foreign_intrinsics
from omma.viz.bev import TRUTH, class_palette, draw_bev, paint_classes
from omma.viz.camera import CameraView, draw_boxes, draw_ground_cells
from omma.viz.image import GREY, Image, Tile, panel, resize_photo, save_png

NUM_FRAMES, NUM_LABELS, NUM_SHOWN = 8, 64, 2
IMAGE_WIDTH = 450
POINT_HEIGHTS_M = (0.3, 3.0)  # of LiDAR points that show objects rather than the road
SHEET = "lss_labels_in_images.png"


def check(config: LSSConfig, out: Path | None) -> list[Finding]:
    """Everything that can be wrong with a recipe's data.

    Args:
        config: the recipe.
        out: folder for a picture of labels in the images; none draws none.

    Returns:
        findings in the order of checking; without any split it ends there.
    """
    findings, splits = _splits(config)
    if not splits:
        return findings
    findings += [check_files(split, samples.files()) for split, samples in splits.items()]
    findings += check_overlap(config.data, splits, "samples", partial(_shared, splits))
    samples = next(iter(splits.values()))
    try:
        findings += _calibration(samples, config)
        findings += _labels(samples, config)
        if out is not None:
            findings.append(_sheet(samples, config, out))
    except DataError as error:
        known = any(finding.severity == "error" for finding in findings)
        findings += [] if known else [as_finding(error)]
    return findings


def _splits(config: LSSConfig) -> tuple[list[Finding], dict[str, BevSamples]]:
    findings, splits = read_splits(config.data, lambda split: build(config, split, augment=False)[0])
    for split, samples in splits.items():
        scenes = len({frame.scene for frame in samples.frames})
        evidence = f"layout {samples.labels.layout}, {len(samples)} samples in {scenes} scenes"
        findings.append(Finding("ok", f"split {split}", evidence))
    return findings, splits


def _shared(splits: Mapping[str, BevSamples], train: str, val: str) -> list[str]:
    """Samples of both splits, told by their first image."""
    first = [{frame.files[0]: frame.token for frame in splits[split].frames} for split in (train, val)]
    return [f"{first[1][b]} is {first[0][a]}" for a, b in same_files(*first)]


def _calibration(samples: BevSamples, config: LSSConfig) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for index in some(range(len(samples)), NUM_FRAMES):
        frame = samples.frames[index]
        matrices = invert_rigid(frame.ego_T_cam) if config.data.invert_extrinsics else frame.ego_T_cam
        for finding in check_extrinsics(matrices, frame.cameras, frame_place(frame)):
            findings.setdefault(finding.title, finding)
        lines = foreign_intrinsics(frame)
        if lines:
            findings.setdefault(
                "intrinsics",
                Finding(
                    "error",
                    "intrinsics are those of another image size",
                    f"{frame_place(frame)}: {'; '.join(lines)}",
                    "write the files' own intrinsics: scale fx, cx by the width, fy, cy by the height",
                ),
            )
    frame = samples.frames[0]
    sizes = {
        name: image_size(frame.folder / file) for name, file in zip(frame.cameras, frame.images, strict=True)
    }
    aspect = check_image_sizes(sizes, config.data.source_size, config.data.top_crop)
    if "intrinsics" not in findings:
        findings["intrinsics"] = Finding("ok", "intrinsics fit the images")
    bad = [finding for finding in findings.values() if finding.severity != "ok"]
    return [*(bad or findings.values()), aspect]


def _labels(samples: BevSamples, config: LSSConfig) -> list[Finding]:
    chosen = some(range(len(samples)), NUM_LABELS)
    targets = [samples.labels.target(samples.frames[index]) for index in chosen]
    findings = check_labels(targets, list(config.system.targets))
    if samples.labels.layout == "nuscenes" or findings[0].severity == "error":
        return findings
    known: list[tuple[np.ndarray, Boxes]] = []
    for index, target in zip(chosen, targets, strict=True):
        boxes = samples.labels.boxes(samples.frames[index])
        if boxes is not None:
            known.append(_comparable(target, boxes, config))
    if not any(len(boxes.classes) for _, boxes in known):
        return [*findings, _unverified(samples)]
    fit = fit_boxes([label for label, _ in known], [boxes for _, boxes in known], samples.grid)
    return [*findings, check_orientation(fit, samples.labels.label_frame)]


def _comparable(target: np.ndarray, boxes: Boxes, config: LSSConfig) -> tuple[np.ndarray, Boxes]:
    """The channels whose classes are all known as boxes, united, and the boxes of these classes."""
    present = set(boxes.classes)
    rows = [any(name in present for name in names) for names in config.system.targets.values()]
    names = [
        name
        for kept, names in zip(rows, config.system.targets.values(), strict=True)
        if kept
        for name in names
    ]
    return (target[rows] > 0).any(0), boxes.of_classes(names)


def _unverified(samples: BevSamples) -> Finding:
    fix = "look at the picture that `--out DIR` writes: labels must lie on the objects in all images"
    if samples.labels.layout == "simbev" and not samples.data.trust_pickle:
        step = f"`omma prepare lss-boxes root={samples.data.root}`"
        fix = f"data.trust_pickle=true or {step} gives boxes; or {fix}"
    return Finding(
        "warning", "the turn of the labels is not verified", "there are no boxes to compare with", fix
    )


def _sheet(samples: BevSamples, config: LSSConfig, out: Path) -> Finding:
    """Labels laid into the images, and from above, for a few samples that have some."""
    indices = [
        i for i in some(range(len(samples)), NUM_LABELS) if samples.labels.target(samples.frames[i]).any()
    ]
    rows = [row for index in (indices or [0])[:NUM_SHOWN] for row in _rows(samples, index, config)]
    out.mkdir(parents=True, exist_ok=True)
    save_png(out / SHEET, panel(rows, width=1400, title="labels in the images", max_row_height=420))
    return Finding(
        "info",
        "picture of the labels in the images",
        "cells are labels, wires are boxes where they are known",
        "labels must lie on the objects in all images",
        str(out / SHEET),
    )


def _rows(samples: BevSamples, index: int, config: LSSConfig) -> list[list[Tile]]:
    sample, frame = samples[index], samples.frames[index]
    ranges: dict[str, Any] = {"x_range_m": config.system.grid.x[:2], "y_range_m": config.system.grid.y[:2]}
    target = sample["target"].numpy() > 0
    boxes = samples.labels.boxes(frame)
    names = [name for united in config.system.targets.values() for name in united]
    tiles = []
    for number, name in enumerate(samples.cameras or frame.cameras):
        picture, view = _enlarged(sample, number)
        picture = draw_ground_cells(picture, target.any(0), view, colour=TRUTH, **ranges)
        if boxes is not None:
            picture = draw_boxes(picture, boxes.of_classes(names).corners, view, thickness=1)
        tiles.append(Tile(picture, name))
    palette = class_palette(len(target)) if len(target) > 1 else [TRUTH]
    legend, layers = list(zip(config.system.targets, palette, strict=True)), target
    points = samples.labels.points(frame)
    if points is not None:
        legend.append(("LiDAR", GREY))
        layers = np.concatenate([target, _occupied_by_points(samples.grid, points)[None]])
    painted = paint_classes(layers, [colour for _, colour in legend])
    above: Image = draw_bev(painted, title=frame.token, legend=legend, **ranges)
    return [*(tiles[start : start + 3] for start in range(0, len(tiles), 3)), [Tile(above)]]


def _occupied_by_points(grid: BevGrid, points: np.ndarray) -> np.ndarray:
    """Cells (X, Y) with a LiDAR point (N, 3) at the height of objects."""
    cells = np.zeros(grid.nx[:2], bool)
    tall = points[(points[:, 2] > POINT_HEIGHTS_M[0]) & (points[:, 2] < POINT_HEIGHTS_M[1])]
    index = np.floor((tall[:, :2] - [grid.x[0], grid.y[0]]) / grid.dx[:2]).astype(int)
    index = index[((index >= 0) & (index < cells.shape)).all(1)]
    cells[index[:, 0], index[:, 1]] = True
    return cells


def _enlarged(sample: dict[str, Any], number: int) -> tuple[Image, CameraView]:
    """An image that lines show well in, and how ego points reach its pixels."""

    def array(key: str) -> np.ndarray:
        return sample[key][number].double().numpy()

    img_T_sensor = array("post_rots")
    img_T_sensor[:2, 2] = array("post_trans")[:2]
    image = np.ascontiguousarray(sample["images"][number].numpy().transpose(1, 2, 0))
    factor = max(1, round(IMAGE_WIDTH / image.shape[1]))
    cam_T_ego = invert_rigid(pose(array("rots"), array("trans")))
    view = CameraView(array("intrins"), cam_T_ego, np.diag([factor, factor, 1.0]) @ img_T_sensor)
    return resize_photo(image, factor * image.shape[0], factor * image.shape[1]), view
