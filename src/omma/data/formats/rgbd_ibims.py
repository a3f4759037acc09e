"""iBims-1: a hundred indoor pictures with laser depth, for evaluation alone.

ROOT[/ibims1_core_mat]/NAME.mat with a struct `data`: rgb (H, W, 3) uint8, depth (H, W) metres, mask_invalid
and mask_transp (H, W) with 0 where depth does not count; `imagelist.txt` beside them lists the names.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Colour, Depth, RgbdFrame, checked_colour, checked_depth
from omma.data.io import read_bytes
from omma.errors import DataError

FOLDER, NAMES = "ibims1_core_mat", "imagelist.txt"
MAX_DEPTH_M = 50.0
DATASET = "ibims"
SPLITS = ("val", "test")
_MASKS = ("mask_invalid", "mask_transp")


@dataclass(frozen=True)
class MatImage:
    """The colour image of a .mat.

    Args:
        path: the file.
    """

    path: Path

    def read(self) -> Colour:
        """See ColourSource."""
        return checked_colour(_part(self.path, "rgb"), f"{self.path}, rgb")

    def size(self) -> tuple[int, int]:
        """See ColourSource; the whole file has to be read."""
        height, width = self.read().shape[:2]
        return height, width

    @property
    def files(self) -> Sequence[Path]:
        """See ColourSource."""
        return (self.path,)


@dataclass(frozen=True)
class MatDepth:
    """The depth map of a .mat, 0 where a mask or NaN says that it does not count.

    Args:
        path: the file.
    """

    path: Path

    def read(self) -> Depth:
        """See DepthSource."""
        content = _content(self.path)
        depth = np.nan_to_num(_part(self.path, "depth", content), posinf=0.0, neginf=0.0)
        for mask in _MASKS:
            if mask in content:
                depth = np.where(content[mask] > 0, depth, 0)
        return checked_depth(depth, f"{self.path}, depth")

    @property
    def files(self) -> Sequence[Path]:
        """See DepthSource."""
        return (self.path,)


def _content(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(read_bytes(path)), simplify_cells=True)
    except (ValueError, OSError, TypeError, NotImplementedError, KeyError) as error:
        raise DataError(f"{path}: damaged or no MATLAB file ({error})", "copy or load it again") from None
    if not isinstance(content.get("data"), dict):
        raise DataError(f"{path}: has no struct data", "this is no file of iBims-1")
    return content["data"]


def _part(path: Path, key: str, content: dict[str, Any] | None = None) -> NDArray[Any]:
    content = _content(path) if content is None else content
    if key not in content:
        raise DataError(f"{path}: has no {key} in data; it holds {', '.join(content)}")
    return np.asarray(content[key])


def find_folder(root: Path) -> Path | None:
    """Where the files lie: the folder itself or its ibims1_core_mat."""
    places = (root / FOLDER, root)
    return next((place for place in places if (place / NAMES).is_file() and any(place.glob("*.mat"))), None)


def read_frames(root: Path, split: str, *, max_depth_m: float = MAX_DEPTH_M) -> list[RgbdFrame]:
    """All pictures, in the order of the list.

    Args:
        root: data set folder.
        split: "val" or "test", which are the same.
        max_depth_m: depth that counts as 1 when normalised.

    Raises:
        DataError: it is another split, or a file is missing.
    """
    folder = find_folder(root)
    if folder is None:
        raise DataError(f"{root}: has no {FOLDER}/ with {NAMES} and .mat files")
    if split not in SPLITS:
        raise DataError(f"{root}: no split {split!r}", "iBims-1 is for evaluation alone: take split val")
    names = read_bytes(folder / NAMES).decode("utf-8", "replace").split()
    files = [folder / f"{name.removesuffix('.mat')}.mat" for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file, though {NAMES} lists it")
    return [RgbdFrame(file.stem, DATASET, MatImage(file), MatDepth(file), max_depth_m) for file in files]
