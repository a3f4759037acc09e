"""The folders that G2-MonoDepth's own programs train on and test with.

ROOT/RGBD_Datasets/NAME/{rgb,depth}/ for training (see rgbd_folders), ROOT/Hole_Datasets/ with maps of holes
(0, and 255 elsewhere), and ROOT/Test_Datasets/NAME/{rgb,gt,raw_1%,raw_100%}/ with 16-bit depths.
"""

from __future__ import annotations

from pathlib import Path

from omma.data.formats import rgbd_folders
from omma.data.formats.rgbd import (
    DEPTH_SUFFIXES,
    IMAGE_SUFFIXES,
    DepthFile,
    ImageFile,
    RgbdFrame,
    find_files,
    pair_by_stem,
)
from omma.data.formats.rgbd_folders import DepthUnits, read_units
from omma.errors import DataError

TRAIN, HOLES, TEST = "RGBD_Datasets", "Hole_Datasets", "Test_Datasets"
TRUTH, RAW_PREFIX, NO_RAW = "gt", "raw_", "raw_0%"
SPLITS = ("train", "val", "test")


def is_layout(root: Path) -> bool:
    """Whether the folder has training or test folders of the reference."""
    return (root / TRAIN).is_dir() or (root / TEST).is_dir()


def find_hole_maps(root: Path) -> tuple[Path, ...]:
    """The pictures of holes below ROOT/Hole_Datasets, sorted; none where there is no such folder."""
    return tuple(find_files(root / HOLES, (".png",)).values())


def read_frames(
    root: Path, split: str, *, units_per_metre: float | None = None, max_depth_m: float | None = None
) -> list[RgbdFrame]:
    """The frames of a split.

    Args:
        root: data set folder.
        split: "train"; "val": the test pictures with their true depth; or "test": each of them once for every
            input depth that the reference tests with, none (raw_0%) first.
        units_per_metre: stored value of one metre; none reads `rgbd.json`.
        max_depth_m: depth that counts as 1 when normalised; none reads `rgbd.json`.

    Raises:
        DataError: the split, a depth file or the units are missing.
    """
    if split == "train":
        settings = {"units_per_metre": units_per_metre, "max_depth_m": max_depth_m}
        return rgbd_folders.read_frames(root / TRAIN, "train", **settings)
    if split not in SPLITS:
        raise DataError(f"{root}: no split {split!r}", f"there are {', '.join(SPLITS)}")
    home = root / TEST
    sets = sorted(path for path in home.glob("*") if (path / TRUTH).is_dir())
    if not sets:
        raise DataError(f"{home}: has no folder with rgb/ and {TRUTH}/")
    return [
        frame
        for folder in sets
        for frame in _read_set(
            folder, read_units(folder, home, units_per_metre, max_depth_m), every_raw=split == "test"
        )
    ]


def _read_set(folder: Path, units: DepthUnits, *, every_raw: bool) -> list[RgbdFrame]:
    images = find_files(folder / rgbd_folders.RGB, IMAGE_SUFFIXES)
    pairs = pair_by_stem(images, find_files(folder / TRUTH, DEPTH_SUFFIXES), folder)
    given = {NO_RAW: {}} | {
        path.name: find_files(path, DEPTH_SUFFIXES) for path in sorted(folder.glob(f"{RAW_PREFIX}*"))
    }
    cameras = rgbd_folders.read_cameras(folder, folder.parent, images)
    frames = []
    for name, raws in given.items() if every_raw else [("", {})]:
        for stem, image, truth in pairs:
            if raws and stem not in raws:
                raise DataError(f"{folder / name}: has no depth for {stem}", "every picture needs one")
            frames.append(
                RgbdFrame(
                    token=f"{folder.name}/{stem}" + (f"@{name}" if name else ""),
                    dataset=folder.name,
                    image=ImageFile(image),
                    depth=DepthFile(truth, units.units_per_metre),
                    max_depth_m=units.max_depth_m,
                    raw=DepthFile(raws[stem], units.units_per_metre) if raws else None,
                    intrinsics=cameras.get(stem),
                )
            )
    return frames
