"""A reader of binary PLY files, for tests."""

from __future__ import annotations

import struct

import numpy as np

_SIZES = {"float": ("f", 4), "uchar": ("B", 1)}


def read_ply(data: bytes) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Header lines, points (P, 3) and colours (P, 3) of a PLY file, read as its header says."""
    head, _, body = data.partition(b"end_header\n")
    header = head.decode("ascii").splitlines()
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    number = int(next(line for line in header if line.startswith("element vertex")).split()[2])
    properties = [line.split()[1:] for line in header if line.startswith("property")]
    assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue"]
    code = "<" + "".join(_SIZES[kind][0] for kind, _ in properties)
    assert len(body) == number * sum(_SIZES[kind][1] for kind, _ in properties)
    rows = list(struct.iter_unpack(code, body))
    table = np.array(rows, np.float64).reshape(number, 6)
    return header, table[:, :3], table[:, 3:].astype(np.uint8)
