"""Decoded copies of RGB-D frames: reading one is mapping its file into memory and taking the pixels wanted.

FOLDER/index.jsonl has a line for each frame; the file that it names holds the picture (H, W, 3) uint8, the
true and the measured input depth one after the other, depths as uint16 units where that is exact, else as
float32 metres. A line also says which files it was made of; where one has changed since, reading refuses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Colour, ColourSource, Depth, DepthSource, RgbdFrame
from omma.data.outputs import write_whole
from omma.errors import DataError

INDEX = "index.jsonl"
PARTS = ("image", "depth", "raw")
Window: TypeAlias = tuple[int, int, int, int]  # top, left, height, width
Record: TypeAlias = dict[str, Any]
_SAMPLED = 16  # frames that the disk use is estimated from
_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Stored:
    """Where an array lies in a cache.

    Args:
        path: the file.
        offset: first byte.
        shape: of the array.
        dtype: uint8, uint16 or float32.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def map(self) -> NDArray[Any]:
        """The array, read from disk where it is touched; writing to it does not reach the file.

        Raises:
            DataError: the file is missing or cut short.
        """
        try:
            mapped = np.memmap(self.path, self.dtype, "c", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: the cached picture is missing or cut short ({error})",
                "take its folder away and run `omma prepare rgbd-cache` again",
            ) from None
        return np.asarray(mapped)


@dataclass(frozen=True)
class CachedColour:
    """A decoded picture; see ColourSource.

    Args:
        source: what it was decoded from.
        stored: where it lies.
    """

    source: ColourSource
    stored: Stored

    def read(self) -> Colour:
        """See ColourSource."""
        return self.stored.map()

    def size(self) -> tuple[int, int]:
        """See ColourSource."""
        return self.stored.shape[0], self.stored.shape[1]

    @property
    def files(self) -> Sequence[Path]:
        """The files that it was decoded from, so that a data set is the same with and without its cache."""
        return self.source.files


@dataclass(frozen=True)
class CachedDepth:
    """A decoded depth map; see DepthSource.

    Args:
        source: what it was decoded from.
        stored: where it lies.
        units_per_metre: stored value of one metre.
        extremes: smallest and largest known depth in metres, 0 where none is known.
    """

    source: DepthSource
    stored: Stored
    units_per_metre: float
    extremes: tuple[float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) without reading the pixels."""
        return self.stored.shape

    def read(self) -> Depth:
        """See DepthSource."""
        return self.read_window((0, 0, self.shape[0], self.shape[1]))

    def read_window(self, window: Window) -> Depth:
        """Part of the map, (height, width) float32 metres."""
        top, left, height, width = window
        return _metres(self.stored.map()[top : top + height, left : left + width], self.units_per_metre)

    @property
    def files(self) -> Sequence[Path]:
        """See CachedColour."""
        return self.source.files


def _metres(units: NDArray[Any], units_per_metre: float) -> Depth:
    """As the readers of depth pictures have it, to the last bit."""
    if units.dtype == np.float32:
        return np.ascontiguousarray(units)
    return units.astype(np.float32) / np.float32(units_per_metre)


def open_cache(frames: Sequence[RgbdFrame], root: Path, folder: Path) -> list[RgbdFrame]:
    """The same frames, read from their decoded copies.

    Args:
        frames: of the data set.
        root: the data set's folder.
        folder: of the cache of these frames' split.

    Raises:
        DataError: a frame is not in the cache, or was decoded from something else than what is there now.
    """
    records, stamp = _read_index(folder), _Stamps(root)
    again = f"run `omma prepare rgbd-cache root={root} out={folder.parent} split={folder.name}` again"
    if not records:
        raise DataError(f"{folder}: holds no decoded pictures", again)
    missing = [frame.token for frame in frames if frame.token not in records]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(frames)} pictures are not in it, first {missing[0]}",
            f"{again}; it adds what is missing",
        )
    for frame in frames:
        part = stamp.first_change(frame, records[frame.token])
        if part is not None:
            source = getattr(frame, part)
            name = "input depth" if part == "raw" else part
            raise DataError(
                f"{frame.files[0] if source is None else source.files[0]}: {name} of {frame.token} or how "
                f"it is read (its units, say) is not as it was when {folder} was written",
                f"{again}; it renews what has changed",
            )
    return [_cached(frame, records[frame.token], folder) for frame in frames]


def _cached(frame: RgbdFrame, record: Record, folder: Path) -> RgbdFrame:
    parts: dict[str, Any] = {}
    for part, kept in record["parts"].items():
        stored = Stored(folder / record["file"], kept["offset"], tuple(kept["shape"]), kept["dtype"])
        source = getattr(frame, part)
        parts[part] = (
            CachedColour(source, stored)
            if part == "image"
            else CachedDepth(source, stored, kept["units_per_metre"], tuple(kept["extremes"]))
        )
    return replace(frame, **parts)


def write_cache(
    frames: Sequence[RgbdFrame],
    root: Path,
    folder: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Decode frames into a folder; those that are there already and unchanged are kept.

    A stopped run goes on where it was: a frame's line follows when its file is complete.

    Args:
        frames: of one split.
        root: the data set's folder.
        folder: of the cache.
        workers: threads.
        progress: called with frames done and in all.

    Returns:
        frames written and frames kept.

    Raises:
        DataError: a source is missing or damaged.
    """
    records, stamps = _read_index(folder), _Stamps(root)
    todo = [
        frame
        for frame in frames
        if frame.token not in records
        or stamps.first_change(frame, records[frame.token]) is not None
        or not (folder / records[frame.token]["file"]).is_file()
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in records.values())
    write_whole(folder / INDEX, lines.encode())  # without a last line that an interruption has cut
    done = len(frames) - len(todo)
    pool = ThreadPoolExecutor(workers)
    try:
        with (folder / INDEX).open("a", encoding="utf-8", newline="\n") as index:
            for record in pool.map(partial(_write_frame, folder=folder, stamps=stamps), todo):
                index.write(f"{json.dumps(record)}\n")
                index.flush()
                done += 1
                progress(done, len(frames))
    finally:
        pool.shutdown(cancel_futures=True)
    return len(todo), len(frames) - len(todo)


def estimate_bytes(frames: Sequence[RgbdFrame]) -> int:
    """What the decoded copies of frames take on disk, from some of them."""
    some = frames[:: max(1, len(frames) // _SAMPLED)][:_SAMPLED]
    total = sum(block.nbytes for frame in some for block, _ in _decode(frame).values())
    return round(total * len(frames) / len(some))


def _write_frame(frame: RgbdFrame, *, folder: Path, stamps: _Stamps) -> Record:
    """Write one frame's file; returns its line of the index."""
    made_of = {part: stamps.of(getattr(frame, part)) for part in PARTS if getattr(frame, part) is not None}
    content, parts = bytearray(), {}
    for part, (array, facts) in _decode(frame).items():
        content += bytes(-len(content) % _ALIGNMENT)
        where = {"offset": len(content), "shape": list(array.shape), "dtype": array.dtype.name}
        parts[part] = {**where, **facts, "made_of": made_of[part]}
        content += array.tobytes()
    file = f"{hashlib.sha256(frame.token.encode()).hexdigest()[:20]}.bin"  # tokens may hold any character
    write_whole(folder / file, bytes(content))
    return {"token": frame.token, "file": file, "parts": parts}


def _decode(frame: RgbdFrame) -> dict[str, tuple[NDArray[Any], Record]]:
    """The arrays of a frame, each with what else its line says."""
    arrays: dict[str, tuple[NDArray[Any], Record]] = {"image": (frame.image.read(), {})}
    for part, source in (("depth", frame.depth), ("raw", frame.raw)):
        if source is None:
            continue
        depth, units_per_metre = source.read(), float(getattr(source, "units_per_metre", 1.0))
        known = depth[depth > 0]
        extremes = [float(known.min()), float(known.max())] if known.size else [0.0, 0.0]
        facts = {"units_per_metre": units_per_metre, "extremes": extremes}
        arrays[part] = _compact(depth, units_per_metre), facts
    return arrays


def _compact(depth: Depth, units_per_metre: float) -> NDArray[Any]:
    """As uint16 units if those give the same metres to the last bit."""
    units = np.rint(depth * np.float32(units_per_metre))
    if units.size and units.max() > np.iinfo(np.uint16).max:
        return depth
    coded = units.astype(np.uint16)
    return coded if np.array_equal(_metres(coded, units_per_metre), depth) else depth


class _Stamps:
    """What a source is made of: its files with sizes and times, and how they are read.

    Args:
        root: folder that file names are relative to, so that a data set may move together with its cache.
    """

    def __init__(self, root: Path) -> None:
        self._root = root if root.is_dir() else root.parent
        self._files: dict[Path, list[Any]] = {}

    def of(self, source: ColourSource | DepthSource) -> str:
        """A short hash."""
        assert dataclasses.is_dataclass(source), "readers are data classes"
        fields = {one.name: getattr(source, one.name) for one in dataclasses.fields(source)}
        values = [type(source).__name__, fields, [self._file(path) for path in source.files]]
        text = json.dumps(values, default=self._plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def first_change(self, frame: RgbdFrame, record: Record) -> str | None:
        """The part of a frame that its record was not made of, if there is one."""
        for part in PARTS:
            source, kept = getattr(frame, part), record["parts"].get(part)
            if (source is None) != (kept is None):
                return part
            if source is not None and self.of(source) != kept["made_of"]:
                return part
        return None

    def _file(self, path: Path) -> list[Any]:
        if path not in self._files:
            if not path.is_file():
                raise DataError(f"{path}: no such file")
            status = path.stat()
            self._files[path] = [self._plain(path), status.st_size, status.st_mtime_ns]
        return self._files[path]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Path):
            inside = value.is_relative_to(self._root)
            return value.relative_to(self._root).as_posix() if inside else value.name
        if isinstance(value, np.ndarray):
            return value.tolist()
        return repr(value)


def _read_index(folder: Path) -> dict[str, Record]:
    """Records by token; a later line replaces an earlier one of the same frame."""
    if not (folder / INDEX).is_file():
        return {}
    records = {}
    for line in (folder / INDEX).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # an interruption cut the last line
            continue
        records[record["token"]] = record
    return records
