"""A small index of the camera keyframes of nuScenes tables: what a loader needs, without the tables.

It is built once, kept beside the tables (or in the user's cache folder where that is not writable) and built
again when a table changes. All six cameras of trainval, 204,894 images, take about 13 MB.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.frame import require, require_array
from omma.data.formats.nuscenes import Record, Tables
from omma.errors import DataError

FORMAT = 1
FILE = "omma-index.npz"
_TABLES = ("sensor", "calibrated_sensor", "sample_data", "sample", "scene")


@dataclass(frozen=True)
class CameraIndex:
    """N camera keyframes, sorted by token.

    Args:
        tokens: (N,) sample_data tokens.
        samples: (N,) tokens of the samples they belong to.
        images: (N,) image files relative to the data set's folder.
        scenes: (S,) scene names.
        channels: (C,) camera channels.
        intrinsics: (M, 3, 3) distinct calibrations, in pixels of the image files.
        scene_of: (N,) index into `scenes`.
        channel_of: (N,) index into `channels`.
        intrinsics_of: (N,) index into `intrinsics`.
        sizes: (N, 2) height and width of the image files.
    """

    tokens: NDArray[np.str_]
    samples: NDArray[np.str_]
    images: NDArray[np.str_]
    scenes: NDArray[np.str_]
    channels: NDArray[np.str_]
    intrinsics: NDArray[np.float64]
    scene_of: NDArray[np.int32]
    channel_of: NDArray[np.int32]
    intrinsics_of: NDArray[np.int32]
    sizes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.tokens)

    def find(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Row of each token, -1 where there is none."""
        if not len(self) or not len(tokens):
            return np.full(len(tokens), -1, np.int64)
        wanted = np.asarray(tokens, np.str_)
        rows = np.minimum(np.searchsorted(self.tokens, wanted), len(self) - 1)
        return np.where(self.tokens[rows] == wanted, rows, -1)

    def of_scenes(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Rows of the scenes' images, in order of token."""
        chosen = np.isin(self.scenes, list(names))
        return np.nonzero(chosen[self.scene_of])[0]


def read_index(root: Path, version: str | None = None) -> CameraIndex:
    """The index of a version; it is built where there is none that fits the tables.

    Args:
        root: data set folder.
        version: name of the table folder; none takes the only one.

    Raises:
        DataError: tables are missing or damaged.
    """
    tables = Tables(root, version)
    state = _state(tables)
    places = [root / tables.version / FILE, _cache_folder() / f"{_name(tables)}.npz"]
    for place in places:
        found = _load(place, state)
        if found is not None:
            return found
    index = _build(tables)
    _save(index, state, places)
    return index


def _state(tables: Tables) -> str:
    """What the index depends on: size and time of each table."""
    folder = tables.root / tables.version
    found = {}
    for name in _TABLES:
        file = folder / f"{name}.json"
        if not file.is_file():
            raise DataError(f"{file}: no such file", "unpack the metadata of this version again")
        stat = file.stat()
        found[name] = [stat.st_size, stat.st_mtime_ns]
    return json.dumps({"format": FORMAT, "tables": found})


def _name(tables: Tables) -> str:
    place = os.path.abspath(tables.root / tables.version)  # noqa: PTH100  links stay links
    return f"nuscenes-{hashlib.sha256(place.encode()).hexdigest()[:20]}"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(base) / "omma"


def _load(file: Path, state: str) -> CameraIndex | None:
    """The index of a file, or None where it is absent, of other tables or damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["state"]) != state:
                return None
            return CameraIndex(**{field.name: stored[field.name] for field in fields(CameraIndex)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # it holds nothing that the tables do not


def _save(index: CameraIndex, state: str, places: Sequence[Path]) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {field.name: getattr(index, field.name) for field in fields(CameraIndex)}
    np.savez_compressed(buffer, state=np.array(state), **arrays)
    for place in places:
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(buffer.getvalue())
            part.replace(place)
        except OSError:
            continue
        return
    warnings.warn(
        f"the index of the tables cannot be kept, neither in {places[0].parent} nor in {places[1].parent}; "
        "it is built again every time",
        stacklevel=3,
    )


def _build(tables: Tables) -> CameraIndex:
    scene_names = sorted(record["name"] for record in tables.scenes.values())
    scene_number = {name: number for number, name in enumerate(scene_names)}
    scene_of_sample = {
        record["token"]: scene_number[tables.scenes[record["scene_token"]]["name"]]
        for record in tables.rows("sample")
    }
    cameras = {token: one for token, one in tables.sensors.items() if one["channel"].startswith("CAM")}
    channels = sorted({record["channel"] for record in cameras.values()})
    channel_number = {name: number for number, name in enumerate(channels)}
    calibrations, number_of = _calibrations(cameras, str(tables.root / tables.version))
    kept = [
        record
        for record in tables.rows("sample_data")
        if record["is_key_frame"] and record["calibrated_sensor_token"] in cameras
    ]
    kept.sort(key=lambda record: record["token"])
    where = f"{tables.root / tables.version / 'sample_data.json'}"
    sensors = [record["calibrated_sensor_token"] for record in kept]
    return CameraIndex(
        tokens=np.array([record["token"] for record in kept], np.str_),
        samples=np.array([record["sample_token"] for record in kept], np.str_),
        images=np.array([record["filename"] for record in kept], np.str_),
        scenes=np.array(scene_names, np.str_),
        channels=np.array(channels, np.str_),
        intrinsics=calibrations,
        scene_of=np.array([scene_of_sample[record["sample_token"]] for record in kept], np.int32),
        channel_of=np.array([channel_number[cameras[token]["channel"]] for token in sensors], np.int32),
        intrinsics_of=np.array([number_of[token] for token in sensors], np.int32),
        sizes=np.array(
            [[require(record, key, where) for key in ("height", "width")] for record in kept], np.int32
        ).reshape(-1, 2),
    )


def _calibrations(cameras: dict[str, Record], where: str) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Distinct intrinsics (M, 3, 3), and which of them each calibrated sensor has."""
    matrices = [
        require_array(record, "camera_intrinsic", (3, 3), f"{where}, calibrated_sensor {token}")
        for token, record in cameras.items()
    ]
    distinct, inverse = np.unique(np.array(matrices).reshape(-1, 9), axis=0, return_inverse=True)
    return distinct.reshape(-1, 3, 3), dict(zip(cameras, inverse.ravel().tolist(), strict=True))
