"""Pictures of one's own for prediction, with what depth is known: a map or single points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Sample
from omma.data.formats.nuscenes_depth import scatter_nearest
from omma.data.formats.rgbd import DEPTH_SUFFIXES, Colour, Depth, DepthFile, RgbdFrame, checked_depth
from omma.data.io import npz_names, read_bytes, read_image, read_npy, read_npz, read_picture
from omma.errors import DataError
from omma.systems.g2_monodepth.changes import changed_intrinsics, crop_resize_colour, crop_resize_depth
from omma.systems.g2_monodepth.checks import check_units, name_factor
from omma.systems.g2_monodepth.samples import ValidationSamples

MAX_DEPTHS_M = (10.0, 20.0, 30.0, 100.0, 150.0)
POINT_SUFFIXES = (".csv", ".txt")
ARRAY_KEYS = ("depth", "sparse_depth", "sparse", "raw", "points")
_HEADROOM = 1.25
_USUAL_REACHES_M = {"if it shows a room, ": 10.0, "if it shows a street, ": 100.0}  # to guess units from
_UNITS_HINT = (
    "--set data.units_per_metre=1000 for millimetres, 256 for KITTI's coding, 5000 for TUM's; arrays and "
    "texts hold metres"
)

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Photo:
    """A picture of one's own, turned as its EXIF data say: its pixels are those that viewers show.

    Args:
        path: the file; grey ones become colour, transparency is dropped.
    """

    path: Path

    def read(self) -> Colour:
        """See ColourSource."""
        return read_image(self.path, upright=True)

    def size(self) -> tuple[int, int]:
        """See ColourSource."""
        height, width, _ = self.read().shape
        return height, width

    @property
    def files(self) -> Sequence[Path]:
        """See ColourSource."""
        return (self.path,)


@dataclass(frozen=True)
class GivenDepth:
    """Known depths of one picture: a map of its size, or points.

    A 16-bit .png is a map. A .npy or .npz holds a map (H, W) or points (P, 3), in metres; of several arrays
    in an .npz the first of `ARRAY_KEYS` counts. A text (.csv, .txt) holds a point a line. A point is
    `u, v, depth`: u counts columns from the left, v rows from the top, the first pixel from 0 to 1, of the
    picture as `Photo` turns it.

    Args:
        path: the file.
        size: (H, W) of the picture.
        units_per_metre: stored value of one metre; of a .png alone.
    """

    path: Path
    size: tuple[int, int]
    units_per_metre: float | None = None

    def read(self) -> Depth:
        """See DepthSource; where several points meet, the nearest counts.

        Raises:
            DataError: the file is missing, damaged or 8-bit, its units are unknown, a map is of another size,
                or a point lies outside the picture or is none.
        """
        suffix = self.path.suffix.lower()
        if suffix in POINT_SUFFIXES:
            return self._scatter(read_points(self.path))
        if suffix == ".png":
            return self._fitting(self._read_png())
        if suffix not in DEPTH_SUFFIXES:
            known = f"{', '.join(DEPTH_SUFFIXES)}, points also in {', '.join(POINT_SUFFIXES)}"
            raise DataError(f"{self.path}: a depth file ends in {known}")
        array = read_npy(self.path) if suffix == ".npy" else _read_npz(self.path)
        if array.ndim == 2 and array.shape[1] == 3 and array.shape != self.size:
            return self._scatter(_checked_points(array, self.path))
        return self._fitting(checked_depth(array, str(self.path)))

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)

    def _read_png(self) -> Depth:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        if self.units_per_metre is None:
            raise DataError(f"{self.path}: the units of this depth picture are unknown", _UNITS_HINT)
        return DepthFile(self.path, self.units_per_metre).read()

    def _fitting(self, depth: Depth) -> Depth:
        if depth.shape != self.size:
            raise DataError(
                f"{self.path}: depth is {depth.shape[0]} x {depth.shape[1]}, its picture "
                f"{self.size[0]} x {self.size[1]} (rows x columns)",
                "resize depth with the nearest neighbour or register it; points are an array (P, 3) of "
                "u, v, depth",
            )
        return depth

    def _scatter(self, points: Points) -> Depth:
        height, width = self.size
        columns, rows = (np.floor(points[:, axis]).astype(np.int64) for axis in (0, 1))
        outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
        if outside.any():
            first = points[outside.argmax()]
            raise DataError(
                f"{self.path}: {int(outside.sum())} of {len(points)} points lie outside the picture of "
                f"{width} x {height} pixels, first u {first[0]:g}, v {first[1]:g}",
                "u counts columns from the left, v rows from the top, of the picture as viewers show it",
            )
        return scatter_nearest(rows, columns, points[:, 2], self.size)


def read_points(path: Path) -> Points:
    """The points (P, 3) of a text file: u, v, depth in metres; a first line without numbers is skipped.

    Raises:
        DataError: a line is no three numbers, or a depth is not above 0.
    """
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words or (number == 1 and not _is_number(words[0])):
            continue
        if len(words) != 3 or not all(_is_number(word) for word in words):
            raise DataError(f"{path}, line {number}: {line.strip()!r} is not `u, v, depth`")
        rows.append([float(word) for word in words])
        if not 0 < rows[-1][2] < np.inf:
            raise DataError(f"{path}, line {number}: depth {words[2]} is not above 0")
    if not rows:
        raise DataError(f"{path}: holds no point")
    return np.array(rows, np.float64)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _read_npz(path: Path) -> NDArray[Any]:
    names = npz_names(path)
    key = next((name for name in ARRAY_KEYS if name in names), None)
    if key is None and len(names) != 1:
        raise DataError(
            f"{path}: holds {', '.join(names) or 'nothing'}",
            f"give the depth one of the names {', '.join(ARRAY_KEYS)}, or keep one array alone",
        )
    return read_npz(path, key or names[0])


def _checked_points(array: NDArray[Any], path: Path) -> Points:
    """Points (P, 3) of an array.

    Raises:
        DataError: there is none, or a number is not finite or a depth not above 0.
    """
    if not len(array):
        raise DataError(f"{path}: holds no point")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: points are of {array.dtype}, expected numbers")
    points = array.astype(np.float64)
    wrong = ~np.isfinite(points).all(axis=1) | ~(points[:, 2] > 0)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{path}: {int(wrong.sum())} of {len(points)} points cannot be used, first point {first}: "
            f"{', '.join(f'{value:g}' for value in points[first])}",
            "a point is u, v and a depth above 0 in metres; leave out those without depth",
        )
    return points


def read_pair(
    image: Path,
    raw: Path | None = None,
    *,
    units_per_metre: float | None = None,
    max_depth_m: float | None = None,
    intrinsics: NDArray[np.float64] | None = None,
) -> RgbdFrame:
    """A picture of one's own, with or without known depths, for prediction.

    Both files are read once here, so that what is wrong with them is said before anything is predicted.

    Args:
        image: see Photo.
        raw: see GivenDepth.
        units_per_metre: stored value of one metre, needed for a 16-bit picture.
        max_depth_m: depth that counts as 1 when normalised; none takes the smallest of 10, 20, 30, 100 and
            150 m that leaves a quarter above the largest known depth, and 10 m where none is known.
        intrinsics: (3, 3) in pixels of the picture.

    Raises:
        DataError: a file is missing or damaged, the picture is a depth map, or the depths cannot be used.
    """
    pixels = read_picture(image)
    if pixels.ndim == 2 and pixels.dtype != np.uint8:
        raise DataError(
            f"{image}: is a 16-bit grey picture, as depth maps are",
            "--input takes the photo, --sparse the depth",
        )
    photo = Photo(image)
    source = None if raw is None else GivenDepth(raw, photo.size(), units_per_metre)
    limit = max_depth_m or MAX_DEPTHS_M[0]
    if source is not None:
        depth = source.read()
        limit = max_depth_m or choose_max_depth(depth)
        _check(depth, limit, source.path, chosen=max_depth_m is None)
    return RgbdFrame(image.stem, "input", photo, None, limit, source, intrinsics)


def _check(depth: Depth, max_depth_m: float, path: Path, *, chosen: bool) -> None:
    """Refuse a map without depth and one whose depths cannot be metres."""
    if not depth.any():
        raise DataError(
            f"{path}: no depth is known in it, all are 0", "predict without --sparse, or write it again"
        )
    finding = check_units([depth], max_depth_m)
    if finding.severity == "error":
        reaches = _USUAL_REACHES_M if chosen else {"": max_depth_m}
        guess = _guess_units(depth[depth > 0], reaches)
        raise DataError(f"{path}: {finding.title} ({finding.evidence})", guess or finding.fix)


def _guess_units(known_m: NDArray[np.floating], reaches_m: Mapping[str, float]) -> str:
    """What mistakes would explain depths that go beyond any of these max_depths, and what to set."""
    guesses = {place: name_factor(known_m, reach).partition(";")[0] for place, reach in reaches_m.items()}
    told = [f"{place}{text}" for place, text in guesses.items() if text]
    return "; ".join([*told, _UNITS_HINT]) if told else ""


class OwnSamples(ValidationSamples):
    """Pictures of one's own, each with its known depths or none.

    A sample also holds unused, how many of its known depths exceed max_depth and do not count.

    Args:
        frames: from `read_pair`.
        max_height: rows that larger pictures are scaled down to; None keeps each picture's own size.
    """

    def __init__(self, frames: Sequence[RgbdFrame], max_height: int | None = None) -> None:
        super().__init__(frames, None, patterns=["measured"])
        self.max_height = max_height

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        frame = self.frames[index]
        beyond = 0 if frame.raw is None else int((frame.raw.read() > frame.max_depth_m).sum())
        return self._scaled(super()._load(index, rng)) | {"unused": beyond}

    def _scaled(self, sample: Sample) -> Sample:
        height, width = sample["rgb"].shape[1:]
        if self.max_height is None or height <= self.max_height:
            return sample
        window, size = (0, 0, height, width), (self.max_height, round(width * self.max_height / height))
        image = crop_resize_colour(sample["rgb"].permute(1, 2, 0).numpy(), window, size)
        given = crop_resize_depth(sample["point"][0].numpy(), window, size, "auto")
        point = torch.from_numpy(np.ascontiguousarray(given))[None]
        camera = changed_intrinsics(sample["intrinsics"].numpy(), window, size, mirrored=False)
        return sample | {
            "rgb": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "depth": torch.zeros_like(point),
            "point": point,
            "hole_point": (point > 0).float(),
            "intrinsics": torch.from_numpy(camera),
        }


def choose_max_depth(depth: Depth) -> float:
    """The smallest usual max_depth that leaves a quarter above the largest depth, else the largest."""
    wanted = _HEADROOM * float(depth.max(initial=0.0))
    return next((limit for limit in MAX_DEPTHS_M if limit >= wanted), MAX_DEPTHS_M[-1])
