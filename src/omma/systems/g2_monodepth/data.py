"""RGB-D samples of a recipe: which frames, what the network is given, and pictures of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omma.data.dataset import Collate
from omma.data.formats.rgbd import find_files
from omma.data.formats.rgbd_cache import open_cache
from omma.data.root import find_root
from omma.errors import DataError
from omma.systems.g2_monodepth.baselines import linear_fill, nearest_fill
from omma.systems.g2_monodepth.config import G2Config, G2Data
from omma.systems.g2_monodepth.degrade import Degradation
from omma.systems.g2_monodepth.layouts import read_frames
from omma.systems.g2_monodepth.own import OwnSamples, read_pair
from omma.systems.g2_monodepth.samples import (
    FillingCollate,
    RgbdSamples,
    TrainingSamples,
    ValidationSamples,
    collate,
)


def build(config: G2Config, split: str, *, augment: bool) -> tuple[RgbdSamples, Collate]:
    """One split of the recipe's data.

    Args:
        config: the recipe.
        split: "train", "val" or what else the data set has.
        augment: crops, mirroring and made input depth, for training; else fixed input depths.

    Raises:
        DataError: the data set, the split or a file is missing or wrong.
        ConfigError: a setting does not fit the data set.
    """
    data = config.data
    root = data_root(data)
    frames = read_frames(
        root,
        split,
        layout=data.layout,
        units_per_metre=data.units_per_metre,
        max_depth_m=data.max_depth,
    )
    if data.cache is not None:
        frames = open_cache(frames, root, Path(data.cache).expanduser() / split)
    if augment:
        settings = _degradation(data)
        samples = TrainingSamples(
            frames,
            data.image_size,
            degradation=settings,
            depth_resize=data.depth_resize,
            crop_area=data.crop_area,
            jitter=data.jitter,
            hue=data.hue,
            measured=data.measured,
        )
        return samples, _collate(data)
    return ValidationSamples(frames, data.val_image_size, patterns=data.val_patterns), _collate(data)


def build_inputs(
    config: G2Config, files: Sequence[Path], sparse: Sequence[Path] = ()
) -> tuple[RgbdSamples, Collate]:
    """The user's own pictures for prediction, each with its known depths, or all without.

    Args:
        config: the recipe.
        files: pictures.
        sparse: depths as GivenDepth reads them, one file a picture in the same order, or none.

    Raises:
        DataError: a file is missing, wrong, or the two of a pair do not fit.
    """
    settings = config.data
    known = {"units_per_metre": settings.units_per_metre, "max_depth_m": settings.max_depth}
    camera = settings.predict.intrinsics
    if camera is not None:
        fx, fy, cx, cy = camera
        known["intrinsics"] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    pairs = zip(files, sparse or [None] * len(files), strict=True)
    frames = [read_pair(image, raw, **known) for image, raw in pairs]
    return OwnSamples(frames, settings.predict.max_height), _collate(settings)


def _collate(data: G2Data) -> Collate:
    fillings = {"nearest": nearest_fill, "linear": linear_fill}
    return collate if data.prefill == "none" else FillingCollate(fillings[data.prefill])


def data_root(data: G2Data) -> Path:
    """The data set's folder, or NYUv2's file; see `find_root`."""
    return find_root(data, "g2_monodepth", "rgbd-nyu", file_allowed=True)


def _degradation(data: G2Data) -> Degradation:
    """The recipe's section with the hole pictures found."""
    settings = data.degradation
    maps: tuple[Path, ...] = ()
    if settings.hole_maps is not None:
        maps = tuple(find_files(Path(settings.hole_maps), (".png",)).values())
        if not maps:
            raise DataError(
                f"{settings.hole_maps}: holds no pictures of holes",
                "data.degradation.hole_maps names their folder; none draws rectangles",
            )
    values = settings.model_dump(exclude={"hole_maps"})
    return Degradation(**values, hole_maps=maps)
