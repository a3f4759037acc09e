"""`omma prepare rgbd-cache`: pictures and depths decoded once, so that training reads them from memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from omma.data.formats.rgbd_cache import estimate_bytes, write_cache
from omma.errors import DataError, UsageError
from omma.systems.g2_monodepth.layouts import Layout, read_frames

WORKERS = min(8, os.cpu_count() or 1)


def _silent(done: int, total: int) -> None:
    """No progress bar."""


def rgbd_cache(
    *,
    root: Path,
    out: Path,
    split: str | list[str] = "train,val",
    layout: Layout = "auto",
    units_per_metre: float | None = None,
    max_depth: float | None = None,
    workers: int = WORKERS,
    progress: Callable[[int, int], None] = _silent,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Decode pictures and depths once: a training with data.cache=OUT loads several times faster.

    Samples are the same, bit for bit. What is there already is kept, so that a stopped run goes on; of a
    changed data set only what has changed is decoded again.

    Args:
        root: data set folder, of any layout.
        out: folder of the cache; each split gets a folder in it.
        split: names, separated by commas.
        layout: as data.layout.
        units_per_metre: as data.units_per_metre.
        max_depth: as data.max_depth.
        workers: threads.
        progress: called with pictures done and in all.
        say: takes a line.

    Raises:
        DataError: the data set is incomplete, or the disk is too small.
        UsageError: a setting has no such value.
    """
    if layout not in get_args(Layout):
        raise UsageError(f"layout={layout}: expected one of {', '.join(get_args(Layout))}")
    names = split.split(",") if isinstance(split, str) else split
    settings = {"layout": layout, "units_per_metre": units_per_metre, "max_depth_m": max_depth}
    splits = {name: read_frames(root, name, **settings) for name in (name.strip() for name in names)}
    total, needed = sum(map(len, splits.values())), sum(map(estimate_bytes, splits.values()))
    _check_disk(out, needed, total, say)
    written = kept = 0
    for name, frames in splits.items():
        before = written + kept
        new, old = write_cache(
            frames,
            root,
            out / name,
            workers=workers,
            progress=lambda done, _, before=before: progress(before + done, total),
        )
        written, kept = written + new, kept + old
    return f"{written} pictures decoded, {kept} were there; train with data.cache={out}"


def _check_disk(out: Path, needed: int, total: int, say: Callable[[str], None]) -> None:
    """Say what the whole cache takes; refuse where that and what is there already do not fit."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    there = sum(file.stat().st_size for file in out.rglob("*.bin")) if out.is_dir() else 0
    free = shutil.disk_usage(place).free + there
    text = f"{total} pictures take {needed / 1e9:.1f} GB decoded"
    if needed > free:
        raise DataError(f"{out}: {text}, {free / 1e9:.1f} GB are free", "choose a folder on a larger disk")
    say(f"{text}; {free / 1e9:.1f} GB are free in {out}")
