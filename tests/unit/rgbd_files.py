"""Small RGB-D data sets for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "depth"


def real(name: str) -> Path:
    """A real picture's folder, or skip."""
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip("the real pictures are not here")
    return folder


def write(path: Path, picture: np.ndarray) -> Path:
    """A picture, R, G, B in that order if it has colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coded = cv2.imencode(path.suffix, picture[..., ::-1] if picture.ndim == 3 else picture)[1]
    path.write_bytes(coded.tobytes())
    return path


def scene(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 and its depth (H, W) float32 of 1 to 6 m, all known."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size) / np.array(size)[:, None, None]
    depth = (2 + 3 * rows + columns * rng.uniform(-1, 1)).astype(np.float32)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    return image, depth


def write_pairs(folder: Path, number: int, *, units: float = 1000.0, first: int = 0, **kwargs: Any) -> None:
    """rgb/ and depth/ with so many pictures."""
    for index in range(first, first + number):
        image, depth = scene(index, **kwargs)
        write(folder / "rgb" / f"{index:03d}.png", image)
        write(folder / "depth" / f"{index:03d}.png", np.rint(depth * units).astype(np.uint16))
