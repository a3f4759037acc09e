"""Lift-Splat-Shoot samples: images as uint8, camera geometry, label grids (spec section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omma.core.poses import invert_rigid
from omma.data.dataset import Collate, Sample, Samples
from omma.data.formats.frame import Frame
from omma.data.formats.nuscenes import Tables, check_targets
from omma.data.formats.simbev_seed import read_meta
from omma.data.io import image_size, read_image, read_image_reduced
from omma.data.transforms import (
    ImageChange,
    central_image_change,
    draw_ego_change,
    draw_image_change,
    place_image_change,
    resample_label,
    resized_file,
    validation_scale,
)
from omma.errors import ConfigError, DataError
from omma.systems.lss.config import LSSConfig, LSSData
from omma.systems.lss.layouts import Labels, data_root, find_layout, read_frames

AUTO_RESIZE = (0.877, 1.023)  # the published nuScenes range over its validation scale
LARGEST_OFFSET = 0.25  # of the image width, between the principal point and the middle
_FIRST_CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK")


class BevSamples(Samples):
    """Frames as samples.

    A sample holds token; images (N, 3, H, W) uint8 RGB; rots, intrins, post_rots (N, 3, 3); trans, post_trans
    (N, 3); sizes (N, 2) of the image files as height, width; where there is a label target (C, X, Y) float32
    in {0, 1}; where not every cell counts mask (1, X, Y) bool. Axis 1 of a grid is +x, axis 2 is +y.

    Args:
        frames: what to read.
        config: how.
        labels: reader of the label grids.
        augment: training: random changes, random cameras.
    """

    def __init__(self, frames: Sequence[Frame], config: LSSConfig, labels: Labels, *, augment: bool) -> None:
        self.frames, self.data, self.grid = list(frames), config.data, config.system.grid.bev
        self.labels, self.augment = labels, augment
        self._check_cameras()

    @property
    def cameras(self) -> tuple[str, ...] | None:
        """Names in the order of a sample's images; None where every sample has other ones."""
        if self.augment and self.data.camera_sampling == "random":
            return None
        indices = self._fixed_cameras(self.frames[0].cameras)
        return tuple(self.frames[0].cameras[index] for index in indices)

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.frames[index].token

    def files(self) -> list[Path]:
        """See Samples."""
        return [file for frame in self.frames for file in frame.files]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; an error also names the sample."""
        frame = self.frames[index]
        try:
            return self._load(frame, rng)
        except DataError as error:
            raise DataError(f"{error.message} (sample {frame.token}, {frame.where})", error.hint) from None

    def _load(self, frame: Frame, rng: np.random.Generator) -> Sample:
        cameras = self._choose_cameras(frame.cameras, rng)
        changes = self._image_changes(len(cameras), rng)
        views = [
            _read_view(frame, camera, change, self.data)
            for camera, change in zip(cameras, changes, strict=True)
        ]
        ego_T_cam = frame.ego_T_cam[cameras]
        if self.data.invert_extrinsics:
            ego_T_cam = invert_rigid(ego_T_cam)
        sample: Sample = {
            "token": frame.token,
            "intrins": _float32(frame.intrinsics[cameras]),
            **{key: torch.stack([view[key] for view in views]) for key in views[0]},
        }
        return sample | self._geometry_and_label(frame, ego_T_cam, rng)

    def _geometry_and_label(
        self, frame: Frame, ego_T_cam: NDArray[np.float64], rng: np.random.Generator
    ) -> Sample:
        grids = {}
        if self.labels.available(frame):
            grids["target"] = self.labels.target(frame)
            mask = self.labels.mask(frame)
            if mask is not None:
                grids["mask"] = mask
        rotations, translations = ego_T_cam[:, :3, :3], ego_T_cam[:, :3, 3]
        options = self.data.augment
        if self.augment and (options.bev_rotate_deg or options.bev_flip):
            change = draw_ego_change(rng, rotate_deg=options.bev_rotate_deg, flip=options.bev_flip)
            rotations, translations = change @ rotations, translations @ change.T
            grids.setdefault("mask", np.ones((1, *self.grid.nx[:2]), bool))
            grids = {key: resample_label(grid, self.grid, change) for key, grid in grids.items()}
        return {
            "rots": _float32(rotations),
            "trans": _float32(translations),
            **{key: torch.from_numpy(np.ascontiguousarray(grid)) for key, grid in grids.items()},
        }

    def _image_changes(self, num_cameras: int, rng: np.random.Generator) -> list[ImageChange]:
        data, options = self.data, self.data.augment
        if not self.augment:
            central = central_image_change(data.source_size, data.image_size, options.bottom_crop)
            return [central] * num_cameras
        draws = [
            draw_image_change(
                rng,
                data.source_size,
                data.image_size,
                scale=_resize_range(data),
                bottom_crop=options.bottom_crop,
                rotate_deg=options.rotate_deg,
                flip=options.flip,
            )
            for _ in range(1 if options.per_sample else num_cameras)
        ]
        return draws * num_cameras if options.per_sample else draws

    def _choose_cameras(self, names: tuple[str, ...], rng: np.random.Generator) -> list[int]:
        if self.data.camera_sampling == "fixed" or self.data.cameras:
            return self._fixed_cameras(names)
        if not self.augment or self.data.num_cameras >= len(names):
            return list(range(len(names)))
        return sorted(rng.choice(len(names), self.data.num_cameras, replace=False).tolist())

    def _fixed_cameras(self, names: tuple[str, ...]) -> list[int]:
        if self.data.cameras:
            return [names.index(name) for name in self.data.cameras]
        if self.data.camera_sampling == "random" or self.data.num_cameras >= len(names):
            return list(range(len(names)))
        first = [name for name in _FIRST_CAMERAS if name in names]
        by_rank = [*first, *(name for name in names if name not in first)]
        chosen = by_rank[: self.data.num_cameras]
        return [index for index, name in enumerate(names) if name in chosen]

    def _check_cameras(self) -> None:
        names = self.frames[0].cameras
        other = next((frame for frame in self.frames if frame.cameras != names), None)
        if other is not None:
            raise DataError(
                f"{other.where}: has cameras {', '.join(other.cameras)}, others {', '.join(names)}"
            )
        unknown = sorted(set(self.data.cameras or ()) - set(names))
        if unknown:
            raise ConfigError(f"data.cameras names {', '.join(unknown)}; there are {', '.join(names)}")
        if self.data.num_cameras > len(names):
            raise ConfigError(f"data.num_cameras={self.data.num_cameras}: there are {len(names)} cameras")


def _resize_range(data: LSSData) -> tuple[float, float]:
    """Range of the source size's factor in training; `auto` brackets the validation scale."""
    if data.augment.resize != "auto":
        return data.augment.resize
    scale = validation_scale(data.source_size, data.image_size)
    return AUTO_RESIZE[0] * scale, AUTO_RESIZE[1] * scale


def _read_view(frame: Frame, camera: int, change: ImageChange, data: LSSData) -> dict[str, torch.Tensor]:
    """Image, its matrices and its file's size for one camera."""
    path = frame.folder / frame.images[camera]
    if data.fast_decode:
        image, size = read_image_reduced(path, resized_file(change, data.top_crop))
    else:
        image = read_image(path)
        size = image.shape[:2]
    placed = place_image_change(
        change,
        file_size=size,
        source_size=data.source_size,
        top_crop=data.top_crop,
        nominal_scale=data.post_scale == "nominal",
    )
    rotation, translation = placed.matrices()
    pixels = np.ascontiguousarray(placed.apply(image).transpose(2, 0, 1))
    return {
        "images": torch.from_numpy(pixels),
        "post_rots": torch.from_numpy(rotation),
        "post_trans": torch.from_numpy(translation),
        "sizes": torch.tensor(size),
    }


def _float32(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack the tensors of samples along a new first axis; `token` becomes a list."""
    batch: dict[str, Any] = {
        key: torch.stack([sample[key] for sample in samples]) for key in samples[0] if key != "token"
    }
    return batch | {"token": [sample["token"] for sample in samples]}


def build(config: LSSConfig, split: str, *, augment: bool) -> tuple[BevSamples, Collate]:
    """One split of the recipe's data.

    Args:
        config: the recipe.
        split: "train", "val" or what else the data set has.
        augment: random changes and cameras, for training.

    Raises:
        DataError: the data set, the split, a file or a field is missing or wrong.
        ConfigError: a setting does not fit the data set.
    """
    root = data_root(config.data)
    layout = find_layout(config.data, root)
    frames = read_frames(config.data, layout, root, split)
    if layout == "nuscenes":
        check_targets(config.system.targets, Tables(root, config.data.version).categories)
    _warn_of_foreign_intrinsics(frames[0])
    return BevSamples(frames, config, Labels(config, layout), augment=augment), collate


def build_inputs(config: LSSConfig, files: Sequence[Path]) -> tuple[BevSamples, Collate]:
    """Samples of meta.json files in the train/val layout, with or without labels, for prediction.

    Raises:
        DataError: a file or a field is missing or wrong.
    """
    wrong = next((file for file in files if Path(file).suffix.lower() != ".json"), None)
    if wrong is not None:
        cameras = "a picture alone does not tell where its camera is: give the meta.json of a data set"
        raise DataError(f"{wrong}: no meta.json", cameras)
    frames = [
        frame for file in files for frame in read_meta(Path(file), Path(file).parent.name, labelled=False)
    ]
    if not frames:
        raise DataError("the input files hold no sample", "give meta.json files with a list of samples")
    return BevSamples(frames, config, Labels(config, "simbev-seed"), augment=False), collate


def foreign_intrinsics(frame: Frame) -> list[str]:
    """One line for each camera whose principal point lies far from the middle of its image file."""
    lines = []
    for name, camera, intrinsics in zip(frame.images, frame.cameras, frame.intrinsics, strict=True):
        width = image_size(frame.folder / name)[1]
        if abs(intrinsics[0, 2] - width / 2) > LARGEST_OFFSET * width:
            lines.append(f"{camera}: cx is {intrinsics[0, 2]:.0f}, the image is {width} pixels wide")
    return lines


def _warn_of_foreign_intrinsics(frame: Frame) -> None:
    lines = foreign_intrinsics(frame)
    if lines:
        warnings.warn(
            f"{frame.where}: the intrinsics seem to belong to another image size ({lines[0]}); "
            "`omma doctor lss data.root=...` shows what to do",
            stacklevel=3,
        )
