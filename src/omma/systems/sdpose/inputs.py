"""A user's own photos with boxes of the people in them, for prediction."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.keypoints import JOINTS
from omma.data.formats.frame import require
from omma.data.io import read_json
from omma.errors import DataError
from omma.systems.sdpose.boxes import NO_ANNOTATION, People

_BOX = 4
_FORM = '{"boxes": [[x, y, width, height], ...]} in pixels, x and y of the upper left corner'


@dataclass(frozen=True)
class _Photo:
    file: Path
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


def read_inputs(files: Sequence[Path]) -> People:
    """Photos given one by one or in JSON files, and the people's boxes in them.

    A photo takes its boxes from the JSON file of its name beside it, `{"boxes": [[x, y, width, height]]}` in
    pixels, with "scores" if there are any; without one it is one person, which is announced.

    Args:
        files: photos; or JSON files of one or several `{"image": file, "boxes": [[x, y, width, height]]}`.

    Raises:
        DataError: a file is missing or wrong, or there is no photo.
    """
    photos = [photo for file in files for photo in _read(Path(file).absolute())]
    if not photos:
        raise DataError("the input files hold no photo", "give photos, or JSON with image and boxes")
    whole = [photo for photo in photos if np.isnan(photo.boxes).any()]
    if whole:
        beside = whole[0].file.with_suffix(".json")
        warnings.warn(
            f"{len(whole)} of {len(photos)} photos are taken whole as one person, first {whole[0].file}: no "
            f"boxes are given; put {_FORM} into {beside.name} beside it",
            stacklevel=2,
        )
    counts = [len(photo.boxes) for photo in photos]
    file_of = np.repeat(np.arange(len(photos)), counts)
    N = len(file_of)
    if not N:
        raise DataError("the input files hold no box", f"write {_FORM}")
    return People(
        source="input",
        annotations="",
        files=[photo.file for photo in photos],
        stems=[photo.file.stem for photo in photos],
        sizes=np.zeros((len(photos), 2), np.int64),
        file_of=file_of,
        image_ids=file_of,
        boxes=np.concatenate([photo.boxes for photo in photos]),
        scores=np.concatenate([photo.scores for photo in photos]),
        box_ids=np.concatenate([np.arange(count) for count in counts]),
        annotation_ids=np.full(N, NO_ANNOTATION),
        areas=np.full(N, np.nan),
        joints=np.zeros((N, len(JOINTS), 3), np.float32),
    )


def _read(file: Path) -> list[_Photo]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if file.suffix.lower() == ".json":
        return _listed(file)
    beside = file.with_suffix(".json")
    if beside.is_file():
        return [_photo(file, read_json(beside), str(beside))]
    return [_Photo(file, np.full((1, _BOX), np.nan), np.ones(1))]


def _listed(file: Path) -> list[_Photo]:
    """The photos of a JSON file."""
    content = read_json(file)
    records = content if isinstance(content, list) else [content]
    photos = []
    for number, record in enumerate(records):
        where = f"{file}, photo {number}" if isinstance(content, list) else str(file)
        photo = (file.parent / str(require(record, "image", where))).absolute()
        if not photo.is_file():
            raise DataError(f"{where}: {photo}: no such file")
        photos.append(_photo(photo, record, where))
    return photos


def _photo(file: Path, record: Any, where: str) -> _Photo:
    rows = require(record, "boxes", where)
    boxes, scores = _array(rows), _array(record.get("scores", [1.0] * len(rows)))
    if boxes.size == 0:
        boxes, scores = np.zeros((0, _BOX)), np.zeros(0)
    if boxes.shape != (len(scores), _BOX) or scores.ndim != 1 or not (boxes[:, 2:] > 0).all():
        raise DataError(
            f"{where}: boxes or scores are not as they should be", f"write {_FORM}; scores: one number a box"
        )
    return _Photo(file, boxes, scores)


def _array(rows: Any) -> NDArray[np.float64]:
    """Finite numbers, or an array of no shape that fits."""
    try:
        array = np.asarray(rows, np.float64)
    except (TypeError, ValueError):
        return np.full((1, 1, 1), np.nan)
    return array if np.isfinite(array).all() else np.full((1, 1, 1), np.nan)
