"""iBims-1: a hundred indoor pictures with laser depth, for evaluation alone.

ROOT[/ibims1_core_mat]/NAME.mat with a struct `data`: rgb (H, W, 3) uint8, depth (H, W) metres, mask_invalid
and mask_transp (H, W) with 0 where depth does not count; `imagelist.txt` beside them lists the names.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import RgbdFrame, StoredDepth, StoredImage
from omma.data.io import read_bytes
from omma.errors import DataError

FOLDER, NAMES = "ibims1_core_mat", "imagelist.txt"
MAX_DEPTH_M = 50.0
DATASET = "ibims"
SPLITS = ("val", "test")
_MASKS = ("mask_invalid", "mask_transp")


def _content(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(read_bytes(path)), simplify_cells=True)
    except (ValueError, OSError, TypeError, NotImplementedError, KeyError) as error:
        raise DataError(f"{path}: damaged or no MATLAB file ({error})", "copy or load it again") from None
    if not isinstance(content.get("data"), dict):
        raise DataError(f"{path}: has no struct data", "this is no file of iBims-1")
    return content["data"]


def _image(path: Path, key: str) -> NDArray[Any]:
    return _part(_content(path), key, path)


def _depth(path: Path, key: str) -> NDArray[Any]:
    """0 where a mask or NaN says that it does not count."""
    content = _content(path)
    depth = np.nan_to_num(_part(content, key, path), posinf=0.0, neginf=0.0)
    for mask in _MASKS:
        if mask in content:
            depth = np.where(content[mask] > 0, depth, 0)
    return depth


def _part(content: dict[str, Any], key: str, path: Path) -> NDArray[Any]:
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
    return [
        RgbdFrame(
            token=file.stem,
            dataset=DATASET,
            image=StoredImage(file, "rgb", _image),
            depth=StoredDepth(file, "depth", _depth),
            max_depth_m=max_depth_m,
        )
        for file in files
    ]
