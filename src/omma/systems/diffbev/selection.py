"""Which images of nuScenes tables a preparation step is for, and which files are still to be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.nuscenes import Tables, versions
from omma.data.formats.nuscenes_index import read_index
from omma.data.formats.nuscenes_splits import Lists
from omma.errors import DataError, UsageError
from omma.systems.diffbev.config import DiffBEVData
from omma.systems.diffbev.layouts import IMAGE_SUFFIXES, IMAGES, listed_scenes, listing

SPLITS = ("train", "val")


def require_one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise UsageError for a setting of another value."""
    if value not in allowed:
        raise UsageError(f"{name}={value}: expected {' or '.join(allowed)}")


class Plan:
    """Files to write.

    Args:
        targets: image token -> file, of those that are not there yet.
        existing: folder -> number of files that are there.
    """

    def __init__(self) -> None:
        self.targets: dict[str, Path] = {}
        self.existing: dict[Path, int] = {}
        self.num_existing = 0

    def add(self, folder: Path, tokens: Sequence[str], suffix: str, alike: Sequence[str]) -> None:
        """Plan the tokens' files in a folder; a file with one of the suffixes `alike` is kept."""
        there = listing(folder, alike)
        self.existing[folder] = len(there)
        self.num_existing += sum(token in there for token in tokens)
        self.targets |= {token: folder / f"{token}{suffix}" for token in tokens if token not in there}


class Source:
    """Which images of which tables."""

    def __init__(
        self,
        root: Path,
        version: str | None,
        split: str | None,
        img_dir: Path | None,
        cameras: str | list[str],
        scenes: tuple[Lists, str | None],
    ) -> None:
        if img_dir is not None and split is None:
            raise UsageError("img_dir needs split=train or split=val, which names the folder to write")
        require_one_of("split_lists", scenes[0], get_args(Lists))
        if version is None and len(versions(root)) > 1:
            raise UsageError(f"{root}: has {', '.join(versions(root))}", "name one as version=...")
        self.root, self.version = root, Tables(root, version).version
        self.index = read_index(root, self.version)
        data = DiffBEVData(root=str(root), split_lists=scenes[0], split_file=scenes[1])
        rows = self._rows_of_cameras(_names(cameras))
        self.rows = {
            name: np.intersect1d(self._rows_of_split(data, name, img_dir), rows)
            for name in ([split] if split else SPLITS)
        }
        if not any(len(chosen) for chosen in self.rows.values()):
            raise DataError(f"{root}: no image is chosen", "check split and cameras")

    def plan(self, folder_of: Callable[[str], Path], suffix: str, alike: Sequence[str]) -> Plan:
        """What is to be written, one folder a split."""
        plan = Plan()
        for name, rows in self.rows.items():
            plan.add(folder_of(name), self.index.tokens[rows].tolist(), suffix, alike)
        return plan

    def scene_tokens(self, tables: Tables) -> list[str]:
        """Tokens of the scenes that the images are from."""
        numbers = np.unique(np.concatenate([self.index.scene_of[rows] for rows in self.rows.values()]))
        names = set(self.index.scenes[numbers].tolist())
        return [token for token, scene in tables.scenes.items() if scene["name"] in names]

    def _rows_of_cameras(self, cameras: list[str] | None) -> NDArray[np.int64]:
        known = self.index.channels.tolist()
        for name in cameras or ():
            if name not in known:
                raise UsageError(f"cameras: {name} is not among {', '.join(known)}")
        if cameras is None:
            return np.arange(len(self.index))
        return np.nonzero(np.isin(self.index.channels, cameras)[self.index.channel_of])[0]

    def _rows_of_split(self, data: DiffBEVData, split: str, img_dir: Path | None) -> NDArray[np.int64]:
        folder = img_dir or self.root / IMAGES / split
        if img_dir is None and not folder.is_dir():
            return self.index.of_scenes(listed_scenes(data, self.index, split, self.version))
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (img_dir)")
        tokens = sorted(listing(folder, IMAGE_SUFFIXES))
        rows = self.index.find(tokens)
        if (rows < 0).any():
            first = tokens[int(np.argmax(rows < 0))]
            raise DataError(
                f"{folder}: {self.version} lacks {(rows < 0).sum()} of {len(tokens)} images, first {first}",
                "name the tables of these images as version=...",
            )
        return rows


def _names(cameras: str | list[str]) -> list[str] | None:
    if isinstance(cameras, str):
        return None if cameras == "all" else [name for name in cameras.replace(",", " ").split() if name]
    return list(cameras)
