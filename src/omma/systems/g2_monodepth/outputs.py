"""What prediction makes of the network's answer: metres, whether they are metric, and files to save."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from omma.data.formats.rgbd import KITTI, MILLIMETRES
from omma.engine.task import Batch, Prediction
from omma.systems.g2_monodepth.config import PredictSection
from omma.systems.g2_monodepth.viz import draw, percent
from omma.viz.cloud import depth_ply

_LARGEST = 65535  # of 16 bits
_SUFFIXES = {MILLIMETRES: "_depth_mm.png", KITTI: "_depth_x256.png"}


def make_prediction(depth: Tensor, batch: Batch, settings: PredictSection) -> Prediction:
    """A sample's depth in metres, not below 0, with what a picture and files need.

    Args:
        depth: the network's answer for a batch of one, (1, 1, H, W) over max_depth.
        batch: what it was given.
        settings: of the recipe.

    Returns:
        arrays prediction, depth (true) and point (given), (1, H, W) float32 metres, 0 unknown; rgb
        (3, H, W) uint8; intrinsics (3, 3) float32, assumed where the camera is unknown; metric, whether any
        depth was given; max_depth in metres.
    """
    max_depth = float(batch["max_depth"][0])
    found = depth[0].clamp(min=0).cpu().numpy() * np.float32(max_depth)
    arrays = {key: batch[key][0].cpu().numpy() * np.float32(max_depth) for key in ("depth", "point")}
    given = arrays["point"] > 0
    if settings.keep_input:
        found = np.where(given, arrays["point"], found)
    intrinsics, known = _camera(batch, found.shape[1:], settings.field_of_view)
    meta: dict[str, Any] = {
        "token": batch["token"][0],
        "metric": bool(given.any()),
        "given": int(given.sum()),
        "unused": int(batch.get("unused", [0])[0]),
        "keep_input": settings.keep_input,
        "max_depth": max_depth,
        "camera": "known" if known else f"assumed, {settings.field_of_view:g} degrees from left to right",
        "point_cloud": settings.point_cloud,
    }
    arrays = {"prediction": found} | arrays
    arrays |= {"rgb": batch["rgb"][0].cpu().numpy(), "intrinsics": intrinsics}
    arrays |= {"metric": np.array(meta["metric"]), "max_depth": np.array(max_depth, np.float32)}
    return Prediction(arrays, meta, draw, make_files, _summary(meta, given.size))


def _camera(batch: Batch, size: tuple[int, ...], field_of_view: float) -> tuple[NDArray[np.float32], bool]:
    """The sample's camera matrix, or one with square pixels and its axis in the middle; if it is known."""
    matrix = batch["intrinsics"][0].cpu().numpy() if "intrinsics" in batch else np.full((3, 3), np.nan)
    if np.isfinite(matrix).all():
        return matrix, True
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(field_of_view) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32), False


def _summary(meta: dict[str, Any], pixels: int) -> str:
    """What the numbers mean, in one line."""
    known = f"{meta['given']} depths given ({percent(meta['given'] / pixels)} of the pixels)"
    metric = f"metric, {known}" if meta["metric"] else "relative, no depth given: the metres are a guess"
    parts = [metric, f"max_depth {meta['max_depth']:g} m"]
    if meta["unused"]:
        parts.append(f"{meta['unused']} given depths beyond it not used")
    if meta["keep_input"] and meta["metric"]:
        parts.append("given depths kept")
    if meta["point_cloud"]:
        parts.append(f"camera of the point cloud {meta['camera']}")
    return "; ".join(parts)


def make_files(prediction: Prediction) -> dict[str, bytes]:
    """What `omma predict` writes beside picture and arrays.

    A 16-bit depth picture, 0 where there is no depth: in millimetres (`_depth_mm.png`), or, where max_depth
    is more than they reach, 65.535 m, in KITTI's coding of 256 units a metre (`_depth_x256.png`). Deeper
    pixels get the largest value. `.json` says what the numbers mean, `.ply` is the point cloud.
    """
    depth = prediction.arrays["prediction"][0]
    meta = prediction.meta
    units = MILLIMETRES if meta["max_depth"] * MILLIMETRES <= _LARGEST else KITTI
    stored = np.rint(np.nan_to_num(depth, nan=0.0, posinf=np.inf) * units)
    ending = _SUFFIXES[units]
    about = {key: value for key, value in meta.items() if key != "point_cloud"} | {
        "unit": "metres, along the optical axis" if meta["metric"] else "relative: metres are a guess",
        "size": list(depth.shape),
        "intrinsics": _pinhole(prediction),
        "depth_picture": {
            "ending": ending,
            "units_per_metre": units,
            "saturated_pixels": int((stored > _LARGEST).sum()),
        },
    }
    files = {
        ending: _png(np.clip(stored, 0, _LARGEST).astype(np.uint16)),
        ".json": (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    return files | ({".ply": _cloud(prediction, depth)} if meta["point_cloud"] else {})


def _png(picture: NDArray[np.uint16]) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def _cloud(prediction: Prediction, depth: NDArray[np.floating]) -> bytes:
    meta = prediction.meta
    numbers = " ".join(f"{name} {value:.6g}" for name, value in _pinhole(prediction).items())
    comments = [
        f"camera {meta['camera']}: {numbers}, first pixel from 0 to 1",
        "metric" if meta["metric"] else "relative: no depth was given, the metres are a guess",
    ]
    colours = prediction.arrays["rgb"].transpose(1, 2, 0)
    return depth_ply(depth, colours, prediction.arrays["intrinsics"], comments=comments)


def _pinhole(prediction: Prediction) -> dict[str, float]:
    matrix = prediction.arrays["intrinsics"]
    places = {"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}
    return {name: round(float(matrix[place]), 4) for name, place in places.items()}
