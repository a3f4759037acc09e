"""`omma world`: builds a data set of procedural scenes in one of several on-disk formats.

Every file is a pure function of the format, the seed, the scene number and the frame number, so that neither
the number of workers nor their pace changes a byte. A data set appears under its name when it is complete.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omma.data.formats.simbev_layout import scene_key
from omma.errors import DataError, UsageError
from omma.version import __version__
from omma.world.capture import Capture
from omma.world.cast import accelerate
from omma.world.town import build_scene
from omma.world.writers.files import write_json

FORMAT_VERSION = 1
MARKER = "world.json"
# each module has IMAGE_SIZE, FRAME_INTERVAL_S, SPLITS, write_frame(folder, capture) and
# finish(folder, records, image_size); one that can only hold so many scenes also has most_scenes(split), and
# one whose scenes are no towns its own build_scene(seed, number) and Capture
FORMATS = {
    "simbev": "omma.world.writers.simbev",
    "simbev-seed": "omma.world.writers.simbev_seed",
    "simbev-cvt": "omma.world.writers.simbev_cvt",
    "nuscenes": "omma.world.writers.nuscenes",
    "bev-dirs": "omma.world.writers.bev_dirs",
    "rgbd-nyu": "omma.world.writers.rgbd_nyu",
    "rgbd-kitti": "omma.world.writers.rgbd_kitti",
    "rgbd-dirs": "omma.world.writers.rgbd_dirs",
    "coco": "omma.world.writers.coco",
    "coco-solo": "omma.world.writers.coco_solo",
    "quic360": "omma.world.writers.quic360",
}
_FRAMES_PER_UNIT = 8

Progress = Callable[[int], object]


@dataclass(frozen=True)
class WorldSummary:
    """What was built.

    Args:
        format: its on-disk format.
        folder: where it lies.
        splits: names of the scenes of each split.
        frames: frames a scene.
        image_size: (H, W) of the pictures.
        seed: of the world.
        seconds: time taken.
    """

    format: str
    folder: Path
    splits: dict[str, list[str]]
    frames: int
    image_size: tuple[int, int]
    seed: int
    seconds: float

    def __str__(self) -> str:
        counts = ", ".join(f"{len(names) * self.frames} {split}" for split, names in self.splits.items())
        height, width = self.image_size
        return f"{self.folder}: {self.format}, {counts} frames at {height}x{width} in {self.seconds:.0f} s"


@dataclass(frozen=True)
class _Unit:
    """Work for one process: some frames of one scene."""

    format: str
    folder: Path
    seed: int
    split: str
    scene: int
    frames: tuple[int, ...]
    frame_interval_s: float
    image_size: tuple[int, int]


def build(
    format: str,
    out: Path,
    *,
    scenes: int,
    val_scenes: int,
    frames: int,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
    workers: int = 1,
    force: bool = False,
    frame_interval_s: float | None = None,
    progress: Progress | None = None,
) -> WorldSummary:
    """Build a data set.

    Args:
        format: key of `FORMATS`.
        out: folder to make; it must not hold anything.
        scenes: training scenes.
        val_scenes: validation scenes, and as many test scenes where the format has that split.
        frames: frames a scene.
        seed: of the world.
        image_size: (H, W) of the pictures; the format's own by default.
        workers: processes.
        force: replace `out` if `omma world` made it.
        frame_interval_s: seconds between frames; the format's own by default.
        progress: called with the number of frames that are done.

    Raises:
        UsageError: there is no such format, or it does not hold so many scenes.
        DataError: the folder is in use, or the ray caster is not installed.
    """
    started = time.monotonic()
    writer, out = _writer(format), out.absolute()
    accelerate(np.zeros((1, 3, 3), np.float32))  # where Embree is missing this says so before any work
    _refuse_used(out, force)
    size = image_size or writer.IMAGE_SIZE
    interval_s = writer.FRAME_INTERVAL_S if frame_interval_s is None else frame_interval_s
    splits = _splits(writer.SPLITS, scenes, val_scenes)
    _refuse_too_many(format, writer, splits)
    with _under_construction(out) as folder:
        units = [
            _Unit(format, folder, seed, split, scene, part, interval_s, size)
            for split, numbers in splits.items()
            for scene in numbers
            for part in _parts(frames)
        ]
        records: dict[str, dict[str, list[Any]]] = {
            split: {scene_key(n): [] for n in numbers} for split, numbers in splits.items()
        }
        done = 0
        for unit, frame_records in _worked(units, workers):
            records[unit.split][scene_key(unit.scene)] += frame_records
            done += len(frame_records)
            if progress:
                progress(done)
        writer.finish(folder, records, size)
        names = {split: list(found) for split, found in records.items()}
        summary = WorldSummary(format, out, names, frames, size, seed, time.monotonic() - started)
        _write_marker(folder, summary, interval_s)
    return summary


def _writer(format: str) -> Any:
    if format not in FORMATS:
        raise UsageError(f"no world format {format!r}", f"there are: {', '.join(FORMATS)}")
    return import_module(FORMATS[format])


def _splits(names: tuple[str, ...], scenes: int, val_scenes: int) -> dict[str, range]:
    """Scene numbers of each split, one after the other."""
    splits, first = {}, 0
    for name in names:
        count = scenes if name == "train" else val_scenes
        splits[name] = range(first, first + count)
        first += count
    return splits


def _refuse_too_many(format: str, writer: Any, splits: dict[str, range]) -> None:
    if not hasattr(writer, "most_scenes"):
        return
    for split, numbers in splits.items():
        most = writer.most_scenes(split)
        if len(numbers) > most:
            raise UsageError(
                f"{format} has names for {most} {split} scenes, not {len(numbers)}", f"ask for {most}"
            )


def _parts(frames: int) -> list[tuple[int, ...]]:
    return [tuple(range(n, min(n + _FRAMES_PER_UNIT, frames))) for n in range(0, frames, _FRAMES_PER_UNIT)]


def _worked(units: list[_Unit], workers: int) -> Iterator[tuple[_Unit, list[Any]]]:
    """Units and their records, in order."""
    workers = min(workers, len(units))
    if workers <= 1:
        yield from ((unit, _write_unit(unit)) for unit in units)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread) as pool:
        try:
            yield from zip(units, pool.map(_write_unit, units), strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _use_one_thread() -> None:
    cv2.setNumThreads(1)


def _write_unit(unit: _Unit) -> list[Any]:
    writer = _writer(unit.format)
    scene = _scene(getattr(writer, "build_scene", build_scene), unit.seed, unit.scene)
    capture = getattr(writer, "Capture", Capture)
    return [
        writer.write_frame(
            unit.folder,
            capture(scene, unit.seed, unit.split, frame, frame * unit.frame_interval_s, unit.image_size),
        )
        for frame in unit.frames
    ]


@lru_cache(maxsize=1)
def _scene(make: Callable[[int, int], Any], seed: int, number: int) -> Any:
    return make(seed, number)


def _refuse_used(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file", "name a new folder")
    if any(out.iterdir()) and not (force and (out / MARKER).is_file()):
        ours = (out / MARKER).is_file()
        raise DataError(
            f"{out}: the folder is not empty",
            "--force replaces it"
            if ours
            else "name a new folder; --force replaces only what omma world made",
        )


@contextmanager
def _under_construction(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well and vanishes when it does not."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_marker(folder: Path, summary: WorldSummary, frame_interval_s: float) -> None:
    facts = asdict(summary)
    for name in ("folder", "seconds"):
        del facts[name]
    head = {
        "format_version": FORMAT_VERSION,
        "omma_version": __version__,
        "frame_interval_s": frame_interval_s,
    }
    write_json(folder / MARKER, {**head, **facts})
