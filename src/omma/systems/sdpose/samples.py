"""Samples of people: a crop as uint8, joints in its pixels, and where it lies in the photo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from omma.data.dataset import Sample, Samples
from omma.data.io import read_image
from omma.errors import DataError
from omma.systems.sdpose.augment import Placed, change
from omma.systems.sdpose.boxes import People
from omma.systems.sdpose.config import SDPoseData
from omma.systems.sdpose.crops import crop_matrix, cut, move_points, place_box

Image = NDArray[np.uint8]

_OF_THE_SET = ("annotations", "boxes", "set_size")  # alike in all samples


class PersonSamples(Samples):
    """One person a sample.

    A sample holds image (3, H, W) uint8 RGB; joints (17, 2) float32 x, y in pixels of the crop, where absent
    0, 0; visible (17,) float32, 1 for hidden joints too; hidden (17,) bool; center (2,), scale (2,) over 200
    pixels and rotation () degrees, float32, of the crop in the photo; box (4,) float32; box_score () float32;
    area () float32, NaN where unknown; image_id, box_id and annotation_id () int64; token, image_file,
    annotations (the file) and boxes ("ground_truth", "detector" or "input") text; set_size, people in all.

    Args:
        people: whom to cut out.
        data: how.
        augment: training: random changes.
    """

    def __init__(self, people: People, data: SDPoseData, *, augment: bool) -> None:
        self.people, self.data, self.augment = people, data, augment
        self._decoded: tuple[int, Image] | None = None

    def __len__(self) -> int:
        return len(self.people)

    def name(self, index: int) -> str:
        """See Samples."""
        return self.people.token(index)

    def files(self) -> list[Path]:
        """See Samples."""
        annotations = [Path(self.people.annotations)] if self.people.annotations else []
        return [*self.people.files, *annotations]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """See Samples; an error also names the person's token."""
        try:
            return self._load(index, rng)
        except DataError as error:
            raise DataError(f"{error.message} (token {self.name(index)})", error.hint) from None

    def photo(self, index: int) -> Image:
        """The photo (H, W, 3) uint8 RGB of a person, upright.

        Raises:
            DataError: the file is missing, damaged or not of the annotated size.
        """
        number = int(self.people.file_of[index])
        if self._decoded is None or self._decoded[0] != number:
            self._decoded = number, _read(self.people.files[number], self.people.sizes[number])
        return self._decoded[1]

    def _load(self, index: int, rng: np.random.Generator) -> Sample:
        people, size = self.people, self.data.image_size
        image = self.photo(index)
        box = people.boxes[index]
        if np.isnan(box).any():
            box = np.array([0.0, 0.0, image.shape[1], image.shape[0]])
        person = Placed(*place_box(box, size, self.data.padding), people.joints[index])
        if self.augment:
            person = change(person, rng, self.data.augment, image_width=image.shape[1], size=size)
        matrix = crop_matrix(
            person.center,
            person.scale,
            size,
            rotation_deg=person.rotation_deg,
            udp=self.data.target.encoding == "udp",
        )
        crop = cut(cv2.flip(image, 1) if person.mirrored else image, matrix, size)
        visibility = person.joints[:, 2:]
        joints = np.where(visibility > 0, move_points(person.joints[:, :2], matrix), person.joints[:, :2])
        arrays = {
            "image": np.ascontiguousarray(crop.transpose(2, 0, 1)),
            "joints": joints,
            "visible": np.minimum(visibility[:, 0], 1),
            "hidden": visibility[:, 0] == 1,
            "center": person.center,
            "scale": person.scale.astype(np.float32),
            "box": box.astype(np.float32),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | self._facts(index, person)

    def _facts(self, index: int, person: Placed) -> dict[str, Any]:
        people = self.people
        numbers = {
            "rotation": person.rotation_deg,
            "box_score": people.scores[index],
            "area": people.areas[index],
        }
        ids = {
            "image_id": people.image_ids[index],
            "box_id": people.box_ids[index],
            "annotation_id": people.annotation_ids[index],
        }
        return {
            **{name: torch.tensor(float(value), dtype=torch.float32) for name, value in numbers.items()},
            **{name: torch.tensor(int(value)) for name, value in ids.items()},
            "token": self.name(index),
            "image_file": str(people.files[people.file_of[index]]),
            "annotations": people.annotations,
            "boxes": people.source,
            "set_size": len(people),
        }


def _read(file: Path, size: NDArray[np.int64]) -> Image:
    """A photo of the annotated size: upright, or as stored where only that fits."""
    wanted = tuple(size.tolist())
    image = read_image(file, upright=True)
    if not any(wanted) or image.shape[:2] == wanted:
        return image
    stored = read_image(file)
    if stored.shape[:2] == wanted:
        return stored
    raise DataError(
        f"{file}: is {stored.shape[0]} x {stored.shape[1]} pixels, its annotations are for {wanted[0]} x "
        f"{wanted[1]} (height x width)",
        "the photo was resized or is another one: boxes and joints do not fit it",
    )


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack the tensors of samples along a new first axis; names become lists, facts of the set single."""
    first = samples[0]
    batch: dict[str, Any] = {}
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            batch[key] = torch.stack([sample[key] for sample in samples])
        else:
            batch[key] = value if key in _OF_THE_SET else [sample[key] for sample in samples]
    return batch
