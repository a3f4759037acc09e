"""A detector's boxes in COCO's form: a JSON list of `{image_id, category_id, bbox, score}`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.coco_eval import PERSON
from omma.data.io import read_json
from omma.errors import DataError

_FORM = 'expected a list of {"image_id": 785, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}'


@dataclass(frozen=True)
class Detections:
    """D boxes of people, in the order of the file.

    Args:
        image_id: (D,) int64.
        boxes: (D, 4) x, y, width, height in pixels.
        scores: (D,).
        rows: (D,) their places in the file.
        left_out: reason -> places in the file of the boxes that are not among these.
    """

    image_id: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    rows: NDArray[np.int64]
    left_out: dict[str, list[int]]


def read_detections(file: Path, image_ids: NDArray[np.int64], *, smallest_score: float = 0.0) -> Detections:
    """The boxes of people in the images of a data set.

    Args:
        file: the detector's JSON file.
        image_ids: ids of the images that there are.
        smallest_score: boxes of lower scores are left out.

    Raises:
        DataError: the file is missing or damaged, a box lacks something, it has boxes of other images, or
            none of a person.
    """
    records = read_json(file)
    if not isinstance(records, list):
        raise DataError(f"{file}: holds {type(records).__name__}, {_FORM}", "annotations are not boxes")
    values = [_values(record, index, file) for index, record in enumerate(records)]
    table = np.array(values, np.float64).reshape(-1, 7)
    image_id, category, scores = table[:, 0].astype(np.int64), table[:, 1], table[:, 2]
    _require_known(image_id, image_ids, file)
    person = category == PERSON
    if not person.any():
        found = ", ".join(f"{value:g}" for value in np.unique(category)[:5]) or "none"
        raise DataError(
            f"{file}: has no box of category {PERSON}, person; categories: {found}", "write 1 for people"
        )
    sized = (table[:, 5:] > 0).all(1)
    high = scores >= smallest_score
    keep = person & sized & high
    if not keep.any():
        raise DataError(
            f"{file}: none of its {person.sum()} boxes of people has a score of {smallest_score:g} or more",
            "lower data.box_score",
        )
    left_out = {
        "of another category": np.flatnonzero(~person).tolist(),
        "without width or height": np.flatnonzero(person & ~sized).tolist(),
        "of a lower score": np.flatnonzero(person & sized & ~high).tolist(),
    }
    rows = np.flatnonzero(keep)
    return Detections(image_id[rows], table[rows, 3:], scores[rows], rows, left_out)


def _values(record: Any, index: int, file: Path) -> list[float]:
    """Image id, category, score, x, y, width, height of a box."""
    where = f"{file}, box {index}"
    if not isinstance(record, dict):
        raise DataError(f"{where}: is {type(record).__name__}, {_FORM}")
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in record]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} is missing", _FORM)
    box = record["bbox"]
    try:
        row = [float(record[key]) for key in ("image_id", "category_id", "score")] + [float(x) for x in box]
    except (TypeError, ValueError):
        row = []
    if len(row) != 7 or not np.isfinite(row).all() or isinstance(record["image_id"], str):
        raise DataError(f"{where}: a value is no number, or bbox has not four", _FORM)
    return row


def _require_known(image_id: NDArray[np.int64], image_ids: NDArray[np.int64], file: Path) -> None:
    unknown = image_id[~np.isin(image_id, image_ids)]
    if unknown.size:
        raise DataError(
            f"{file}: {unknown.size} of {len(image_id)} boxes are of {len(np.unique(unknown))} images that "
            f"the annotation file does not list, first image {unknown[0]}",
            "the boxes are of another set or split: give those of this one as data.boxes",
        )
