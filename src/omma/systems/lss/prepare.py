"""`omma prepare`: a copy of a data set with small images, and SimBEV's pickled boxes as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omma.data.formats import nuscenes, simbev, simbev_cvt, simbev_seed
from omma.data.formats.frame import Frame
from omma.data.formats.simbev_boxes import plain_records, read_pickled_records
from omma.data.formats.simbev_layout import CVT_FOLDER, SPLITS, infos_path
from omma.data.formats.simbev_seed import META
from omma.data.io import image_size, read_image, read_json
from omma.data.outputs import claim, write_whole
from omma.data.transforms import Size, resize_image
from omma.errors import DataError
from omma.systems.lss.config import Layout, LSSData
from omma.systems.lss.layouts import data_root, find_layout

NOTE = "resized.json"
Progress = Callable[[int, int], None]
_NUSCENES_TABLES = ("calibrated_sensor.json", "sample_data.json")
_TABLES: dict[Layout, tuple[str, ...]] = {
    "simbev": ("infos/simbev_infos_*.json",),
    "simbev-seed": tuple(f"{split}/**/{META}" for split in SPLITS),
    "simbev-cvt": (f"{CVT_FOLDER}/**/{META}",),
    "nuscenes": ("v1.0-*/*.json",),
}
# halving the colour planes, as JPEG does by default, would cost more at these sizes than it saves
_FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
Factors = dict[str, tuple[float, float]]  # image file -> new size over old along x and y


def _silent(done: int, total: int) -> None:
    """No progress bar."""


def resize(
    root: Path,
    out: Path,
    *,
    height: int = 224,
    width: int = 480,
    quality: int = 95,
    workers: int = 4,
    frame_stride: int | None = None,
    progress: Progress = _silent,
) -> str:
    """Copy a data set with its images resized and its intrinsics scaled: loading is several times faster.

    The copy has the same layout and holds what training reads: images, labels, boxes, calibration. What is
    there already is kept, so that a stopped copy goes on.

    Args:
        root: the data set, in any layout.
        out: folder of the copy.
        height: of the new images.
        width: of the new images.
        quality: of JPEGs, 1 to 100.
        workers: threads.
        frame_stride: of SimBEV's own layout; by default the frames that training takes. Other layouts are
            copied whole.
        progress: called with images done and in all.

    Raises:
        DataError: the data set is incomplete, or `out` holds something else.
    """
    plan = _plan(root, frame_stride)
    settings = {"height": height, "width": width, "quality": quality, "source": str(root.absolute())}
    claim(out / NOTE, settings, used=out.is_dir() and any(out.iterdir()))
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(
            lambda name: _resize_file(plan.base / name, out / name, (height, width), quality), plan.images
        )
        factors, written = {}, 0
        for done, (name, (size, is_new)) in enumerate(zip(plan.images, jobs, strict=True), 1):
            factors[name] = (width / size[1], height / size[0])
            written += is_new
            progress(done, len(plan.images))
    for name in plan.copies:
        if not (out / name).is_file():
            write_whole(out / name, (plan.base / name).read_bytes())
    for name in plan.documents:
        content = _rescale(plan, name, factors, (height, width))
        write_whole(out / name, json.dumps(content).encode())
    return f"{written} images written, {len(factors) - written} were there; train with data.root={out}"


def boxes(root: Path, *, trust: bool = False, progress: Progress = _silent) -> str:
    """Write SimBEV's pickled boxes (GT_DET.bin) as JSON beside them, for `omma doctor`.

    Args:
        root: the data set, in SimBEV's own layout.
        trust: pickled files can be made to run code. The reader admits arrays and plain values alone, and
            still is used only when you say that you trust the origin of the files.
        progress: called with files done and in all.

    Raises:
        DataError: without trust, or if a file holds anything but boxes.
    """
    files = sorted(path for base in (root, root / "simbev") for path in base.glob("ground-truth/det/*.bin"))
    if not files:
        raise DataError(f"{root}: has no ground-truth/det/*.bin", "boxes are read from SimBEV's own layout")
    if not trust:
        raise DataError(
            f"{root}: {len(files)} box files are pickled, which is a way to run code",
            "add trust=true if you trust where they come from",
        )
    todo = [path for path in files if not path.with_suffix(".json").is_file()]
    for done, path in enumerate(todo, 1):
        records = plain_records(read_pickled_records(path))
        write_whole(path.with_suffix(".json"), json.dumps(records).encode())
        progress(done, len(todo))
    return f"{len(todo)} files written, {len(files) - len(todo)} were there"


@dataclass(frozen=True)
class _Plan:
    """What a copy consists of; names are relative to `base`, with forward slashes.

    Args:
        layout: of the data set.
        base: folder that the names are relative to.
        images: files to resize.
        copies: files to copy as they are.
        documents: JSON files that hold intrinsics or image sizes.
    """

    layout: Layout
    base: Path
    images: list[str]
    copies: list[str]
    documents: list[str]


def _plan(root: Path, frame_stride: int | None) -> _Plan:
    data = LSSData(root=str(root))
    layout = find_layout(data, data_root(data))
    frames = _all_frames(layout, root, frame_stride)
    if not frames:
        raise DataError(f"{root}: has no sample to copy (layout {layout})")
    base = root if layout == "simbev-seed" else frames[0].folder
    tables = sorted(_name(path, base) for pattern in _TABLES[layout] for path in base.glob(pattern))
    documents = [name for name in tables if layout != "nuscenes" or name.endswith(_NUSCENES_TABLES)]
    labels = {_name(frame.folder / file, base) for frame in frames for file in _label_files(frame)}
    images = {_name(frame.folder / file, base) for frame in frames for file in frame.images}
    return _Plan(layout, base, sorted(images), sorted(labels | set(tables) - set(documents)), documents)


def _all_frames(layout: Layout, root: Path, frame_stride: int | None) -> list[Frame]:
    if layout == "simbev":
        splits = [split for split in SPLITS if any(root.glob(f"**/{infos_path(split)}"))]
        return [f for split in splits for f in simbev.read_frames(root, split, frame_stride=frame_stride)]
    if layout == "simbev-seed":
        splits = [split for split in SPLITS if (root / split).is_dir()]
        return [frame for split in splits for frame in simbev_seed.read_frames(root, split)]
    if layout == "simbev-cvt":
        return simbev_cvt.read_frames(root, "train", orientation="all", scenes=simbev_cvt.scene_names(root))
    scenes = [scene["name"] for scene in nuscenes.Tables(root).scenes.values()]
    return nuscenes.read_frames(root, "train", scenes=scenes)


def _name(path: Path, base: Path) -> str:
    """A file below a folder, with `..` resolved by name alone."""
    return Path(os.path.relpath(path, base)).as_posix()


def _label_files(frame: Frame) -> Iterator[str]:
    candidates = [frame.label, frame.visibility]
    if isinstance(frame.boxes, str):
        candidates += [frame.boxes, Path(frame.boxes).with_suffix(".json").as_posix()]
    yield from dict.fromkeys(name for name in candidates if name and (frame.folder / name).is_file())


def _resize_file(source: Path, target: Path, size: Size, quality: int) -> tuple[Size, bool]:
    """Size of the source and whether the target was written."""
    if target.is_file():
        return image_size(source), False
    image = read_image(source)
    small = np.ascontiguousarray(resize_image(image, size)[..., ::-1])
    done, data = cv2.imencode(source.suffix, small, [cv2.IMWRITE_JPEG_QUALITY, quality, *_FULL_COLOUR])
    assert done, f"{source.suffix} was decoded, so it can be encoded"
    write_whole(target, data.tobytes())
    return (image.shape[0], image.shape[1]), True


def _rescale(plan: _Plan, document: str, factors: Factors, size: Size) -> Any:
    """The content of a JSON file with intrinsics, and sizes, of the new images."""
    path = plan.base / document
    content = read_json(path)
    if plan.layout == "nuscenes":
        return _rescale_table(plan, path, content, factors, size)
    if plan.layout == "simbev":
        used = sorted(set(factors.values()))
        if len(used) > 1:
            raise DataError(
                f"{path}: one camera_intrinsics for images of {len(used)} sizes", "mend the data set"
            )
        content["metadata"]["camera_intrinsics"] = _scaled(content["metadata"]["camera_intrinsics"], used[0])
        return content
    folder = path.parent if plan.layout == "simbev-seed" else plan.base
    for sample in content:
        names = [_name(folder / name, plan.base) for name in sample["images"]]
        pairs = zip(sample["intrinsics"], names, strict=True)
        sample["intrinsics"] = [_scaled(matrix, factors[name]) for matrix, name in pairs]
    return content


def _rescale_table(plan: _Plan, path: Path, rows: Any, factors: Factors, size: Size) -> Any:
    if path.name == "sample_data.json":
        for row in rows:
            if row["filename"] in factors:
                row["height"], row["width"] = size
        return rows
    sweeps = read_json(path.with_name("sample_data.json"))
    of_sensor = {
        row["calibrated_sensor_token"]: factors[row["filename"]]
        for row in sweeps
        if row["filename"] in factors
    }
    for row in rows:
        if row["token"] in of_sensor:
            row["camera_intrinsic"] = _scaled(row["camera_intrinsic"], of_sensor[row["token"]])
    return rows


def _scaled(intrinsics: Any, factor: tuple[float, float]) -> list[list[float]]:
    return (np.diag([*factor, 1.0]) @ np.asarray(intrinsics, np.float64)).tolist()
