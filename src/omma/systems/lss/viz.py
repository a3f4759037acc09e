"""How a prediction is drawn: six images with the predicted cells on the ground, and the maps from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omma.core.poses import invert_rigid, pose
from omma.engine.task import Prediction
from omma.viz.bev import (
    OVERLAY_LEGEND,
    class_palette,
    draw_bev,
    paint_classes,
    paint_mask,
    paint_overlay,
    paint_probability,
)
from omma.viz.camera import CameraView, draw_ground_cells
from omma.viz.image import Image, Tile, panel

THRESHOLD = 0.5


def draw(predictions: Sequence[tuple[str, Prediction]]) -> Image:
    """Draw one sample as several runs see it.

    The cameras stand in rows of three, the front row first; the maps have x (forward) up and y to the left.

    Args:
        predictions: (run name, prediction) pairs of the same sample.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows: list[list[Tile]] = []
    for name, prediction in predictions:
        head = f"{name}: " if len(predictions) > 1 else ""
        rows += _camera_rows(prediction, head)
    rows += [_map_row(name, prediction, len(predictions) > 1) for name, prediction in predictions]
    return panel(rows, width=1280, title=str(predictions[0][1].meta["token"]), max_row_height=440)


def _camera_rows(prediction: Prediction, head: str) -> list[list[Tile]]:
    occupied = (prediction.arrays["probability"] > THRESHOLD).any(0)
    ranges = _ranges(prediction)
    tiles = []
    for index in _left_to_right(prediction.arrays["rots"]):
        image = prediction.arrays["images"][index]
        picture = draw_ground_cells(
            np.ascontiguousarray(image.transpose(1, 2, 0)),
            occupied,
            _view(prediction.arrays, index),
            **ranges,
        )
        tiles.append(Tile(picture, head + _looks_at(prediction.arrays["rots"][index])))
    return [tiles[start : start + 3] for start in range(0, len(tiles), 3)]


def _left_to_right(ego_R_cam: np.ndarray) -> list[int]:
    """Camera indices: those that look ahead, then those that look back, each from left to right."""
    x, y = ego_R_cam[:, 0, 2], ego_R_cam[:, 1, 2]
    return sorted(range(len(x)), key=lambda i: (x[i] < -1e-3, -y[i]))


def _view(arrays: dict[str, np.ndarray], index: int) -> CameraView:
    img_T_sensor = arrays["post_rots"][index].astype(float)
    img_T_sensor[:2, 2] = arrays["post_trans"][index][:2]
    ego_T_cam = pose(arrays["rots"][index], arrays["trans"][index])
    return CameraView(arrays["intrins"][index].astype(float), invert_rigid(ego_T_cam), img_T_sensor)


def _looks_at(ego_R_cam: np.ndarray) -> str:
    """The direction a camera looks in: "front left, 55° to the left"."""
    x, y = ego_R_cam[:2, 2]
    yaw = float(np.degrees(np.arctan2(y, x)))
    side = "left" if yaw > 0 else "right"
    if abs(yaw) < 10:
        return "front"
    if abs(yaw) > 170:
        return "back"
    return f"{'front' if abs(yaw) < 90 else 'back'} {side}, {abs(yaw):.0f}°"


def _map_row(name: str, prediction: Prediction, named: bool) -> list[Tile]:
    """Ground truth, prediction and overlay; only the prediction where there is no ground truth."""
    probability, target = prediction.arrays["probability"], prediction.arrays.get("target")
    several = len(probability) > 1
    maps: list[tuple[str, Any]] = []
    if target is not None:
        maps.append(("ground truth", _paint(target > 0) if several else paint_mask(target[0] > 0)))
    maps.append(
        ("prediction", _paint(probability > THRESHOLD) if several else paint_probability(probability[0]))
    )
    if target is not None:
        maps.append(("overlay", paint_overlay((target > 0).any(0), (probability > THRESHOLD).any(0))))
    classes = prediction.meta["classes"]
    legend = list(zip(classes, class_palette(len(classes)), strict=True)) if several else OVERLAY_LEGEND
    head = f"{name}: " if named else ""
    return [
        Tile(draw_bev(painted, title=head + title, legend=legend, **_ranges(prediction)))
        for title, painted in maps
    ]


def _paint(masks: np.ndarray) -> Image:
    return paint_classes(masks, class_palette(len(masks)))


def _ranges(prediction: Prediction) -> dict[str, Any]:
    return {"x_range_m": tuple(prediction.meta["x"][:2]), "y_range_m": tuple(prediction.meta["y"][:2])}
