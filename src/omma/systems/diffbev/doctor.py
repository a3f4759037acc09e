"""`omma doctor diffbev/...`: is the data there, complete, calibrated, and labelled the right way round?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats import nuscenes
from omma.data.formats.nuscenes_bev import LabelGrid, draw_footprints, expand_bits
from omma.data.formats.nuscenes_index import read_index
from omma.data.formats.nuscenes_maps import locations, map_file
from omma.data.formats.nuscenes_splits import pon_scenes
from omma.data.io import image_size, read_json
from omma.errors import DataError, Finding, OmmaError
from omma.systems.data_checks import as_finding, check_files, check_overlap, read_splits, same_files, some
from omma.systems.diffbev.checks import DEPTH_STEP, LABEL_STEP
from omma.systems.diffbev.config import DiffBEVConfig
from omma.systems.diffbev.data import CameraSamples, collate, label_setting
from omma.systems.diffbev.keyframes import read_keyframes
from omma.systems.diffbev.label_checks import (
    GOOD_OVERLAP,
    Fit,
    check_depths,
    check_intrinsics,
    check_values,
    fit_boxes,
    fit_points,
    object_channels,
    point_cells,
    vehicles_in,
)
from omma.systems.diffbev.layouts import (
    DEPTH_NOTE,
    LABELS,
    Layout,
    data_root,
    find_layout,
    read_items,
    tables_version,
)
from omma.systems.diffbev.palette import COLOURS, IGNORED, paint
from omma.viz.bev import draw_camera_bev
from omma.viz.camera import CameraView, draw_ground_cells
from omma.viz.image import Tile, panel, save_png

NUM_LABELS, NUM_DEPTHS, NUM_SIZES, NUM_SHOWN = 64, 64, 8, 3
CAMERA_HEIGHT_M = 1.5  # for the picture alone; nuScenes cameras are 1.5 to 1.6 m above the ground
SHEET = "diffbev_labels_in_images.png"
# camera axes (right, down, forward) from axes forward, left, up at the camera
_CAM_T_LEVEL = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def check(config: DiffBEVConfig, out: Path | None) -> list[Finding]:
    """Everything that can be wrong with a recipe's data.

    Args:
        config: the recipe.
        out: folder for a picture of labels in the images; none draws none.

    Returns:
        findings in the order of checking; without any image it ends there.
    """
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            root = data_root(config.data)
        findings += [Finding("warning", str(one.message), "", "write it as it is") for one in told]
        layout = find_layout(config.data, root)
    except OmmaError as error:
        return [*findings, as_finding(error)]
    found, splits = _splits(config, layout, root)
    findings += [*found, *_other_scenes(config, layout, root)]
    for split, samples in splits.items():
        findings += _files(samples, split, config)
    findings += check_overlap(config.data, splits, "images", partial(_shared, splits))
    if splits:
        findings += _contents(next(iter(splits.values())), config, out)
    return findings


def _splits(
    config: DiffBEVConfig, layout: Layout, root: Path
) -> tuple[list[Finding], dict[str, CameraSamples]]:
    findings, items = read_splits(config.data, lambda split: read_items(config.data, layout, root, split))
    splits = {split: CameraSamples(found, config, layout, augment=False) for split, found in items.items()}
    for split, samples in splits.items():
        cameras = ", ".join(sorted(set(samples.items.channels) - {""})) or "cameras unknown"
        findings.append(Finding("ok", f"split {split}", f"layout {layout}, {len(samples)} images; {cameras}"))
    return findings, splits


def _shared(splits: Mapping[str, CameraSamples], train: str, val: str) -> list[str]:
    """Images of both splits."""
    items = [splits[split].items for split in (train, val)]
    pairs = same_files(*([one.folder / name for name in one.images] for one in items))
    return [f"{b} is {a}" for a, b in pairs]


def _other_scenes(config: DiffBEVConfig, layout: Layout, root: Path) -> list[Finding]:
    """Scenes that neither trains nor validates."""
    if layout != "tables" or config.data.split_lists != "pon" or config.data.split_file is not None:
        return []
    names = set(read_index(root, config.data.version).scenes.tolist())
    others = sorted(names - pon_scenes("train") - pon_scenes("val"))
    if not others:
        return []
    shown = ", ".join(others[:5])
    return [Finding("info", f"{len(others)} scenes are in neither list of PON", shown)]


def _files(samples: CameraSamples, split: str, config: DiffBEVConfig) -> list[Finding]:
    """Images, labels and depths of a split that are missing, with the command that makes them."""
    items = samples.items
    folder = items.folder
    fix = "copy them again, or leave their scenes out with data.split_file"
    found = check_files(split, [folder / name for name in items.images], "images", fix)
    findings = [] if found.severity == "ok" else [found]
    unlabelled = [token for token, name in zip(items.tokens, items.labels, strict=True) if name is None]
    if unlabelled:
        title = f"{folder / LABELS / split}: {len(unlabelled)} of {len(items)} labels are missing"
        fix = f"`{LABEL_STEP} root={folder}` makes them"
        findings.append(Finding("error", title, f"first: {unlabelled[0]}.png", fix))
        findings += _maps(folder, config)
    if config.system.depth_loss.name != "none":
        bare = [token for token, name in zip(items.tokens, items.depths, strict=True) if name is None]
        if bare:
            findings.append(
                Finding(
                    "error" if len(bare) == len(items) else "warning",
                    f"{folder / LABELS / split}_depth: {len(bare)} of {len(items)} depths are missing",
                    f"first: {bare[0]}.npz; an image without depth counts as unknown",
                    f"`{DEPTH_STEP} root={folder}` makes them",
                )
            )
    return findings or [Finding("ok", f"files of {split}", f"{len(samples.files())} are there")]


def _maps(root: Path, config: DiffBEVConfig) -> list[Finding]:
    """What labels cannot be made without."""
    if not nuscenes.is_layout(root):
        fix = f"copy samples/ and v1.0-*/ of nuScenes into {root}"
        return [Finding("warning", "labels cannot be made here: there are no nuScenes tables", "", fix)]
    try:
        cities = set(locations(nuscenes.Tables(root, config.data.version)).values())
    except OmmaError as error:
        return [as_finding(error)]
    missing = [str(map_file(root, city)) for city in sorted(cities) if not map_file(root, city).is_file()]
    if not missing:
        return [Finding("ok", "map expansion", f"polygons of {', '.join(sorted(cities))}")]
    fix = (
        f'download "Map expansion pack (v1.3)" from nuscenes.org/download and unpack it into {root / "maps"}'
    )
    return [Finding("error", "the map expansion is missing", ", ".join(missing), fix)]


def _contents(samples: CameraSamples, config: DiffBEVConfig, out: Path | None) -> list[Finding]:
    """What the files hold; a damaged one ends it."""
    findings: list[Finding] = []
    try:
        findings.append(_calibration(samples))
        findings += _labels(samples, config)
        if config.system.depth_loss.name != "none" and samples.with_depth:
            findings.append(_depths(samples, config))
        if out is not None:
            findings.append(_sheet(samples, config, out))
    except DataError as error:
        findings.append(as_finding(error))
    return findings


def _calibration(samples: CameraSamples) -> Finding:
    items, rows = samples.items, some(list(range(len(samples))), NUM_SIZES)
    sizes = [image_size(items.folder / items.images[row]) for row in rows]
    names = [f"{items.tokens[row]} {items.channels[row]}".strip() for row in rows]
    return check_intrinsics(items.intrinsics[rows], sizes, names)


def _labelled(samples: CameraSamples, number: int) -> list[int]:
    return some([row for row, name in enumerate(samples.items.labels) if name is not None], number)


def _labels(samples: CameraSamples, config: DiffBEVConfig) -> list[Finding]:
    rows = _labelled(samples, NUM_LABELS) if samples.labelled else []
    if not rows:
        return []
    labels = [_label(samples, row) for row in rows]
    classes = config.system.classes
    findings = check_values(labels, classes, label_setting(samples.items.folder))
    vehicles = [vehicles_in(label, classes) for label in labels]
    if not any(mask.any() for mask in vehicles):
        return findings
    fit, least = _fit(samples, config, rows, vehicles)
    if fit is None:
        fix = "look at the picture that `--out DIR` writes: labels must lie on the objects in the images"
        title = "the turn of the labels is not verified"
        evidence = "there are neither boxes (v1.0-*/ tables) nor enough LiDAR depths to compare with"
        return [*findings, Finding("warning", title, evidence, fix)]
    return [*findings, fit.finding(least)]


def _label(samples: CameraSamples, row: int) -> NDArray[np.int16]:
    label = samples.label(row)
    assert label is not None, "only labelled images are asked for"
    return label


def _fit(
    samples: CameraSamples, config: DiffBEVConfig, rows: list[int], vehicles: list[NDArray[np.bool_]]
) -> tuple[Fit | None, float]:
    """Agreement with boxes where the tables are there, with LiDAR depths otherwise; and what to expect."""
    grid, items = label_grid(config), samples.items
    version = tables_version(config.data, items.folder)
    if version is not None:
        tables = nuscenes.Tables(items.folder, version)
        tokens = [items.tokens[row] for row in rows]
        boxes = {
            camera.token: draw_footprints(camera.view, keyframe.footprints, grid=grid)[0][object_channels()]
            for keyframe in read_keyframes(tables, tokens, boxes=True)
            for camera in keyframe.cameras
        }
        known = [
            (mask, boxes[one].any(0)) for mask, one in zip(vehicles, tokens, strict=True) if one in boxes
        ]
        if known:
            return fit_boxes([mask for mask, _ in known], [box for _, box in known]), GOOD_OVERLAP
    points = [
        point_cells(samples.depth(row), samples.intrinsics(row), grid) if items.depths[row] else None
        for row in rows
    ]
    pairs = [(mask, cells) for mask, cells in zip(vehicles, points, strict=True) if cells is not None]
    return fit_points([mask for mask, _ in pairs], [cells for _, cells in pairs]), 0.0


def label_grid(config: DiffBEVConfig) -> LabelGrid:
    """The cells of the network's output."""
    (left, right, _), (near, far, step) = config.system.grid.x, config.system.grid.z
    return LabelGrid((left, right), (near, far), step / 2)


def _depths(samples: CameraSamples, config: DiffBEVConfig) -> Finding:
    rows = some([row for row, name in enumerate(samples.items.depths) if name is not None], NUM_DEPTHS)
    note = samples.items.folder / LABELS / DEPTH_NOTE
    reach = read_json(note)["max_depth"] if note.is_file() else config.system.grid.depth[1]
    batch = collate([samples[rows[0]]])
    shapes = [
        f"{'gt_depth' if key == 'depth' else key} {list(batch[key].shape)}"
        for key in ("image", "label", "depth")
        if key in batch
    ]
    held = f"batch keys {', '.join(batch)}; {', '.join(shapes)}"
    return check_depths([samples.depth(row) for row in rows], reach, held)


def _sheet(samples: CameraSamples, config: DiffBEVConfig, out: Path) -> Finding:
    """Labels laid into the images, and from above, for a few images."""
    rows = _labelled(samples, NUM_SHOWN) if samples.labelled else []
    tiles = [_row(samples, row, config) for row in rows or some(list(range(len(samples))), NUM_SHOWN)]
    out.mkdir(parents=True, exist_ok=True)
    save_png(out / SHEET, panel(tiles, width=1200, title="labels in the images", max_row_height=420))
    return Finding(
        "info",
        "picture of the labels in the images",
        f"cells are laid on flat ground {CAMERA_HEIGHT_M} m below the camera; dark grey does not count",
        "labels must lie on roads and objects in all images",
        str(out / SHEET),
    )


def _row(samples: CameraSamples, row: int, config: DiffBEVConfig) -> list[Tile]:
    sample, grid, classes = samples[row], label_grid(config), config.system.classes
    image = np.ascontiguousarray(sample["image"].numpy().transpose(1, 2, 0))
    title = sample["channel"] or sample["token"]
    if "label" not in sample:
        return [Tile(image, title)]
    masks, counted = expand_bits(sample["label"].numpy(), len(classes))
    view = CameraView(sample["intrinsics"].double().numpy(), _CAM_T_LEVEL)
    for mask, colour in zip(masks, COLOURS, strict=False):
        # axes of the drawing are forward and left
        image = draw_ground_cells(
            image,
            (mask & counted)[:, ::-1],
            view,
            x_range_m=grid.z,
            y_range_m=(-grid.x[1], -grid.x[0]),
            colour=colour,
            opacity=0.45,
            ground_z_m=-CAMERA_HEIGHT_M,
        )
    present = [index for index, mask in enumerate(masks[: len(COLOURS)]) if (mask & counted).any()]
    legend = [*((classes[index], COLOURS[index]) for index in present), ("does not count", IGNORED)]
    above = draw_camera_bev(
        paint(masks, ~counted), z_range_m=grid.z, x_range_m=grid.x, title=sample["token"], legend=legend
    )
    return [Tile(image, title), Tile(above)]
