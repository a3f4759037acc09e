"""DiffBEV samples: one camera image as uint8, its intrinsics, its label and its depth (spec section 4)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Collate, Sample, Samples
from omma.data.formats.nuscenes_bev import IGNORE_BIT, LABEL_NOTE, coarsen_label, read_label
from omma.data.io import image_size, read_grey, read_image, read_image_reduced, read_json
from omma.errors import DataError
from omma.systems.diffbev.checks import require_depths, require_labels
from omma.systems.diffbev.config import DiffBEVConfig, GridSection
from omma.systems.diffbev.depths import read_depth, resize_depth
from omma.systems.diffbev.inputs import read_inputs
from omma.systems.diffbev.layouts import (
    LABELS,
    Items,
    Layout,
    data_root,
    find_layout,
    read_items,
)
from omma.systems.diffbev.photometric import change_colours, change_colours_one_pass, draw_colour_change

Image = NDArray[np.uint8]

_COLOUR_CHANGES = {"reference": change_colours, "one_pass": change_colours_one_pass}


class CameraSamples(Samples):
    """Single camera images as samples.

    A sample holds token; image (3, H, W) uint8 RGB; intrinsics (3, 3) float32 in its pixels; channel; where
    there are labels label (Z, X) int16, row 0 nearest, bit c for class c and IGNORE_BIT for cells that do not
    count; where the depth is a target depth (1, H, W) float32 metres, 0 where unknown.

    Args:
        items: what to read.
        config: how.
        layout: that the items come from.
        augment: training: random colours and mirroring.
    """

    def __init__(self, items: Items, config: DiffBEVConfig, layout: Layout, *, augment: bool) -> None:
        self.items, self.data, self.layout, self.augment = items, config.data, layout, augment
        self.shape = label_shape(config.system.grid)
        self.labelled = any(name is not None for name in items.labels)
        self.with_depth = config.system.depth_loss.name != "none" and any(
            name is not None for name in items.depths
        )

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.items.tokens[index]

    def files(self) -> list[Path]:
        """See Samples; depths too where the recipe reads none: it is one data set for all recipes."""
        names = [*self.items.images, *self.items.labels, *self.items.depths]
        return [self.items.folder / name for name in names if name is not None]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; an error also names the image's token."""
        try:
            return self._load(index, rng)
        except DataError as error:
            raise DataError(f"{error.message} (token {self.name(index)})", error.hint) from None

    def label(self, index: int) -> NDArray[np.int16] | None:
        """The bits (Z, X) of a label in the grid's cells, row 0 nearest; None where there is none.

        Raises:
            DataError: the file is damaged, no label or of another size than the grid.
        """
        name = self.items.labels[index]
        if name is None:
            return None
        path = self.items.folder / name
        bits = read_label(path) if self.layout != "kitti" else self._kitti_label(path)
        factor = bits.shape[0] // self.shape[0]
        if bits.shape != (factor * self.shape[0], factor * self.shape[1]) or factor == 0:
            raise DataError(
                f"{path}: the label has {bits.shape[0]} x {bits.shape[1]} cells, expected {self.shape[0]} x "
                f"{self.shape[1]}, twice those of system.grid, or a multiple",
                "set system.grid to the label's area; its step is twice a label's cell, or a multiple",
            )
        return bits if factor == 1 else coarsen_label(bits, factor)

    def depth(self, index: int) -> NDArray[np.float32]:
        """The depth (H, W) of an image in metres at data.image_size; zeros where there is no file."""
        name = self.items.depths[index]
        if name is None:
            return np.zeros(self.data.image_size, np.float32)
        return resize_depth(read_depth(self.items.folder / name), self.data.image_size)

    def intrinsics(self, index: int) -> NDArray[np.float64]:
        """(3, 3) of an image without augmentation, in pixels of data.image_size; reads only its header."""
        return self._intrinsics(index, image_size(self.items.folder / self.items.images[index]))

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        image, file_size = self._image(self.items.folder / self.items.images[index])
        intrinsics = self._intrinsics(index, file_size)
        arrays: dict[str, NDArray[Any]] = {}
        if self.labelled:
            label = self.label(index)
            if label is None:
                raise DataError("the image has no label, others have", "make it, or leave the image out")
            arrays["label"] = label
        if self.with_depth:
            arrays["depth"] = self.depth(index)[None]
        if self.augment and self.data.photometric != "none":
            image = _COLOUR_CHANGES[self.data.photometric](image, draw_colour_change(rng))
        if self.augment and self.data.flip and rng.integers(0, 2):
            image, intrinsics = image[:, ::-1], mirror_intrinsics(intrinsics, image.shape[1])
            arrays = {key: array[..., ::-1] for key, array in arrays.items()}
        arrays |= {"image": image.transpose(2, 0, 1), "intrinsics": intrinsics.astype(np.float32)}
        tensors = {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()}
        return {"token": self.name(index), "channel": self.items.channels[index], **tensors}

    def _image(self, path: Path) -> tuple[Image, tuple[int, int]]:
        """The image at data.image_size, and (H, W) of its file."""
        height, width = self.data.image_size
        if self.data.fast_decode:
            image, size = read_image_reduced(path, (height, width))
        else:
            image = read_image(path)
            size = image.shape[0], image.shape[1]
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), size

    def _intrinsics(self, index: int, file_size: tuple[int, int]) -> NDArray[np.float64]:
        """(3, 3) in pixels of data.image_size, with the image's own error if one is set."""
        height, width = self.data.image_size
        scale = np.array([[width / file_size[1]], [height / file_size[0]], [1.0]])
        intrinsics = self.items.intrinsics[index] * scale
        if self.data.intrinsics_noise:
            errors = np.random.default_rng(zlib.crc32(self.name(index).encode())).standard_normal(4)
            rows, columns = [0, 1, 0, 1], [0, 1, 2, 2]
            intrinsics[rows, columns] *= 1 + self.data.intrinsics_noise * errors
        return intrinsics

    def _kitti_label(self, path: Path) -> NDArray[np.int16]:
        """A picture of one class, stored with the far end on top; the mask's black cells do not count."""
        bits = (read_grey(path)[::-1] > 0).astype(np.int16)
        if self.data.mask_file is not None:
            mask_path = self.items.folder / self.data.mask_file
            mask = read_grey(mask_path)[::-1] > 0
            if mask.shape != bits.shape:
                raise DataError(
                    f"{mask_path}: has {mask.shape[0]} x {mask.shape[1]} cells, labels {bits.shape[0]} x "
                    f"{bits.shape[1]}",
                    "data.mask_file is a picture of one pixel a cell",
                )
            bits |= ~mask * np.int16(1 << IGNORE_BIT)
        return bits


def label_shape(grid: GridSection) -> tuple[int, int]:
    """Cells of a label along z and x: twice those of the features."""
    rows, columns = (round((high - low) / step) for low, high, step in (grid.z, grid.x))
    return 2 * rows, 2 * columns


def mirror_intrinsics(intrinsics: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Intrinsics (3, 3) of the image mirrored left to right; the camera's x axis is mirrored too."""
    mirrored = intrinsics.copy()
    mirrored[0, 2] = width - 1 - intrinsics[0, 2]
    return mirrored


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack the tensors of samples along a new first axis; `token` and `channel` become lists."""
    return {
        key: torch.stack([sample[key] for sample in samples])
        if isinstance(value, torch.Tensor)
        else [sample[key] for sample in samples]
        for key, value in samples[0].items()
    }


def build(config: DiffBEVConfig, split: str, *, augment: bool) -> tuple[CameraSamples, Collate]:
    """One split of the recipe's data.

    Args:
        config: the recipe.
        split: "train", "val" or what else the data set has.
        augment: random colours and mirroring, for training; labels must be there then.

    Raises:
        DataError: the data set, the split, a file or a calibration is missing or wrong.
        ConfigError: a setting does not fit the data set.
    """
    root = data_root(config.data)
    layout = find_layout(config.data, root)
    items = read_items(config.data, layout, root, split)
    require_labels(items, split, needed=augment)
    if config.system.depth_loss.name != "none":
        require_depths(items, split, needed=augment)
    return CameraSamples(items, config, layout, augment=augment), collate


def build_inputs(config: DiffBEVConfig, files: Sequence[Path]) -> tuple[CameraSamples, Collate]:
    """Samples of the user's own images, for prediction.

    Args:
        config: the recipe.
        files: images with a calib.json beside them (or of a nuScenes folder), or JSON files of one or several
            `{"image": file, "intrinsics": 3x3 in its pixels}`.

    Raises:
        DataError: a file, a field or a calibration is missing or wrong.
    """
    return CameraSamples(read_inputs(files), config, "folders", augment=False), collate


def label_setting(root: Path) -> str:
    """How the labels below a data set's folder were made, for a line next to scores."""
    note = root / LABELS / LABEL_NOTE
    if not note.is_file():
        return f"labels of unknown making (no {LABELS}/{LABEL_NOTE})"
    content = read_json(note)
    return f"labels: style {content.get('style', '?')}, ignored: {content.get('ignore', '?')}"
