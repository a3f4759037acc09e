"""Tiny COCO sets, drawn: people of known joints on grey photos, a detector's boxes, mistakes of all kinds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omma.core.keypoints import JOINTS
from omma.systems.sdpose.config import SDPoseConfig

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "coco"
DETECTIONS = "annotations/person_detections_val2017_mmpose4.json"
PHOTO = (120, 160)
CROP = [64, 48]  # heatmaps of 16 x 12
# A standing person that faces the camera, in shares of its box: its left is on our right.
POSE = np.array(
    [
        *[(0.5, 0.08), (0.55, 0.05), (0.45, 0.05), (0.6, 0.07), (0.4, 0.07), (0.7, 0.2), (0.3, 0.2)],
        *[(0.8, 0.35), (0.2, 0.35), (0.85, 0.5), (0.15, 0.5), (0.62, 0.52), (0.38, 0.52), (0.64, 0.73)],
        *[(0.36, 0.73), (0.65, 0.95), (0.35, 0.95)],
    ]
)


def real() -> Path:
    """The real photos' folder, or skip."""
    if not REAL.is_dir():
        pytest.skip("the real photos are not here")
    return REAL


def config(root: Path | None, **sections: Any) -> SDPoseConfig:
    """Small crops and a small network; sections as in a recipe."""
    data = {"image_size": CROP} | sections.pop("data", {})
    if root is not None:
        data["root"] = str(root)
    system = {"dim": 12, "depth": 1, "heads": 2, "patch": [4, 3]} | sections.pop("system", {})
    return SDPoseConfig.model_validate_json(json.dumps({"system": system, "data": data, **sections}))


def joints_of(box: Sequence[float], absent: Sequence[int] = (), hidden: Sequence[int] = ()) -> np.ndarray:
    """(17, 3) joints of a person that fills a box, in whole pixels."""
    x, y, width, height = box
    joints = np.zeros((len(JOINTS), 3))
    joints[:, :2] = np.round(POSE * (width, height) + (x, y))
    joints[:, 2] = 2
    joints[list(hidden), 2] = 1
    joints[list(absent)] = 0
    return joints


def person(
    number: int, image: int, box: Sequence[float], *, joints: np.ndarray | None = None, **fields: Any
) -> dict[str, Any]:
    """An annotation record."""
    own = joints_of(box) if joints is None else joints
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "area": 0.5 * box[2] * box[3],
        "bbox": list(box),
        "keypoints": own.ravel().tolist(),
        "num_keypoints": int((own[:, 2] > 0).sum()),
    } | fields


def content(annotations: Sequence[dict[str, Any]], images: Sequence[int] = (7, 3)) -> dict[str, Any]:
    """An annotation file's content."""
    return {
        "images": [
            {"id": image, "file_name": f"{image:012d}.jpg", "height": PHOTO[0], "width": PHOTO[1]}
            for image in images
        ],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "person", "keypoints": list(JOINTS)}],
    }


def three_people() -> list[dict[str, Any]]:
    """Two people in image 3 and one in image 7, mixed, with a crowd and one without joints."""
    return [
        person(11, 3, (10, 20, 40, 90)),
        person(12, 7, (60, 10, 50, 100), joints=joints_of((60, 10, 50, 100), absent=[3, 15], hidden=[9])),
        person(13, 3, (90, 30, 30, 80)),
        person(14, 3, (0, 0, 100, 100), iscrowd=1, joints=np.zeros((17, 3)))
        | {"segmentation": {"counts": [10, 20], "size": list(PHOTO)}},
        person(15, 7, (5, 5, 20, 50), joints=np.zeros((17, 3))),
    ]


def photo(seed: int) -> np.ndarray:
    """A smooth random picture (H, W, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 255, (PHOTO[0] // 10, PHOTO[1] // 10, 3), np.uint8)
    return cv2.resize(small, PHOTO[::-1], interpolation=cv2.INTER_LINEAR)


def write_photo(path: Path, image: np.ndarray) -> Path:
    """A picture file of R, G, B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_split(root: Path, split: str, value: dict[str, Any] | None = None) -> Path:
    """A split's annotations and photos; returns the annotation file."""
    value = content(three_people()) if value is None else value
    for image in value["images"]:
        write_photo(root / f"{split}2017" / image["file_name"], photo(image["id"]))
    return write_json(root / "annotations" / f"person_keypoints_{split}2017.json", value)


def write_set(root: Path) -> Path:
    """train and val of three people each."""
    for split in ("train", "val"):
        write_split(root, split)
    return root


def detection(image: int, box: Sequence[float], score: float, category: int = 1) -> dict[str, Any]:
    """A detector's record."""
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}
