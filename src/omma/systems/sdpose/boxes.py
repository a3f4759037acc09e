"""Whom to cut out: the people of a split by their annotated or detected boxes, in the order of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omma.core.keypoints import JOINTS
from omma.data.formats.coco import CocoKeypoints, require_images
from omma.data.formats.coco_detections import read_detections
from omma.errors import DataError

Source = Literal["ground_truth", "detector", "input"]
NO_ANNOTATION = -1


@dataclass(frozen=True)
class People:
    """N boxes of people in I photos; boxes of a photo follow one another.

    Args:
        source: where the boxes are from.
        annotations: the annotation file; empty for photos of one's own.
        files: I photos.
        stems: I names of the photos, for tokens.
        sizes: (I, 2) height and width as annotated, 0 where unknown.
        file_of: (N,) index into `files`.
        image_ids: (N,) int64.
        boxes: (N, 4) x, y, width, height in pixels; NaN is the whole photo.
        scores: (N,) of the boxes, 1 where annotated.
        box_ids: (N,) unique in a photo; place in the detector's file, or count in the photo.
        annotation_ids: (N,), -1 where there is none.
        areas: (N,) square pixels, NaN where unknown.
        joints: (N, 17, 3) float32 x, y in pixels and 0 for absent, 1 for hidden, 2 for seen.
        left_out: reason -> annotation ids, or places in the detector's file, that are not among the people.
    """

    source: Source
    annotations: str
    files: list[Path]
    stems: list[str]
    sizes: NDArray[np.int64]
    file_of: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    box_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    areas: NDArray[np.float64]
    joints: NDArray[np.float32]
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.file_of)

    def token(self, index: int) -> str:
        """The name of a person, such as 000000000785#0."""
        return f"{self.stems[self.file_of[index]]}#{self.box_ids[index]}"


def annotated_people(found: CocoKeypoints, folder: Path) -> People:
    """The people with joints of an annotation file, each with its box clipped to the image.

    Crowds, people without a labelled joint and those whose box or area is empty are left out.

    Args:
        found: the annotations.
        folder: of the photos.

    Raises:
        DataError: nobody is left, or photos are missing.
    """
    truth = found.truth
    rows_of_images = _rows(truth.image_ids, truth.image_id)
    boxes = clip_boxes(truth.boxes, found.sizes[rows_of_images])
    sized = (boxes[:, 2:] > 0).all(1)
    reasons = {
        "crowd": truth.crowd,
        "no labelled joint": ~truth.labelled,
        "box outside the image or empty": ~sized,
        "area of 0": truth.areas <= 0,
    }
    keep, left_out = _keep(reasons, truth.ids)
    if not keep.size:
        raise DataError(f"{found.file}: nobody in it has joints, a box in the image and an area above 0")
    order = keep[np.argsort(rows_of_images[keep], kind="stable")]
    images, file_of = np.unique(rows_of_images[order], return_inverse=True)
    return People(
        source="ground_truth",
        annotations=str(found.file),
        **_photos(found, folder, images),
        file_of=file_of,
        image_ids=truth.image_id[order],
        boxes=boxes[order],
        scores=np.ones(len(order)),
        box_ids=_counts(file_of),
        annotation_ids=truth.ids[order],
        areas=truth.areas[order],
        joints=truth.joints[order].astype(np.float32),
        left_out=left_out,
    )


def detected_people(found: CocoKeypoints, folder: Path, file: Path, *, smallest_score: float) -> People:
    """The boxes of a detector's file, as they are; they have no joints.

    Args:
        found: the annotations, for the images.
        folder: of the photos.
        file: the detector's boxes.
        smallest_score: boxes of lower scores are left out.

    Raises:
        DataError: the file does not fit, or photos are missing.
    """
    detections = read_detections(file, found.truth.image_ids, smallest_score=smallest_score)
    rows_of_images = _rows(found.truth.image_ids, detections.image_id)
    order = np.argsort(rows_of_images, kind="stable")
    images, file_of = np.unique(rows_of_images[order], return_inverse=True)
    N = len(order)
    return People(
        source="detector",
        annotations=str(found.file),
        **_photos(found, folder, images),
        file_of=file_of,
        image_ids=detections.image_id[order],
        boxes=detections.boxes[order],
        scores=detections.scores[order],
        box_ids=detections.rows[order],
        annotation_ids=np.full(N, NO_ANNOTATION),
        areas=np.full(N, np.nan),
        joints=np.zeros((N, len(JOINTS), 3), np.float32),
        left_out=detections.left_out,
    )


def clip_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes (N, 4) within their images of `sizes` (N, 2) height, width; outside, a side is not above 0."""
    lows = np.maximum(boxes[:, :2], 0)
    highs = np.minimum(lows + np.maximum(boxes[:, 2:], 0), sizes[:, ::-1] - 1)
    return np.concatenate([lows, highs - lows], 1)


def _rows(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each wanted id, all of which are there."""
    order = ids.argsort()
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _keep(
    reasons: dict[str, NDArray[np.bool_]], ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, list[int]]]:
    """Rows without a reason against them, and the ids of the others by their first reason."""
    keep, left_out = np.ones(len(ids), bool), {}
    for reason, holds in reasons.items():
        left_out[reason] = ids[keep & holds].tolist()
        keep &= ~holds
    return np.flatnonzero(keep), left_out


def _counts(file_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal values."""
    places = np.arange(len(file_of))
    starts = np.r_[True, np.diff(file_of) != 0]
    return places - np.maximum.accumulate(np.where(starts, places, 0))


def _photos(found: CocoKeypoints, folder: Path, rows: NDArray[np.int64]) -> dict[str, object]:
    """Files, names and sizes of images."""
    ids = found.truth.image_ids[rows].tolist()
    return {
        "files": require_images(folder, [found.names[row] for row in rows], ids),
        "stems": [f"{image:012d}" for image in ids],
        "sizes": found.sizes[rows],
    }
