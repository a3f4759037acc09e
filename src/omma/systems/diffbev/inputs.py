"""A user's own images with their calibration, for prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omma.data.formats import nuscenes
from omma.data.formats.frame import require, require_array
from omma.data.formats.nuscenes_index import read_index
from omma.data.io import read_json
from omma.errors import DataError
from omma.systems.diffbev.layouts import CALIBRATION, Items, calibrations_of

Calibrations = dict[Path, Any]  # calib.json -> its content

_LEVELS_UP = 3  # img_dir/val/a.png and samples/CAM_FRONT/a.jpg lie two folders below the data set's


def read_inputs(files: Sequence[Path]) -> Items:
    """Images given one by one or in JSON files.

    Args:
        files: images with a calib.json in their folder or up to two above, or in a folder with nuScenes
            tables; or JSON files of one or several `{"image": file, "intrinsics": 3x3}`.

    Raises:
        DataError: a file, a field or a calibration is missing or wrong, or there is no image.
    """
    found: list[dict[str, Any]] = []
    calibrations: Calibrations = {}
    for file in files:
        path = Path(file).absolute()
        found += _from_json(path) if path.suffix.lower() == ".json" else [_from_image(path, calibrations)]
    if not found:
        raise DataError("the input files hold no image", "give images, or JSON with image and intrinsics")
    return Items(
        folder=Path(),
        tokens=[one["token"] for one in found],
        images=[str(one["image"]) for one in found],
        intrinsics=np.array([one["intrinsics"] for one in found]),
        channels=[one.get("channel", "") for one in found],
        labels=[None] * len(found),
        depths=[None] * len(found),
    )


def _from_json(file: Path) -> list[dict[str, Any]]:
    content = read_json(file)
    records = content if isinstance(content, list) else [content]
    found = []
    for number, record in enumerate(records):
        where = f"{file}, image {number}" if isinstance(content, list) else str(file)
        image = (file.parent / str(require(record, "image", where))).absolute()
        found.append(
            {
                "token": str(record.get("token", image.stem)),
                "image": image,
                "intrinsics": require_array(record, "intrinsics", (3, 3), where),
            }
        )
    return found


def _from_image(image: Path, calibrations: Calibrations) -> dict[str, Any]:
    if not image.is_file():
        raise DataError(f"{image}: no such file")
    for folder in list(image.parents)[:_LEVELS_UP]:
        for version in nuscenes.versions(folder):
            known = _from_tables(folder, version, image)
            if known is not None:
                return known
        file = folder / CALIBRATION
        if file.is_file():
            if file not in calibrations:
                calibrations[file] = read_json(file)
            intrinsics = calibrations_of(calibrations[file], [image.stem], file)[0]
            return {"token": image.stem, "image": image, "intrinsics": intrinsics}
    raise DataError(
        f"{image}: its calibration is not known",
        f"put a {CALIBRATION} of {{{image.stem!r}: 3x3 intrinsics}} beside it, or give a JSON file of "
        '{"image": file, "intrinsics": 3x3}',
    )


def _from_tables(root: Path, version: str, image: Path) -> dict[str, Any] | None:
    index = read_index(root, version)
    rows = np.nonzero(index.images == image.relative_to(root).as_posix())[0]
    if not len(rows):
        return None
    return {
        "token": str(index.tokens[rows[0]]),
        "image": image,
        "intrinsics": index.intrinsics[index.intrinsics_of[rows[0]]],
        "channel": str(index.channels[index.channel_of[rows[0]]]),
    }
