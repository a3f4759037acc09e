"""Where images, calibration, labels and depths are: nuScenes tables, or img_dir with calib.json."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omma.data.formats import nuscenes
from omma.data.formats.frame import read_scene_names, require_array
from omma.data.formats.nuscenes_index import CameraIndex, read_index
from omma.data.formats.nuscenes_splits import official_scenes, pon_scenes
from omma.data.io import read_json
from omma.data.root import find_root
from omma.errors import ConfigError, DataError
from omma.systems.diffbev.config import DiffBEVData

Layout = Literal["tables", "folders", "kitti"]

IMAGES, LABELS, CALIBRATION, CAMERAS = "img_dir", "ann_bev_dir", "calib.json", "cameras.json"
DEPTH_SUFFIX, DEPTH_NOTE = "_depth", "depth.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
DEPTH_SUFFIXES = (".npz", ".npy", ".png")

# Settings that only some layouts can honour.
_HONOURED_BY: dict[str, tuple[Layout, ...]] = {
    "split_lists": ("tables",),
    "split_file": ("tables",),
    "mask_file": ("kitti",),
}


@dataclass(frozen=True)
class Items:
    """N images of a split, sorted by token; files are relative to `folder`, with forward slashes.

    Args:
        folder: the data set's folder.
        tokens: of the images, also the stems of their label and depth files.
        images: image files.
        intrinsics: (N, 3, 3) float64, in pixels of the image files.
        channels: camera of each image, empty where unknown.
        labels: label files; None where there is none.
        depths: depth files; None where there is none.
    """

    folder: Path
    tokens: list[str]
    images: list[str]
    intrinsics: NDArray[np.float64]
    channels: list[str]
    labels: list[str | None]
    depths: list[str | None]

    def __len__(self) -> int:
        return len(self.tokens)


def data_root(data: DiffBEVData) -> Path:
    """The data set's folder; see `find_root`."""
    return find_root(data, "diffbev", "nuscenes")


def find_layout(data: DiffBEVData, root: Path) -> Layout:
    """The layout that the settings name, or that the folder looks like.

    Raises:
        DataError: the folder looks like none.
        ConfigError: a setting is not for this layout.
    """
    layout = data.layout if data.layout != "auto" else _look(root)
    for name, layouts in _HONOURED_BY.items():
        value = getattr(data, name)
        if layout not in layouts and value != type(data).model_fields[name].default:
            raise ConfigError(
                f"data.{name}={value}: layout {layout} does not have it; {', '.join(layouts)} do",
                "take the setting out, or name another data.layout",
            )
    return layout


def _look(root: Path) -> Layout:
    if (root / IMAGES).is_dir():
        return "folders"
    if nuscenes.is_layout(root):
        return "tables"
    raise DataError(
        f"{root}: no layout is recognised",
        f"expected {IMAGES}/, {LABELS}/ and {CALIBRATION}, or samples/ and v1.0-*/ tables in it",
    )


def read_items(data: DiffBEVData, layout: Layout, root: Path, split: str) -> Items:
    """The images of a split with what belongs to them.

    Raises:
        DataError: something is missing, or there is no image.
        ConfigError: data.cameras names a camera that there is not.
    """
    items = _from_tables(data, root, split) if layout == "tables" else _from_folders(data, root, split)
    if not len(items):
        raise DataError(
            f"{root}: split {split!r} has no image (layout {layout})", "check data.root and the split's name"
        )
    return _of_cameras(items, data.cameras) if data.cameras is not None else items


def listed_scenes(data: DiffBEVData, index: CameraIndex, split: str, version: str) -> set[str]:
    """Names of a split's scenes that the index has; there may be none.

    Raises:
        DataError: there is no such split, or the split file names a foreign scene.
    """
    names = set(index.scenes.tolist())
    if data.split_file is not None:
        file = Path(data.split_file.replace("{split}", split))
        listed = set(read_scene_names(file))
        if not listed <= names:
            raise DataError(f"{file}: the tables have no scene {min(listed - names)}", "mend the split file")
        return listed
    chosen = pon_scenes(split) if data.split_lists == "pon" else official_scenes(split, names, version)
    return names & chosen


def tables_version(data: DiffBEVData, root: Path) -> str | None:
    """The tables that belong to a folder layout: those named, or the only ones; None where that is open."""
    known = nuscenes.versions(root)
    if data.version is not None:
        return nuscenes.Tables(root, data.version).version if known else None
    return known[0] if len(known) == 1 else None


def _from_tables(data: DiffBEVData, root: Path, split: str) -> Items:
    version = nuscenes.Tables(root, data.version).version
    index = read_index(root, version)
    scenes = listed_scenes(data, index, split, version)
    if not scenes:
        raise DataError(
            f"{root / version}: none of its {len(index.scenes)} scenes is in {split!r} of the "
            f"{data.split_lists} lists",
            "data.split_file=my-{split}.txt names the scenes of your own splits, one a line",
        )
    rows = index.of_scenes(scenes)
    tokens = index.tokens[rows].tolist()
    others = sorted(path.name for path in (root / LABELS).glob("*") if path.is_dir())
    names = [name for name in dict.fromkeys((split, *others)) if not name.endswith(DEPTH_SUFFIX)]
    return Items(
        folder=root,
        tokens=tokens,
        images=index.images[rows].tolist(),
        intrinsics=index.intrinsics[index.intrinsics_of[rows]],
        channels=index.channels[index.channel_of[rows]].tolist(),
        labels=_beside(root, names, tokens, (".png",)),
        depths=_beside(root, [f"{name}{DEPTH_SUFFIX}" for name in names], tokens, DEPTH_SUFFIXES),
    )


def _from_folders(data: DiffBEVData, root: Path, split: str) -> Items:
    folder = root / IMAGES / split
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", f"put the images of {split} there as <token>.png")
    found = listing(folder, IMAGE_SUFFIXES)
    tokens = sorted(found, key=lambda token: found[token])
    version = tables_version(data, root)
    index = read_index(root, version) if version is not None else None
    return Items(
        folder=root,
        tokens=tokens,
        images=[f"{IMAGES}/{split}/{found[token]}" for token in tokens],
        intrinsics=_calibrations(root, tokens, index),
        channels=_channels(root, tokens, index),
        labels=_beside(root, [split], tokens, (".png",)),
        depths=_beside(root, [f"{split}{DEPTH_SUFFIX}"], tokens, DEPTH_SUFFIXES),
    )


def listing(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    """Stem -> name of the folder's files of these kinds; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        pairs = (os.path.splitext(entry.name) for entry in entries)  # noqa: PTH122  200,000 plain strings
        return {stem: stem + suffix for stem, suffix in pairs if suffix.lower() in suffixes}


def _beside(root: Path, folders: Sequence[str], tokens: Sequence[str], suffixes: Sequence[str]) -> list[Any]:
    """The file of each token in the first of the folders below ann_bev_dir that has it."""
    found: dict[str, str] = {}
    for name in reversed(folders):
        own = listing(root / LABELS / name, suffixes)
        found |= {stem: f"{LABELS}/{name}/{file}" for stem, file in own.items()}
    return [found.get(token) for token in tokens]


def _calibrations(root: Path, tokens: Sequence[str], index: CameraIndex | None) -> NDArray[np.float64]:
    """Intrinsics (N, 3, 3) from calib.json or, where there is none, the tables."""
    file = root / CALIBRATION
    if file.is_file():
        return calibrations_of(read_json(file), tokens, file)
    if index is None:
        raise DataError(
            f"{file}: no calibration of the images",
            "write {token: 3x3 intrinsics of the image file} there, or put the v1.0-*/ tables beside it "
            "(and name them with data.version if there are several)",
        )
    rows = index.find(tokens)
    if (rows < 0).any():
        missing = int((rows < 0).sum())
        raise DataError(
            f"{root}: the tables lack {missing} of {len(tokens)} images, first {_first(tokens, rows < 0)}",
            f"write {file}, or set data.version to the tables of these images",
        )
    return index.intrinsics[index.intrinsics_of[rows]]


def calibrations_of(content: Any, tokens: Sequence[str], file: Path) -> NDArray[np.float64]:
    """Intrinsics (N, 3, 3) of tokens.

    Args:
        content: of a calib.json, token -> 3x3.
        tokens: N of them.
        file: where it is from, for messages.

    Raises:
        DataError: it lacks a token or holds another shape.
    """
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds {type(content).__name__}, expected token: 3x3 intrinsics")
    missing = [token for token in tokens if token not in content]
    if missing:
        raise DataError(
            f"{file}: has no calibration of {len(missing)} of {len(tokens)} images, first {missing[0]}",
            "add token: 3x3 intrinsics of the image file for each",
        )
    matrices = [require_array(content, token, (3, 3), str(file)) for token in tokens]
    return np.array(matrices).reshape(-1, 3, 3)


def _channels(root: Path, tokens: Sequence[str], index: CameraIndex | None) -> list[str]:
    """Camera of each token from cameras.json or the tables; empty where neither tells."""
    file = root / CAMERAS
    if file.is_file():
        content = read_json(file)
        if not isinstance(content, dict):
            raise DataError(f"{file}: holds {type(content).__name__}, expected token: camera")
        return [str(content.get(token, "")) for token in tokens]
    if index is None:
        return [""] * len(tokens)
    rows = index.find(tokens)
    names = index.channels[index.channel_of[rows]]
    return np.where(rows < 0, "", names).tolist()


def _of_cameras(items: Items, cameras: Sequence[str]) -> Items:
    known = sorted(set(items.channels) - {""})
    unknown = [token for token, channel in zip(items.tokens, items.channels, strict=True) if not channel]
    if unknown:
        raise DataError(
            f"data.cameras: which camera took {unknown[0]} is not known, and {len(unknown) - 1} other images",
            f"put the v1.0-*/ tables or a {CAMERAS} of token: camera into {items.folder}, or unset it",
        )
    foreign = sorted(set(cameras) - set(known))
    if foreign:
        raise ConfigError(f"data.cameras names {', '.join(foreign)}; there are {', '.join(known)}")
    return chosen(items, np.isin(items.channels, list(cameras)))


def chosen(items: Items, keep: NDArray[np.bool_]) -> Items:
    """The images where `keep` (N,) is true."""
    rows = np.nonzero(keep)[0].tolist()
    lists = {
        name: [getattr(items, name)[row] for row in rows]
        for name in ("tokens", "images", "channels", "labels", "depths")
    }
    return Items(folder=items.folder, intrinsics=items.intrinsics[rows], **lists)


def _first(tokens: Sequence[str], where: NDArray[np.bool_]) -> str:
    return tokens[int(np.argmax(where))]
