"""`omma doctor lss/...`: is the data there, complete, calibrated, and labelled the right way round?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omma.core.grid import BevGrid
from omma.core.poses import invert_rigid, pose
from omma.data.formats.frame import Boxes
from omma.data.io import image_size
from omma.errors import DataError, Finding, OmmaError
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

NUM_FRAMES, NUM_LABELS, NUM_SHOWN = 8, 100, 2
IMAGE_WIDTH = 450
POINT_HEIGHTS_M = (0.3, 3.0)  # of LiDAR points that show objects rather than the road
PICTURE = "lss_labels_in_images.png"


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
    samples = next(iter(splits.values()))
    findings += _missing_files(splits)
    try:
        findings += _calibration(samples, config)
        findings += _labels(samples, config)
        if out is not None:
            findings.append(_picture(samples, config, out))
    except DataError as error:
        findings.append(_as_finding(error))
    return [*findings, _memory(config)]


def _splits(config: LSSConfig) -> tuple[list[Finding], dict[str, BevSamples]]:
    findings: list[Finding] = []
    splits: dict[str, BevSamples] = {}
    for split in dict.fromkeys((config.data.train_split, config.data.val_split)):
        try:
            splits[split], _ = build(config, split, augment=False)
        except OmmaError as error:
            finding = _as_finding(error)
            findings += [] if finding in findings else [finding]
            continue
        samples = splits[split]
        scenes = len({frame.scene for frame in samples.frames})
        evidence = f"layout {samples.labels.layout}, {len(samples)} samples in {scenes} scenes"
        findings.append(Finding("ok", f"split {split}", evidence))
    return findings, splits


def _as_finding(error: OmmaError) -> Finding:
    return Finding("error", error.message, "", error.hint or "")


def _missing_files(splits: dict[str, BevSamples]) -> list[Finding]:
    files = [path for samples in splits.values() for path in samples.files()]
    missing = [path for path in files if not path.is_file()]
    if not missing:
        return [Finding("ok", "files", f"all {len(files)} are there")]
    return [
        Finding(
            "error",
            f"{len(missing)} of {len(files)} files are missing",
            f"first: {', '.join(map(str, missing[:3]))}",
            "copy them again, or take the samples out of the lists that name them",
        )
    ]


def _some(samples: BevSamples, number: int) -> list[int]:
    """Indices spread evenly over a data set."""
    return np.unique(np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int)).tolist()


def _calibration(samples: BevSamples, config: LSSConfig) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for index in _some(samples, NUM_FRAMES):
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
    bad = [finding for finding in findings.values() if finding.severity != "ok"]
    return [*(bad or findings.values()), aspect]


def _labels(samples: BevSamples, config: LSSConfig) -> list[Finding]:
    chosen = _some(samples, NUM_LABELS)
    targets = [samples.labels.target(samples.frames[index]) for index in chosen]
    findings = check_labels(targets, list(config.system.targets))
    if samples.labels.layout == "nuscenes":
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


def _picture(samples: BevSamples, config: LSSConfig, out: Path) -> Finding:
    """Labels laid into the images, and from above, for a few samples that have some."""
    indices = [i for i in _some(samples, NUM_LABELS) if samples.labels.target(samples.frames[i]).any()]
    rows = [row for index in (indices or [0])[:NUM_SHOWN] for row in _rows(samples, index, config)]
    out.mkdir(parents=True, exist_ok=True)
    save_png(out / PICTURE, panel(rows, width=1400, title="labels in the images", max_row_height=420))
    return Finding(
        "info",
        "picture of the labels in the images",
        "cells are labels, wires are boxes where they are known",
        "labels must lie on the objects in all images",
        str(out / PICTURE),
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


def _memory(config: LSSConfig) -> Finding:
    """What a training step needs, from one forward pass of one sample."""
    fixed, each = estimate_memory(config)
    size = config.train.batch_size
    number = size if isinstance(size, int) else 1
    total = (fixed + number * each) / 2**30
    parts = f"{each / 2**30:.2f} GiB a sample, {fixed / 2**30:.2f} GiB for weights, gradients and optimiser"
    evidence = f"about {total:.1f} GiB for batch size {number}: {parts}"
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] / 2**30
        if total > 0.9 * free:
            fix = (
                "train.precision=bf16-mixed, train.activation_checkpointing=true or smaller train.batch_size"
            )
            return Finding(
                "warning", "memory may not suffice", f"{evidence}; free on the GPU: {free:.1f} GiB", fix
            )
    return Finding("info", "memory of a training step", evidence)


def estimate_memory(config: LSSConfig) -> tuple[int, int]:
    """Bytes of weights, gradients and Adam's moments, and bytes kept for the backward pass a sample.

    Runs one sample of random data through the network on the CPU and counts what autograd keeps.
    """
    from omma.engine.task import StepInfo
    from omma.systems.lss.task import LSSTask

    system = config.system.model_copy(update={"pretrained": "none"})
    task = LSSTask(config.model_copy(update={"system": system}))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*task.parameters(), *task.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    lower = config.train.precision != "32"
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=lower),
    ):
        # the result stays referenced so that no storage is freed and counted under a reused address
        result = task.training_step(task.example_batch(1), StepInfo(0, 0, 0.0))
    del result
    weights = sum(parameter.numel() * parameter.element_size() for parameter in task.parameters())
    return 4 * weights, sum(kept.values())
