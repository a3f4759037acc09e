"""Photos of people in rooms and streets as COCO has them, with keypoints.

`annotations/person_keypoints_{train,val}2017.json`, `train2017/000000000001.jpg` and so on. Boxes and
polygons are of what is seen of a person, `area` is its number of pixels. Joints are in pixels with the
middle of the first pixel at 0; flag 2 is seen, 1 hidden by something or the own body, 0 outside the photo. As
in COCO people who are small or of whom little is seen have a box but no joints, and many small ones are one
crowd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.viz.skeleton import LIMBS
from omma.world.assets.people import JOINTS
from omma.world.crowd import SEEN, CrowdCapture, Portrait, build_place
from omma.world.writers.files import write_image, write_json

IMAGE_SIZE = (480, 640)
FRAME_INTERVAL_S = 2.5
SPLITS = ("train", "val")
build_scene = build_place
Capture = CrowdCapture
_YEAR = 2017
_FRAMES = 10_000  # ids of a scene's photos start at its multiples
_PERSON = 1
_DROPPED_SHARE = 0.0004  # people who cover less of the photo are left out
_CROWD = 4  # so many of them beside one another are one region
_BESIDE = 0.02  # half a gap between them at most, as a share of the photo's width
_FEWEST_SEEN = 4  # of the joints; people who show fewer have none
_CORNER_PX = 0.5  # a polygon's distance from the outline at most


def write_frame(folder: Path, capture: CrowdCapture) -> dict[str, Any]:
    """Write one photo; returns its record and those of its people, without ids of their own."""
    number = capture.scene.number * _FRAMES + capture.frame + 1
    name = f"{number:012d}.jpg"
    write_image(folder / f"{capture.split}{_YEAR}" / name, capture.photo.rgb)
    height, width = capture.image_size
    image = {
        "license": 1,
        "file_name": name,
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": f"{_YEAR}-01-01 00:00:00",
        "flickr_url": "",
        "id": number,
    }
    return {"image": image, "annotations": _annotations(capture)}


def _annotations(capture: CrowdCapture) -> list[dict[str, Any]]:
    counted = [(who, float(who.mask.mean())) for who in capture.portraits]
    small = [who.mask for who, share in counted if _DROPPED_SHARE <= share < capture.labelled_share]
    large = [who for who, share in counted if share >= capture.labelled_share]
    records = [_person(who.mask, who) for who in large]
    for group in _groups(small):
        together = len(group) >= _CROWD
        records += [_crowd(np.any(group, axis=0))] if together else [_person(mask, None) for mask in group]
    return records


def _groups(masks: list[NDArray[np.bool_]]) -> list[list[NDArray[np.bool_]]]:
    """Masks (H, W) that lie beside one another."""
    if not masks:
        return []
    reach = 1 + 2 * round(_BESIDE * masks[0].shape[1])
    union = np.any(masks, axis=0).astype(np.uint8)
    _, region = cv2.connectedComponents(cv2.dilate(union, np.ones((reach, reach), np.uint8)))
    groups: dict[int, list[NDArray[np.bool_]]] = {}
    for mask in masks:
        groups.setdefault(int(region[mask][0]), []).append(mask)
    return list(groups.values())


def _person(mask: NDArray[np.bool_], who: Portrait | None) -> dict[str, Any]:
    """A person; without joints where there is no portrait or it shows too few."""
    joints = np.zeros((len(JOINTS), 3))
    if who is not None and (who.flags == SEEN).sum() >= _FEWEST_SEEN:
        labelled = who.flags > 0
        joints[labelled, :2] = np.round(who.joints[labelled] - 0.5, 2)
        joints[:, 2] = who.flags
    keypoints = [int(value) if value.is_integer() else value for value in joints.ravel().tolist()]
    return {
        "segmentation": polygons(mask),
        "num_keypoints": int((joints[:, 2] > 0).sum()),
        "area": float(mask.sum()),
        "iscrowd": 0,
        "keypoints": keypoints,
        "bbox": _box(mask),
    }


def _crowd(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "segmentation": {"counts": run_lengths(mask), "size": list(mask.shape)},
        "num_keypoints": 0,
        "area": float(mask.sum()),
        "iscrowd": 1,
        "keypoints": [0] * (3 * len(JOINTS)),
        "bbox": _box(mask),
    }


def _box(mask: NDArray[np.bool_]) -> list[float]:
    """Left, top, width and height of a mask (H, W), from pixel border to pixel border."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    ends = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
    return [float(value) for value in ends]


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines of the parts of a mask (H, W) without their holes.

    Returns:
        x, y, x, y, ... of each; a pixel's borders are at whole numbers.
    """
    doubled = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for outline in outlines:
        smoothed = cv2.approxPolyDP(outline, 2 * _CORNER_PX, True)
        corners = (smoothed if len(smoothed) > 2 else outline)[:, 0]
        # of a pixel's two cells the even one touches its left or upper border, the odd one the other
        parts.append(((corners + corners % 2) / 2).ravel().tolist())
    return parts


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask (H, W) down its columns, the first of background."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *changes.tolist(), mask.size]).tolist()


def finish(folder: Path, records: dict[str, dict[str, list[Any]]], image_size: tuple[int, int]) -> None:
    """Number the people and write the annotation files; `records` by split and scene."""
    del image_size
    number = 0
    for split, scenes in records.items():
        photos = [photo for found in scenes.values() for photo in found]
        annotations = []
        for photo in photos:
            for record in photo["annotations"]:
                number += 1
                own = {"image_id": photo["image"]["id"], "category_id": _PERSON, "id": number}
                annotations.append({**record, **own})
        content = {**_head(), "images": [photo["image"] for photo in photos], "annotations": annotations}
        file = folder / "annotations" / f"person_keypoints_{split}{_YEAR}.json"
        write_json(file, {**content, "categories": [_category()]}, indent=None)


def _head() -> dict[str, Any]:
    info = {
        "description": "people of the procedural world",
        "url": "",
        "version": "1.0",
        "year": _YEAR,
        "contributor": "omma world",
        "date_created": f"{_YEAR}/01/01",
    }
    return {"info": info, "licenses": [{"url": "", "id": 1, "name": "free of rights"}]}


def _category() -> dict[str, Any]:
    return {
        "supercategory": "person",
        "id": _PERSON,
        "name": "person",
        "keypoints": list(JOINTS),
        "skeleton": [[first + 1, second + 1] for first, second in LIMBS],
    }
