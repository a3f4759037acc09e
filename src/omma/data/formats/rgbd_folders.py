"""RGB-D in folders: `rgb/` and `depth/` with equal names, in a split's folder, or one pair a data set.

Three forms: ROOT/{split}/{rgb,depth}/ (NYUv2 folders), ROOT/{rgb,depth}/ (one set), and
ROOT/NAME/{rgb,depth}/ (the reference's RGBD_Datasets, several sets side by side). `raw/` beside them holds
measured input depth. `rgbd.json` next to `rgb/`, or in ROOT, says what the numbers mean:
{"units_per_metre": 1000, "max_depth": 10}. Instead of units_per_metre, "full_scale": true means that 65535 is
max_depth, as the reference stores depth. `intrinsics.txt` in the same places, if there, is the camera of all
pictures, `intrinsics/NAME.txt` next to rgb/ that of one (3 x 3; pixel (0, 0) covers 0 to 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import (
    DEPTH_SUFFIXES,
    IMAGE_SUFFIXES,
    DepthFile,
    ImageFile,
    RgbdFrame,
    find_files,
    pair_by_stem,
    read_intrinsics,
)
from omma.data.io import read_json
from omma.errors import DataError

RGB, DEPTH, RAW, NOTE, INTRINSICS = "rgb", "depth", "raw", "rgbd.json", "intrinsics.txt"
FULL_SCALE = 65535.0
_KEYS = {"units_per_metre", "max_depth", "full_scale"}
_ARE = {1: "is", 2: "are"}


@dataclass(frozen=True)
class DepthUnits:
    """What stored depths mean.

    Args:
        units_per_metre: stored value of one metre.
        max_depth_m: depth that counts as 1 when normalised.
    """

    units_per_metre: float
    max_depth_m: float


def is_layout(root: Path) -> bool:
    """Whether the folder has one of the three forms."""
    return bool(_all_pairs(root))


def _all_pairs(root: Path) -> list[Path]:
    """Folders with rgb/ and depth/ in them: the root itself or its children."""
    if not root.is_dir():
        return []
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [path for path in candidates if (path / RGB).is_dir() and (path / DEPTH).is_dir()]


def refuse_half_pairs(root: Path) -> None:
    """Complain about the first folder of one kind without the other.

    Raises:
        DataError: there is rgb/ without depth/, or the other way round.
    """
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        for there, missing in ((RGB, DEPTH), (DEPTH, RGB)):
            if (folder / there).is_dir() and not (folder / missing).is_dir():
                raise DataError(
                    f"{folder / missing}: no such folder, though there is {there}/",
                    f"pictures lie in {RGB}/, their depths under the same names in {DEPTH}/",
                )


def read_frames(
    root: Path, split: str, *, units_per_metre: float | None = None, max_depth_m: float | None = None
) -> list[RgbdFrame]:
    """The frames of a split, sorted by name.

    A child folder with the split's name is the split. Without one, every pair of folders belongs to "train",
    and a split "val" is an error.

    Args:
        root: data set folder.
        split: "train", "val" or the name of a child folder.
        units_per_metre: stored value of one metre; none reads `rgbd.json`.
        max_depth_m: depth that counts as 1 when normalised; none reads `rgbd.json`.

    Raises:
        DataError: the split, a depth file or the units are missing.
    """
    return [
        frame
        for folder in _folders(root, split)
        for frame in _read_pair(folder, root, read_units(folder, root, units_per_metre, max_depth_m))
    ]


def _folders(root: Path, split: str) -> list[Path]:
    found = _all_pairs(root)
    if not found:
        raise DataError(f"{root}: has no folders {RGB}/ and {DEPTH}/, nor a child that has")
    named = [path for path in found if path != root and path.name == split]
    if named:
        return named
    refuse_half_pairs(root)
    splits = [path.name for path in found if path.name in {"train", "val", "test"} and path != root]
    if splits or split != "train":
        raise DataError(
            f"{root / split}: no such split",
            f"there are {', '.join(splits or [path.name for path in found])}; name one of them",
        )
    return found


def read_units(
    folder: Path, root: Path, units_per_metre: float | None = None, max_depth_m: float | None = None
) -> DepthUnits:
    """Units of `rgbd.json` next to rgb/, or else of the root's; what is given goes before it.

    Raises:
        DataError: there is none, or it lacks something.
    """
    if units_per_metre is not None and max_depth_m is not None:
        return DepthUnits(units_per_metre, max_depth_m)
    places = [folder / NOTE, root / NOTE]
    note = next((place for place in places if place.is_file()), None)
    if note is None:
        unknown = {"units": units_per_metre, "largest depth": max_depth_m}
        lacking = [what for what, value in unknown.items() if value is None]
        raise DataError(
            f"{places[1]}: no such file, so {' and '.join(lacking)} {_ARE[len(lacking)]} unknown",
            'write {"units_per_metre": 1000, "max_depth": 10} into it (1000: millimetres, 256: KITTI), or '
            "set data.units_per_metre and data.max_depth; data.layout=nyu_folder means 1000 and 10",
        )
    units = parse_units(read_json(note), str(note))
    if units_per_metre is not None:
        return replace(units, units_per_metre=units_per_metre)
    return units if max_depth_m is None else replace(units, max_depth_m=max_depth_m)


def parse_units(record: object, where: str) -> DepthUnits:
    """The units that a note's record gives.

    Raises:
        DataError: a value is missing, unknown or not above 0.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: holds {type(record).__name__}, expected keys and values")
    unknown = sorted(set(record) - _KEYS)
    if unknown:
        raise DataError(f"{where}: unknown key {', '.join(unknown)}", f"known are {', '.join(sorted(_KEYS))}")
    max_depth = _positive(record, "max_depth", where)
    if record.get("full_scale"):
        return DepthUnits(FULL_SCALE / max_depth, max_depth)
    return DepthUnits(_positive(record, "units_per_metre", where), max_depth)


def _positive(record: dict[str, object], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise DataError(f"{where}: {key} is {value!r}, expected a number above 0")
    return float(value)


def _read_pair(folder: Path, root: Path, units: DepthUnits) -> list[RgbdFrame]:
    images = find_files(folder / RGB, IMAGE_SUFFIXES)
    pairs = pair_by_stem(images, find_files(folder / DEPTH, DEPTH_SUFFIXES), folder)
    measured = find_files(folder / RAW, DEPTH_SUFFIXES) if (folder / RAW).is_dir() else {}
    missing = [stem for stem in images if measured and stem not in measured]
    if missing:
        raise DataError(
            f"{folder / RAW}: {len(missing)} of {len(images)} images have no raw depth, first {missing[0]}",
            f"give every image one, or take {RAW}/ away",
        )
    name = folder.name if folder != root else root.name
    cameras = read_cameras(folder, root, images)
    prefix = f"{folder.name}/" if folder != root else ""
    return [
        RgbdFrame(
            token=f"{prefix}{stem}",
            dataset=name,
            image=ImageFile(image),
            depth=DepthFile(depth, _file_units(depth, units)),
            max_depth_m=units.max_depth_m,
            raw=DepthFile(measured[stem], _file_units(measured[stem], units)) if measured else None,
            intrinsics=cameras.get(stem),
        )
        for stem, image, depth in pairs
    ]


def read_cameras(folder: Path, root: Path, stems: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Camera matrices (3, 3) of the pictures that have one, by name.

    Args:
        folder: what holds rgb/.
        root: data set folder, where the camera of all pictures may lie too.
        stems: names of the pictures.

    Raises:
        DataError: a file does not hold a camera matrix.
    """
    common = next((place for place in (folder / INTRINSICS, root / INTRINSICS) if place.is_file()), None)
    if common is not None:
        return dict.fromkeys(stems, read_intrinsics(common))
    own = folder / Path(INTRINSICS).stem
    if not own.is_dir():
        return {}
    files = {stem: own / f"{stem}.txt" for stem in stems}
    return {stem: read_intrinsics(file) for stem, file in files.items() if file.is_file()}


def _file_units(path: Path, units: DepthUnits) -> float:
    """Arrays of floating point hold metres; only pictures have units."""
    return units.units_per_metre if path.suffix.lower() == ".png" else 1.0
