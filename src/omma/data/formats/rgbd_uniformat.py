"""Pictures with given and true depth as OMNI-DC's test sets hold them, for evaluation alone.

ROOT/**/NAME.npy, each a pickled dict: `rgb` (H, W, 3) uint8, `dep` (given) and `gt` (true) depth (H, W) in
metres, 0 where unknown. Only arrays and plain values are unpickled, so that no file can run code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import RgbdFrame, StoredDepth, StoredImage
from omma.data.pickles import read_pickled
from omma.errors import DataError

SPLITS = ("val", "test")
_RGB, _GIVEN, _TRUE = "rgb", "dep", "gt"


def _part(path: Path, key: str) -> NDArray[Any]:
    value = read_pickled(path, "sample file")
    content = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if not isinstance(content, dict) or key not in content:
        holds = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: has no {key}; it holds {holds}", "expected a dict of rgb, dep and gt")
    return np.asarray(content[key])


def is_layout(root: Path) -> bool:
    """Whether there are .npy files."""
    return next(root.rglob("*.npy"), None) is not None


def read_frames(root: Path, split: str, *, max_depth_m: float | None = None) -> list[RgbdFrame]:
    """All pictures, sorted by name.

    Args:
        root: data set folder.
        split: "val" or "test", which are the same.
        max_depth_m: depth that counts as 1 when normalised; the files do not say.

    Raises:
        DataError: it is another split, there is no file, or the largest depth is not given.
    """
    if split not in SPLITS:
        raise DataError(f"{root}: no split {split!r}", "these files are for evaluation alone: take split val")
    if max_depth_m is None:
        raise DataError(f"{root}: the largest depth is unknown", "set data.max_depth in metres")
    files = sorted(root.rglob("*.npy"))
    if not files:
        raise DataError(f"{root}: has no .npy file")
    return [
        RgbdFrame(
            token=file.relative_to(root).with_suffix("").as_posix(),
            dataset=root.name,
            image=StoredImage(file, _RGB, _part),
            depth=StoredDepth(file, _TRUE, _part),
            max_depth_m=max_depth_m,
            raw=StoredDepth(file, _GIVEN, _part),
        )
        for file in files
    ]
