"""Writing the files of a data set: the same values give the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_JPEG_QUALITY = 95
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_image(path: Path, rgb: NDArray[np.uint8], kind: str | None = None) -> None:
    """Write a picture (H, W, 3) in RGB order or (H, W) as PNG or JPEG, by `kind` or the path's suffix."""
    suffix = kind or path.suffix
    pixels = rgb if rgb.ndim == 2 else rgb[..., ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else []
    _, encoded = cv2.imencode(suffix, pixels, options)
    write_bytes(path, encoded.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, and its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_npy(path: Path, array: NDArray) -> None:
    """Write an array as .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, array)


def write_npz(path: Path, **arrays: NDArray) -> None:
    """Write arrays as a compressed .npz without the time of writing that numpy would put into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array)
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data.getvalue())


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write plain values and arrays as UTF-8 JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=indent, default=_plain, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")
