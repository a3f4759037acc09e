"""Pickled NumPy data of others, read without running code: arrays and plain containers alone are built."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from omma.data.io import read_bytes
from omma.errors import DataError

_ADMITTED = {
    (f"numpy{core}.{module}", name)
    for core in (".core", "._core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; anything else is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_pickled(path: Path, what: str) -> Any:
    """The value of a pickle, or of an object array in NumPy's own format.

    Args:
        path: the file.
        what: for messages, such as "box file".

    Raises:
        DataError: the file is missing, damaged, or holds anything but arrays and plain values.
    """
    stream = io.BytesIO(read_bytes(path))
    try:
        if stream.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
            _skip_header(stream)
        return _ArraysOnly(stream).load()
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused: {error}",
            f"a {what} holds arrays and plain values only; do not trust this one",
        ) from None
    except (EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise DataError(f"{path}: damaged or no {what} ({error})") from None


def _skip_header(stream: io.BytesIO) -> None:
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    read_header(stream)
