"""NYU Depth v2: the labelled .mat of 1449 pictures, and the h5 files of the sparse-to-dense release.

Both are HDF5 and need h5py. MATLAB's axes come out reversed: images (N, 3, W, H), depths (N, W, H). Units are
metres. The official split lies in `splits.mat` (trainNdxs, testNdxs from 1 on) beside the .mat.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Colour, Depth, RgbdFrame, checked_depth
from omma.errors import DataError

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
MAX_DEPTH_M = 10.0
DATASET = "nyu"
SIZE = (480, 640)
# Of the data set's toolbox for the colour camera; MATLAB centres the first pixel on 1, here it covers 0 to 1.
CAMERA = np.array([[518.857901, 0, 325.082449], [0, 519.469611, 253.236166], [0, 0, 1]])
_SPLIT_KEYS = {"train": "trainNdxs", "val": "testNdxs", "test": "testNdxs"}


def open_h5(path: Path) -> Any:
    """An HDF5 file, open for reading.

    Raises:
        DataError: it is missing or no HDF5 file, or h5py is not installed.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise DataError(f"{path}: reading HDF5 needs h5py", "pip install h5py") from None
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: damaged or no HDF5 file ({error})", "copy or load it again") from None


def _array(path: Path, key: str, index: int | None) -> NDArray[Any]:
    with open_h5(path) as file:
        if key not in file:
            raise DataError(f"{path}: has no array {key!r}; it holds {', '.join(file) or 'nothing'}")
        return np.asarray(file[key][...] if index is None else file[key][index])


@dataclass(frozen=True)
class H5Image:
    """A colour image in an HDF5 file.

    Args:
        path: the file.
        key: name of the array.
        index: row of the array, stored (3, W, H); none: the array is the image, stored (3, H, W).
    """

    path: Path
    key: str
    index: int | None = None

    def read(self) -> Colour:
        """See ColourSource."""
        planes = _array(self.path, self.key, self.index)
        if planes.ndim != 3 or planes.shape[0] != 3 or planes.dtype != np.uint8:
            raise DataError(
                f"{self.path}: {self.key} has shape {planes.shape} of {planes.dtype}, expected 3 uint8 planes"
            )
        order = (1, 2, 0) if self.index is None else (2, 1, 0)
        return np.ascontiguousarray(planes.transpose(order))

    def size(self) -> tuple[int, int]:
        """See ColourSource."""
        with open_h5(self.path) as file:
            last, before = file[self.key].shape[-1], file[self.key].shape[-2]
        return (before, last) if self.index is None else (last, before)

    @property
    def files(self) -> Sequence[Path]:
        """See ColourSource."""
        return (self.path,)


@dataclass(frozen=True)
class H5Depth:
    """A depth map in metres in an HDF5 file.

    Args:
        path: the file.
        key: name of the array.
        index: row of the array, stored (W, H); none: the array is the map, stored (H, W).
    """

    path: Path
    key: str
    index: int | None = None

    def read(self) -> Depth:
        """See DepthSource."""
        stored = _array(self.path, self.key, self.index)
        place = f"{self.path}, {self.key}" + ("" if self.index is None else f" {self.index}")
        return checked_depth(stored if self.index is None else stored.T, place)

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


def find_labelled(root: Path) -> Path | None:
    """The labelled .mat: the path itself, or the file in the folder."""
    if root.suffix == ".mat" and root.is_file():
        return root
    file = root / LABELLED
    return file if file.is_file() else None


def is_h5_layout(root: Path) -> bool:
    """Whether the folder has split folders of .h5 files."""
    return any(next((root / split).rglob("*.h5"), None) for split in ("train", "val", "test"))


def read_labelled(file: Path, split: str, *, max_depth_m: float = MAX_DEPTH_M) -> list[RgbdFrame]:
    """The frames of a split of the labelled .mat, in file order.

    Args:
        file: the .mat of HDF5 (MATLAB 7.3).
        split: "train", "val" (the official test pictures), or "all".
        max_depth_m: depth that counts as 1 when normalised.

    Raises:
        DataError: the file is damaged, lacks an array, or there is no `splits.mat` to tell the split.
    """
    with open_h5(file) as content:
        missing = [key for key in ("images", "depths") if key not in content]
        if missing:
            raise DataError(f"{file}: has no array {', '.join(missing)}; it holds {', '.join(content)}")
        number = int(content["images"].shape[0])
        camera = CAMERA if content["images"].shape[:1:-1] == SIZE else None
    return [
        RgbdFrame(
            token=f"{index:04d}",
            dataset=DATASET,
            image=H5Image(file, "images", index),
            depth=H5Depth(file, "depths", index),
            max_depth_m=max_depth_m,
            intrinsics=camera,
        )
        for index in _indices(file.with_name(SPLITS), split, number)
    ]


def _indices(file: Path, split: str, number: int) -> list[int]:
    if split == "all":
        return list(range(number))
    if split not in _SPLIT_KEYS:
        raise DataError(f"{file}: no split {split!r}", f"there are {', '.join(_SPLIT_KEYS)} and all")
    if not file.is_file():
        raise DataError(
            f"{file}: no such file, so nobody knows which pictures are {split}",
            "put the official splits.mat beside the .mat, or take split all",
        )
    from scipy.io import loadmat

    try:
        content = loadmat(file)
    except (ValueError, OSError, TypeError) as error:
        raise DataError(f"{file}: damaged or no MATLAB file ({error})") from None
    key = _SPLIT_KEYS[split]
    if key not in content:
        raise DataError(f"{file}: has no {key}")
    indices = (np.asarray(content[key], np.int64).ravel() - 1).tolist()
    outside = [index for index in indices if not 0 <= index < number]
    if outside:
        raise DataError(f"{file}: {key} names picture {outside[0] + 1}, the .mat has {number}")
    return indices


def read_h5_frames(root: Path, split: str, *, max_depth_m: float = MAX_DEPTH_M) -> list[RgbdFrame]:
    """The frames of ROOT/{split}/**/*.h5, each with `rgb` (3, H, W) and `depth` (H, W), sorted by name.

    Raises:
        DataError: the split has no file.
    """
    folder = root / split
    files = sorted(folder.rglob("*.h5"))
    if not files:
        raise DataError(f"{folder}: has no .h5 file")
    return [
        RgbdFrame(
            token=path.relative_to(folder).with_suffix("").as_posix(),
            dataset=DATASET,
            image=H5Image(path, "rgb"),
            depth=H5Depth(path, "depth"),
            max_depth_m=max_depth_m,
        )
        for path in files
    ]
