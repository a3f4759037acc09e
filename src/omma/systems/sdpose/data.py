"""People of a recipe's data set, or of a user's own photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omma.core.keypoint_meter import GROUND_TRUTH
from omma.data.dataset import Collate
from omma.data.formats.coco import find_split, read_keypoints
from omma.data.root import find_root
from omma.errors import DataError
from omma.systems.sdpose.boxes import annotated_people, detected_people
from omma.systems.sdpose.config import SDPoseConfig, SDPoseData
from omma.systems.sdpose.inputs import read_inputs
from omma.systems.sdpose.samples import PersonSamples, collate


def build(config: SDPoseConfig, split: str, *, augment: bool) -> tuple[PersonSamples, Collate]:
    """One split of the recipe's data, its people in the order of images.

    A detector's boxes are taken for evaluation only, and not of the part that is trained on: they have no
    joints.

    Args:
        config: the recipe.
        split: "train", "val" or what else the data set has; "val2017" is "val".
        augment: random changes, for training.

    Raises:
        DataError: the data set, the split or a file is missing or wrong.
    """
    data = config.data
    root = data_root(data)
    files = find_split(root, split)
    found = read_keypoints(files.annotations)
    if not augment:
        found.require_areas()
    if augment or data.boxes == GROUND_TRUTH or split == data.train_split:
        people = annotated_people(found, files.images)
    else:
        boxes = find_boxes(data.boxes, root)
        people = detected_people(found, files.images, boxes, smallest_score=data.box_score)
    return PersonSamples(people, data, augment=augment), collate


def build_inputs(config: SDPoseConfig, files: Sequence[Path]) -> tuple[PersonSamples, Collate]:
    """The people in the user's own photos, for prediction.

    Args:
        config: the recipe.
        files: photos, each with its boxes in a JSON file of its name beside it; or JSON files of one or
            several `{"image": file, "boxes": [[x, y, width, height], ...]}`.

    Raises:
        DataError: a file or a box is missing or wrong.
    """
    return PersonSamples(read_inputs(files), config.data, augment=False), collate


def data_root(data: SDPoseData) -> Path:
    """The data set's folder; see `find_root`."""
    return find_root(data, "sdpose", "coco")


def find_boxes(name: str, root: Path) -> Path:
    """A detector's file, given by its path or relative to the data set's folder.

    Raises:
        DataError: it is in neither place.
    """
    places = [Path(name).expanduser(), root / name]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(
            f"{name}: no such file (data.boxes), nor in {root}",
            f"give a detector's JSON file, or {GROUND_TRUTH} for the annotated boxes",
        )
    return file
