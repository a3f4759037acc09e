"""`omma prepare nuscenes-...`: labels and depths from nuScenes tables, and small copies of the images."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from omma.data.formats.nuscenes import Tables
from omma.data.formats.nuscenes_bev import LABEL_NOTE, Ignore, Style, encode_png, label_note
from omma.data.formats.nuscenes_index import read_index
from omma.data.formats.nuscenes_maps import locations, require_maps
from omma.data.formats.nuscenes_splits import Lists
from omma.data.io import image_size, read_image
from omma.data.outputs import claim, write_whole
from omma.errors import DataError, UsageError
from omma.systems.diffbev.config import DiffBEVData
from omma.systems.diffbev.keyframes import Keyframe, draw_labels, measure_depths, read_keyframes
from omma.systems.diffbev.layouts import (
    CALIBRATION,
    CAMERAS,
    DEPTH_NOTE,
    DEPTH_SUFFIX,
    DEPTH_SUFFIXES,
    IMAGES,
    LABELS,
    Items,
    data_root,
    find_layout,
    listed_scenes,
    read_items,
)
from omma.systems.diffbev.selection import SPLITS, Plan, Source, require_one_of

RESIZE_NOTE = "resized.json"
WORKERS = min(8, os.cpu_count() or 1)
Size = tuple[int, int]
Progress = Callable[[int, int], None]
Job = tuple[Keyframe, dict[str, Path]]  # a sample, and the file to write for each of its images


# halving the colour planes, as JPEG does by default, would cost more at these sizes than it saves
_FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def _silent(done: int, total: int) -> None:
    """No progress bar."""


def bev_labels(
    *,
    root: Path | None = None,
    nuscenes_root: Path | None = None,
    version: str | None = None,
    output_dir: Path | None = None,
    split: str | None = None,
    img_dir: Path | None = None,
    cameras: str | list[str] = "all",
    split_lists: Lists = "pon",
    split_file: str | None = None,
    style: Style = "reference",
    ignore: Ignore = "fov+occlusion",
    workers: int = WORKERS,
    progress: Progress = _silent,
) -> str:
    """Draw the bird's-eye-view label of every nuScenes image (needs the map expansion).

    Writes `<output_dir>/<split>/<token>.png`. What is there already is kept, so that a stopped run goes on.

    Args:
        root: data set folder.
        nuscenes_root: another name of `root`.
        version: table folder such as v1.0-trainval; by default the only one.
        output_dir: by default ann_bev_dir in the data set folder.
        split: train or val; by default both.
        img_dir: take the images of this folder instead of the split's scenes.
        cameras: names, separated by commas, or all.
        split_lists: pon or official.
        split_file: text file of scene names instead of the lists; {split} in it is train or val.
        style: reference (as published) or exact (right where polygons are not convex or have holes).
        ignore: fov+occlusion (as published) or fov.
        workers: processes.
        progress: called with images done and in all.

    Raises:
        DataError: tables, maps or LiDAR files are missing, or the folder holds labels of another making.
        UsageError: a setting has no such value.
    """
    require_one_of("style", style, get_args(Style))
    require_one_of("ignore", ignore, get_args(Ignore))
    source = Source(_root(root, nuscenes_root), version, split, img_dir, cameras, (split_lists, split_file))
    out = output_dir or source.root / LABELS
    tables = Tables(source.root, source.version)
    plan = source.plan(lambda name: out / name, ".png", (".png",))
    cities = locations(tables)
    require_maps(source.root, {cities[one] for one in source.scene_tokens(tables)})
    used = any(plan.existing.values())
    claim(out / LABEL_NOTE, label_note(style=style, ignore=ignore), used=used)
    work = partial(_write_labels, root=source.root, style=style, ignore=ignore)
    written = _run(work, _jobs(tables, plan.targets, boxes=True), plan, workers, progress)
    return f"{written} labels written, {plan.num_existing} were there ({out})"


def depth(
    *,
    root: Path | None = None,
    nuscenes_root: Path | None = None,
    version: str | None = None,
    output_dir: Path | None = None,
    split: str | None = None,
    img_dir: Path | None = None,
    cameras: str | list[str] = "all",
    split_lists: Lists = "pon",
    split_file: str | None = None,
    height: int = 600,
    width: int = 800,
    min_depth: float = 1.0,
    max_depth: float = 50.0,
    workers: int = WORKERS,
    progress: Progress = _silent,
) -> str:
    """Project the LiDAR of every nuScenes sample into its images, for the depth loss.

    Writes `<output_dir>/<split>_depth/<token>.npz` with `depth` in metres and `mask`. What is there already
    is kept, so that a stopped run goes on.

    Args:
        root: data set folder.
        nuscenes_root: another name of `root`.
        version: table folder such as v1.0-trainval; by default the only one.
        output_dir: by default ann_bev_dir in the data set folder.
        split: train or val; by default both.
        img_dir: take the images of this folder instead of the split's scenes.
        cameras: names, separated by commas, or all.
        split_lists: pon or official.
        split_file: text file of scene names instead of the lists; {split} in it is train or val.
        height: of the depth pictures.
        width: of the depth pictures.
        min_depth: nearest depth kept, metres.
        max_depth: farthest depth kept, metres.
        workers: processes.
        progress: called with images done and in all.

    Raises:
        DataError: tables or LiDAR files are missing, or the folder holds depths of another making.
        UsageError: a setting has no such value.
    """
    if not 0 <= min_depth < max_depth or min(height, width) < 1:
        raise UsageError(f"min_depth={min_depth}, max_depth={max_depth}, {height} x {width}: not possible")
    source = Source(_root(root, nuscenes_root), version, split, img_dir, cameras, (split_lists, split_file))
    out = output_dir or source.root / LABELS
    plan = source.plan(lambda name: out / f"{name}{DEPTH_SUFFIX}", ".npz", DEPTH_SUFFIXES)
    settings = {"height": height, "width": width, "min_depth": min_depth, "max_depth": max_depth}
    claim(out / DEPTH_NOTE, settings, used=any(plan.existing.values()))
    tables = Tables(source.root, source.version)
    work = partial(_write_depths, size=(height, width), min_depth=min_depth, max_depth=max_depth)
    written = _run(work, _jobs(tables, plan.targets, boxes=False), plan, workers, progress)
    return f"{written} depths written, {plan.num_existing} were there ({out})"


def resize(
    *,
    root: Path,
    out: Path,
    height: int = 600,
    width: int = 800,
    quality: int = 95,
    version: str | None = None,
    split_lists: Lists = "pon",
    workers: int = WORKERS,
    progress: Progress = _silent,
) -> str:
    """Copy the images at the network's size, with their calibration: loading is several times faster.

    The copy has img_dir/, calib.json, cameras.json and, as hard links where the disk allows it, ann_bev_dir/.
    What is there already is kept, so that a stopped copy goes on.

    Args:
        root: data set folder, of tables or folders.
        out: folder of the copy.
        height: of the new images.
        width: of the new images.
        quality: of JPEGs, 1 to 100.
        version: table folder such as v1.0-trainval; by default the only one.
        split_lists: pon or official, for tables.
        workers: threads.
        progress: called with images done and in all.

    Raises:
        DataError: the data set is incomplete, or `out` holds something else.
        UsageError: a setting has no such value.
    """
    require_one_of("split_lists", split_lists, get_args(Lists))
    splits = _all_items(DiffBEVData(root=str(root), version=version), split_lists)
    source = next(iter(splits.values())).folder
    settings = {"height": height, "width": width, "quality": quality, "source": str(source.absolute())}
    claim(out / RESIZE_NOTE, settings, used=out.is_dir() and any(out.iterdir()))
    total, written, done = sum(len(items) for items in splits.values()), 0, 0
    calibration: dict[str, list[list[float]]] = {}
    with ThreadPoolExecutor(workers) as pool:
        for split, items in splits.items():
            targets = [out / IMAGES / split / f"{token}.jpg" for token in items.tokens]
            sources = [source / name for name in items.images]
            sizes = pool.map(partial(_resize_file, size=(height, width), quality=quality), sources, targets)
            for token, intrinsics, (size, is_new) in zip(items.tokens, items.intrinsics, sizes, strict=True):
                scale = np.array([[width / size[1]], [height / size[0]], [1.0]])
                calibration[token] = (intrinsics * scale).tolist()
                written, done = written + is_new, done + 1
                progress(done, total)
            _link_labels(items, split, out)
    channels = {
        token: channel
        for items in splits.values()
        for token, channel in zip(items.tokens, items.channels, strict=True)
        if channel
    }
    write_whole(out / CALIBRATION, json.dumps(calibration).encode())
    if channels:
        write_whole(out / CAMERAS, json.dumps(channels).encode())
    return f"{written} images written, {total - written} were there; train with data.root={out}"


def _root(root: Path | None, nuscenes_root: Path | None) -> Path:
    given = root or nuscenes_root
    if given is None:
        raise UsageError("give root=PATH, the nuScenes folder with samples/ and v1.0-*/")
    return data_root(DiffBEVData(root=str(given)))


def _jobs(tables: Tables, targets: dict[str, Path], *, boxes: bool) -> Iterator[Job]:
    for keyframe in read_keyframes(tables, targets, boxes=boxes):
        yield keyframe, {camera.token: targets[camera.token] for camera in keyframe.cameras}


def _run(
    work: Callable[[Job], int], jobs: Iterable[Job], plan: Plan, workers: int, progress: Progress
) -> int:
    """Do all jobs; returns the number of files written."""
    total, written = len(plan.targets), 0
    if not total:
        return 0
    for number in _in_processes(work, jobs, workers) if workers > 1 else map(work, jobs):
        written += number
        progress(written, total)
    return written


def _in_processes(work: Callable[[Job], int], jobs: Iterable[Job], workers: int) -> Iterator[int]:
    # spawned, because a fork would copy the tables and threads of this process
    with _one_thread_each():
        pool = multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (0,))
    with pool:
        yield from pool.imap_unordered(work, jobs)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within calculate with one thread: they would take each other's cores otherwise."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write_labels(job: Job, *, root: Path, style: Style, ignore: Ignore) -> int:
    keyframe, files = job
    for token, bits in draw_labels(keyframe, root, style=style, ignore=ignore).items():
        write_whole(files[token], encode_png(bits))
    return len(files)


def _write_depths(job: Job, *, size: tuple[int, int], min_depth: float, max_depth: float) -> int:
    keyframe, files = job
    found = measure_depths(keyframe, size, min_depth=min_depth, max_depth=max_depth)
    for token, picture in found.items():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, depth=picture, mask=(picture > 0).astype(np.uint8))
        write_whole(files[token], buffer.getvalue())
    return len(files)


def _all_items(data: DiffBEVData, split_lists: Lists) -> dict[str, Items]:
    """The images of every split that there is."""
    root = data_root(data)
    layout = find_layout(data, root)
    if layout == "tables":
        data = data.model_copy(update={"split_lists": split_lists})
        version = Tables(root, data.version).version
        index = read_index(root, version)
        there = [name for name in SPLITS if listed_scenes(data, index, name, version)]
        if not there:
            raise DataError(f"{root / version}: no scene is in the {split_lists} lists")
        return {name: read_items(data, layout, root, name) for name in there}
    there = [name for name in SPLITS if (root / IMAGES / name).is_dir()]
    if not there:
        raise DataError(f"{root / IMAGES}: has neither {' nor '.join(SPLITS)}")
    return {name: read_items(data, layout, root, name) for name in there}


def _resize_file(source: Path, target: Path, *, size: Size, quality: int) -> tuple[Size, bool]:
    """Size of the source and whether the target was written."""
    if target.is_file():
        return image_size(source), False
    image = read_image(source)
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *_FULL_COLOUR]
    done, data = cv2.imencode(".jpg", small[..., ::-1], options)
    assert done, "OpenCV encodes every uint8 image"
    write_whole(target, data.tobytes())
    return (image.shape[0], image.shape[1]), True


def _link_labels(items: Items, split: str, out: Path) -> None:
    """Put labels, depths and the notes about them into the copy."""
    for folder, files in ((split, items.labels), (f"{split}{DEPTH_SUFFIX}", items.depths)):
        for name in files:
            if name is not None:
                _link(items.folder / name, out / LABELS / folder / Path(name).name)
    for note in (LABEL_NOTE, DEPTH_NOTE):
        if (items.folder / LABELS / note).is_file():
            _link(items.folder / LABELS / note, out / LABELS / note)


def _link(source: Path, target: Path) -> None:
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or a file system without hard links
        write_whole(target, source.read_bytes())
