"""Readers of single files: images, depth pictures, arrays and JSON; every error names the file.

Images are decoded by OpenCV from bytes, so that any path works on every platform. EXIF rotation
is ignored unless asked for: calibration belongs to the pixels as they are stored.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omma.errors import DataError

_JPEG_START = b"\xff\xd8"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_REDUCED = (2, 4, 8)  # the size is divided by


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: it is missing, empty or cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not data:
        raise DataError(f"{path}: the file is empty", "copy or make it again")
    return data


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """A colour image; grey and four-channel files are converted, transparency is dropped.

    Args:
        path: the file.
        upright: turn it as its EXIF data say, as viewers do.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, cut short or no image.
    """
    return _decode(read_bytes(path), path, "COLOR", upright=upright)


def read_image_reduced(path: Path, at_least: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A colour image, decoded at 1/2, 1/4 or 1/8 of its size where that is still large enough.

    Only JPEGs are reduced: their decoder scales at no cost and faster than it decodes the whole.

    Args:
        path: the file.
        at_least: (H, W) that the decoded image must not fall below.

    Returns:
        (H', W', 3) uint8 RGB and the (H, W) of the file.

    Raises:
        DataError: the file is missing, cut short or no image.
    """
    data = read_bytes(path)
    size = _size_in_header(data, path)
    factors = [f for f in _REDUCED if all(s // f >= least for s, least in zip(size, at_least, strict=True))]
    if not factors or not data.startswith(_JPEG_START):
        return _decode(data, path, "COLOR"), size
    return _decode(data, path, f"REDUCED_COLOR_{max(factors)}"), size


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone.

    Raises:
        DataError: the file is missing or no image.
    """
    return _size_in_header(read_bytes(path), path)


def read_grey(path: Path) -> NDArray[Any]:
    """A one-channel picture such as a label, with its own bit depth.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        DataError: the file is missing, cut short, no image or has several channels.
    """
    picture = read_picture(path)
    if picture.ndim != 2:
        raise DataError(f"{path}: has {picture.shape[-1]} channels, expected one")
    return picture


def read_picture(path: Path) -> NDArray[Any]:
    """A picture exactly as stored.

    Returns:
        (H, W) or (H, W, channels) in the order R, G, B, A; uint8 or uint16.

    Raises:
        DataError: the file is missing, cut short or no image.
    """
    return _decode(read_bytes(path), path, "UNCHANGED")


def read_depth_png(path: Path, units_per_metre: float) -> NDArray[np.float32]:
    """A 16-bit depth picture.

    Args:
        path: the file.
        units_per_metre: stored value of one metre, such as 256 (KITTI) or 1000 (millimetres).

    Returns:
        (H, W) float32 metres; 0 stays 0, which means none.

    Raises:
        DataError: the file is missing, cut short or not 16-bit with one channel.
    """
    units = read_grey(path)
    if units.dtype != np.uint16:
        raise DataError(f"{path}: has {units.dtype} values, expected a 16-bit depth picture")
    return units.astype(np.float32) / np.float32(units_per_metre)


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: the file is missing or not JSON, with line and column.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})",
            "the file may be cut short; write or copy it again",
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text") from None


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file; pickled objects are refused.

    Raises:
        DataError: the file is missing, damaged or holds objects.
    """
    return _load(path, read_bytes(path))


def read_npz(path: Path, key: str) -> NDArray[Any]:
    """One array of a .npz file; pickled objects are refused.

    Raises:
        DataError: the file is missing or damaged, lacks the key or holds objects.
    """
    archive = _load_archive(path)
    if key not in archive:
        raise DataError(f"{path}: has no array {key!r}; it holds {', '.join(archive) or 'nothing'}")
    try:
        return archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def npz_names(path: Path) -> list[str]:
    """Names of the arrays of a .npz file.

    Raises:
        DataError: the file is missing or damaged.
    """
    return list(_load_archive(path))


def _load_archive(path: Path) -> Any:
    archive = _load(path, read_bytes(path))
    if isinstance(archive, np.ndarray):
        raise DataError(f"{path}: is a single array (.npy), expected an .npz archive of named arrays")
    return archive


def _load(path: Path, data: bytes) -> Any:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(f"{path}: holds pickled objects, which could run code; they are not read")
    return DataError(f"{path}: damaged or no NumPy file ({error})", "copy or make it again")


def _decode(data: bytes, path: Path, mode: str, *, upright: bool = False) -> NDArray[Any]:
    """The picture of a file's content; `mode` is the end of one of OpenCV's IMREAD_ names."""
    import cv2  # here: verbs that read recipes alone import this module, and it takes a while

    _check_complete(data, path)
    flags = getattr(cv2, f"IMREAD_{mode}")
    if flags != cv2.IMREAD_UNCHANGED and not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({error.err})") from None
    if picture is None:
        raise DataError(f"{path}: damaged or no image", "copy or make it again")
    if picture.ndim == 3:
        swap = cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB
        cv2.cvtColor(picture, swap, dst=picture)
    return picture


def _check_complete(data: bytes, path: Path) -> None:
    """Refuse a JPEG or PNG without its end: decoders differ in whether they fill the rest with grey."""
    if data.startswith(_JPEG_START):
        # an embedded thumbnail has an end of its own, but before the last scan starts
        complete = data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN) > 0
    elif data.startswith(_PNG_START):
        complete = data.rfind(_PNG_END) > 0
    else:
        return
    if not complete:
        raise DataError(f"{path}: the image is cut short ({len(data)} bytes)", "copy or make it again")


def _size_in_header(data: bytes, path: Path) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: damaged or no image ({type(error).__name__})") from None
