"""COCO keypoints: `annotations/person_keypoints_{split}2017.json` and the photos of `{split}2017/`.

Pixels count from the top left corner, boxes are x, y, width, height. Images and people are found by their
ids, never by text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.coco_eval import PERSON, GroundTruth
from omma.core.keypoints import JOINTS
from omma.data.formats.frame import require
from omma.data.io import read_json
from omma.errors import DataError

ANNOTATIONS, YEAR = "annotations", "2017"
_FILE = "person_keypoints_{}.json"
_HINT = "COCO's person_keypoints_*.json shows the form"


@dataclass(frozen=True)
class CocoKeypoints:
    """The people of an annotation file.

    Args:
        file: the annotation file.
        truth: its images and people; areas are NaN where the file has none.
        names: I image files, relative to the split's folder, with forward slashes.
        sizes: (I, 2) height and width of the images.
        skipped: reason -> number of annotations that are left out.
        person: category id of people in the file.
    """

    file: Path
    truth: GroundTruth
    names: list[str]
    sizes: NDArray[np.int64]
    skipped: dict[str, int]
    person: int

    def require_areas(self) -> None:
        """Make sure that people can be scored.

        Raises:
            DataError: a person with joints has no area.
        """
        lacking = np.flatnonzero(self.truth.labelled & ~np.isfinite(self.truth.areas))
        if lacking.size:
            raise DataError(
                f"{self.file}: {lacking.size} people have no area, first annotation "
                f"{self.truth.ids[lacking[0]]}; OKS and so AP need it",
                "give each its area in square pixels, that of its mask or half of its box's",
            )


@dataclass(frozen=True)
class CocoSplit:
    """Where a split is.

    Args:
        annotations: the annotation file.
        images: the folder of photos.
    """

    annotations: Path
    images: Path


def find_split(root: Path, split: str) -> CocoSplit:
    """The files of a split, named `val` or `val2017`.

    Args:
        root: folder with `annotations/` and `val2017/` (or `images/val2017/`).
        split: its name.

    Raises:
        DataError: the annotation file or the folder is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    stems = (f"{split}{YEAR}", split)
    files = [root / ANNOTATIONS / _FILE.format(stem) for stem in stems]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        there = sorted(path.name for path in (root / ANNOTATIONS).glob("*.json"))
        found = f"{ANNOTATIONS}/ holds {', '.join(there)}" if there else f"{ANNOTATIONS}/ holds no JSON file"
        raise DataError(f"{files[0]}: no such file", f"{found}; check data.root and the split's name")
    folders = [root / below / stem for below in ("", "images") for stem in stems]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise DataError(f"{folders[0]}: no such folder", f"the photos of {file.name} belong there")
    return CocoSplit(file, folder)


def read_keypoints(file: Path) -> CocoKeypoints:
    """The images and people of an annotation file; read once while it does not change.

    Annotations of other categories and those without `keypoints` are left out and counted. Crowds and people
    without a labelled joint stay: evaluation ignores what is found there.

    Raises:
        DataError: the file is missing or damaged, or a record lacks something or has it wrong.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    status = file.stat()
    return _read(file, status.st_mtime_ns, status.st_size)


def read_ground_truth(file: str) -> GroundTruth:
    """What an annotation file says should be found, for scores.

    Raises:
        DataError: as `read_keypoints`.
    """
    return read_keypoints(Path(file)).truth


@lru_cache(maxsize=2)
def _read(file: Path, mtime_ns: int, size: int) -> CocoKeypoints:
    """The time and size only tell versions of the file apart."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: holds {type(content).__name__}, expected images and annotations",
            "a list of boxes is a detector's file: give it as data.boxes",
        )
    images, annotations = (_records(content, key, file) for key in ("images", "annotations"))
    person = _person(content.get("categories"), file)
    of_people = [one for one in annotations if one.get("category_id", person) == person]
    people = [one for one in of_people if one.get("keypoints")]
    if not people:
        raise DataError(
            f"{file}: none of its {len(annotations)} annotations has keypoints",
            "take person_keypoints_*.json, not instances_*.json",
        )
    skipped = {
        "of another category": len(annotations) - len(of_people),
        "without keypoints": len(of_people) - len(people),
    }
    image_ids = _ids(images, "id", "image", file)
    truth = _truth(people, image_ids, file)
    names = [str(require(one, "file_name", f"{file}, image {one['id']}")) for one in images]
    sizes = _numbers(
        [[one.get("height"), one.get("width")] for one in images], images, ("image", "height, width", 2), file
    )
    return CocoKeypoints(
        file, truth, [name.replace("\\", "/") for name in names], sizes.astype(np.int64), skipped, person
    )


def _records(content: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{file}: {key} is missing or no list of records", _HINT)
    return records


def _person(categories: Any, file: Path) -> int:
    """The id of people: the category of that name, or the only one; 1 where no categories are given."""
    if not categories:
        return PERSON
    named = [one for one in categories if one.get("name") == "person"]
    if not named and len(categories) > 1:
        listed = ", ".join(str(one.get("name")) for one in categories[:5])
        raise DataError(f"{file}: has no category person, but {listed}", _HINT)
    category = (named or categories)[0]
    joints = category.get("keypoints")
    if joints is not None and tuple(joints) != JOINTS:
        odd = next((name for name in joints if name not in JOINTS), "their order")
        raise DataError(
            f"{file}: its people have {len(joints)} other joints than COCO's 17 ({odd})",
            "convert them to COCO's 17 joints: " + ", ".join(JOINTS),
        )
    return int(category.get("id", PERSON))


def _truth(people: list[dict[str, Any]], image_ids: NDArray[np.int64], file: Path) -> GroundTruth:
    ids = _ids(people, "id", "annotation", file)
    image_id = _ids(people, "image_id", "annotation", file, unique=False)
    unknown = np.flatnonzero(~np.isin(image_id, image_ids))
    if unknown.size:
        raise DataError(
            f"{file}: {unknown.size} annotations are of images that it does not list, first annotation "
            f"{ids[unknown[0]]} of image {image_id[unknown[0]]}"
        )
    joints = _joints(people, file)
    areas = [[np.nan if one.get("area") is None else one["area"]] for one in people]
    return GroundTruth(
        image_ids=image_ids,
        ids=ids,
        image_id=image_id,
        boxes=_numbers([one.get("bbox") for one in people], people, ("annotation", "bbox", 4), file),
        areas=_numbers(areas, people, ("annotation", "area", 1), file, finite=False)[:, 0],
        crowd=np.array([bool(one.get("iscrowd", 0)) for one in people]),
        joints=joints,
    )


def _ids(
    records: list[dict[str, Any]], key: str, kind: str, file: Path, *, unique: bool = True
) -> NDArray[np.int64]:
    values = [record.get(key) for record in records]
    for number, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"{file}, {kind} number {number}: {key} is {value!r}, expected a whole number")
    array = np.array(values, np.int64)
    if unique and len(np.unique(array)) != len(array):
        found, counts = np.unique(array, return_counts=True)
        raise DataError(f"{file}: {kind} {key} {found[counts > 1][0]} is there {counts.max()} times")
    return array


def _joints(people: list[dict[str, Any]], file: Path) -> NDArray[np.float64]:
    """(A, 17, 3)."""
    K, rows = len(JOINTS), [one["keypoints"] for one in people]
    for one, row in zip(people, rows, strict=True):
        if not isinstance(row, list) or len(row) != 3 * K:
            count = f"{len(row)} numbers" if isinstance(row, list) else type(row).__name__
            raise DataError(
                f"{file}, annotation {one['id']}: keypoints has {count}, expected {3 * K} (x, y and "
                f"visibility of {K} joints)",
                "only COCO's 17 joints are read" if isinstance(row, list) and len(row) % 3 == 0 else _HINT,
            )
    joints = _numbers(rows, people, ("annotation", "keypoints", 3 * K), file).reshape(-1, K, 3)
    odd = ~np.isin(joints[..., 2], (0, 1, 2)).all(-1)
    if odd.any():
        raise DataError(
            f"{file}, annotation {people[odd.argmax()]['id']}: a joint's visibility is not 0, 1 or 2",
            "0 is absent, 1 hidden, 2 seen",
        )
    return joints


def _numbers(
    rows: Sequence[Any],
    records: list[dict[str, Any]],
    field: tuple[str, str, int],
    file: Path,
    *,
    finite: bool = True,
) -> NDArray[np.float64]:
    """Rows of numbers as (N, count) float64; a field is a kind of record, a name and a count."""
    kind, name, count = field
    try:
        array = np.array(rows, np.float64).reshape(-1, count) if rows else np.zeros((0, count))
    except (TypeError, ValueError):
        array = np.zeros((0, count))
    if len(array) == len(rows) and (np.isfinite(array).all() or not finite):
        return array
    for record, row in zip(records, rows, strict=True):
        if not _is_row(row, count):
            value, number = (row[0], "a finite number") if count == 1 else (row, f"{count} finite numbers")
            raise DataError(f"{file}, {kind} {record['id']}: {name} is {value!r}, expected {number}", _HINT)
    return array


def _is_row(row: Any, count: int) -> bool:
    try:
        array = np.asarray(row, np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == (count,) and bool(np.isfinite(array).all())


def require_images(folder: Path, names: Sequence[str], image_ids: Sequence[int]) -> list[Path]:
    """The files of images; a folder is listed once, not asked for each file.

    Args:
        folder: of the split.
        names: their names; a leading name of the folder itself is cut off.
        image_ids: their ids, for the message.

    Raises:
        DataError: some are not there.
    """
    parts = [PurePosixPath(name).parts for name in names]
    paths = [Path(*(own[1:] if own[:1] == (folder.name,) else own)) for own in parts]
    there = {parent: _listing(folder / parent) for parent in {path.parent for path in paths}}
    missing = [index for index, path in enumerate(paths) if path.name not in there[path.parent]]
    if missing:
        first = missing[0]
        raise DataError(
            f"{folder}: {len(missing)} of {len(paths)} images of people are not there, first {names[first]} "
            f"(image {image_ids[first]})",
            "load or unpack the photos again, or take them out of the annotation file",
        )
    return [folder / path for path in paths]


def _listing(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError:
        return set()
