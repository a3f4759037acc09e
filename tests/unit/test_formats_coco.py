"""COCO keypoints and a detector's boxes: what is read, and the one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coco_files as files
import numpy as np
import pytest

from omma.data.formats.coco import find_split, read_ground_truth, read_keypoints, require_images
from omma.data.formats.coco_detections import read_detections
from omma.errors import DataError


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return files.write_split(tmp_path, "val")


def edited(path: Path, change: Any) -> Path:
    value = json.loads(path.read_text(encoding="utf-8"))
    value = change(value) or value
    return files.write_json(path, value)


def message(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in error.value.message
    return error.value.message


def test_people_and_images(annotations: Path) -> None:
    found = read_keypoints(annotations)
    truth = found.truth
    assert found.names == ["000000000007.jpg", "000000000003.jpg"]
    np.testing.assert_array_equal(found.sizes, [files.PHOTO, files.PHOTO])
    np.testing.assert_array_equal(truth.ids, [11, 12, 13, 14, 15])
    np.testing.assert_array_equal(truth.crowd, [False, False, False, True, False])
    np.testing.assert_array_equal(truth.labelled, [True, True, True, False, False])
    np.testing.assert_array_equal(
        truth.joints[1], files.joints_of((60, 10, 50, 100), absent=[3, 15], hidden=[9])
    )
    np.testing.assert_array_equal(truth.boxes[2], [90, 30, 30, 80])
    assert truth.areas[0] == 0.5 * 40 * 90
    assert found.skipped == {"of another category": 0, "without keypoints": 0}


def test_it_is_read_again_only_when_it_changes(annotations: Path) -> None:
    first = read_keypoints(annotations)
    assert read_keypoints(annotations) is first
    assert read_ground_truth(str(annotations)) is first.truth
    edited(annotations, lambda value: value["annotations"].pop() and None)
    assert len(read_keypoints(annotations).truth.ids) == 4


def test_what_is_skipped_is_counted(annotations: Path) -> None:
    def change(value: dict[str, Any]) -> None:
        value["categories"].insert(0, {"id": 2, "name": "dog"})
        del value["annotations"][4]["keypoints"]
        value["annotations"][3]["category_id"] = 2

    found = read_keypoints(edited(annotations, change))
    assert found.skipped == {"of another category": 1, "without keypoints": 1}
    np.testing.assert_array_equal(found.truth.ids, [11, 12, 13])


def test_people_of_another_number(annotations: Path) -> None:
    """A set of one's own may call people category 5."""

    def change(value: dict[str, Any]) -> None:
        value["categories"][0]["id"] = 5
        for one in value["annotations"]:
            one["category_id"] = 5

    assert read_keypoints(edited(annotations, change)).person == 5


def test_names_written_on_windows(annotations: Path) -> None:
    edited(annotations, lambda v: v["images"][0].update(file_name="val2017\\000000000007.jpg"))
    found = read_keypoints(annotations)
    paths = require_images(annotations.parents[1] / "val2017", found.names, [7, 3])
    assert [path.name for path in paths] == ["000000000007.jpg", "000000000003.jpg"]
    assert all(path.is_file() for path in paths)


def _set(place: int, **fields: Any) -> Any:
    return lambda value: value["annotations"][place].update(fields)


MISTAKES = {
    "no dict": (lambda value: [1, 2], "holds list, expected images and annotations"),
    "no images": (lambda value: value.pop("images") and None, "images is missing or no list of records"),
    "annotations": (lambda value: value.update(annotations={}), "annotations is missing or no list"),
    "no keypoints": (
        lambda value: [one.pop("keypoints") for one in value["annotations"]] and None,
        "none of its 5 annotations has keypoints",
    ),
    "14 joints": (
        _set(1, keypoints=[1] * 42),
        "annotation 12: keypoints has 42 numbers, expected 51 (x, y and visibility of 17 joints)",
    ),
    "other joints": (
        lambda value: value["categories"][0].update(keypoints=["head", "neck"]),
        "its people have 2 other joints than COCO's 17 (head)",
    ),
    "no person": (
        lambda value: value.update(categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]),
        "has no category person, but cat, dog",
    ),
    "visibility": (_set(0, keypoints=[3] * 51), "annotation 11: a joint's visibility is not 0, 1 or 2"),
    "unknown image": (
        _set(2, image_id=99),
        "1 annotations are of images that it does not list, first annotation 13 of image 99",
    ),
    "twice": (_set(2, id=11), "annotation id 11 is there 2 times"),
    "text as id": (_set(0, image_id="7"), "annotation number 0: image_id is '7', expected a whole number"),
    "short box": (
        _set(0, bbox=[1, 2, 3]),
        "annotation 11: bbox is [1, 2, 3], expected 4 finite numbers",
    ),
    "no box": (_set(0, bbox=None), "annotation 11: bbox is None, expected 4 finite numbers"),
    "text as area": (_set(0, area="large"), "annotation 11: area is 'large', expected a finite number"),
    "no size": (
        lambda value: value["images"][0].pop("width") and None,
        "image 7: height, width is [120, None], expected 2 finite numbers",
    ),
    "no name": (lambda value: value["images"][0].pop("file_name") and None, "'file_name' is missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_annotations(annotations: Path, mistake: str) -> None:
    change, said = MISTAKES[mistake]
    edited(annotations, change)
    with pytest.raises(DataError) as error:
        read_keypoints(annotations)
    assert said in message(error)
    assert str(annotations) in message(error)


def test_damaged_and_missing_files(annotations: Path) -> None:
    annotations.write_text(annotations.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1, column .*: not valid JSON"):
        read_keypoints(annotations)
    annotations.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_keypoints(annotations)


def test_missing_areas(annotations: Path) -> None:
    """They are needed for scores, not for training; those of crowds and of people without joints never."""
    edited(annotations, lambda v: [v["annotations"][place].pop("area") for place in (2, 3, 4)] and None)
    found = read_keypoints(annotations)
    assert np.isnan(found.truth.areas).sum() == 3
    with pytest.raises(DataError, match="1 people have no area, first annotation 13"):
        found.require_areas()


def test_splits_are_found(tmp_path: Path) -> None:
    files.write_set(tmp_path)
    for name in ("val", "val2017"):
        split = find_split(Path(f"{tmp_path}/"), name)
        assert split.annotations == tmp_path / "annotations" / "person_keypoints_val2017.json"
        assert split.images == tmp_path / "val2017"
    (tmp_path / "images").mkdir()
    (tmp_path / "val2017").rename(tmp_path / "images" / "val2017")
    assert find_split(tmp_path, "val").images == tmp_path / "images" / "val2017"
    (tmp_path / "images" / "val2017").rename(tmp_path / "images" / "elsewhere")
    with pytest.raises(DataError, match="val2017: no such folder"):
        find_split(tmp_path, "val")
    with pytest.raises(DataError) as error:
        find_split(tmp_path, "test")
    assert "person_keypoints_test2017.json: no such file" in message(error)
    assert "holds person_keypoints_train2017.json, person_keypoints_val2017.json" in str(error.value.hint)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_split(tmp_path / "nowhere", "val")


def test_missing_photos(annotations: Path) -> None:
    folder = annotations.parents[1] / "val2017"
    (folder / "000000000003.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 2 images of people are not there, first 000000000003.jpg \(imag"
    ):
        require_images(folder, ["000000000007.jpg", "000000000003.jpg"], [7, 3])


BOXES = [
    files.detection(3, (10, 20, 40, 90), 0.9),
    files.detection(7, (60, 10, 50, 100), 0.4),
    files.detection(7, (0, 0, 50, 50), 0.8, category=18),
    files.detection(3, (5, 5, 0, 10), 0.7),
]


def test_detections(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "boxes.json", BOXES)
    found = read_detections(path, np.array([3, 7]), smallest_score=0.5)
    np.testing.assert_array_equal(found.image_id, [3])
    np.testing.assert_array_equal(found.boxes, [[10, 20, 40, 90]])
    np.testing.assert_array_equal(found.rows, [0])
    assert found.left_out == {
        "of another category": [2],
        "without width or height": [3],
        "of a lower score": [1],
    }


BOX_MISTAKES = {
    "of another set": (
        [*BOXES, files.detection(99, (0, 0, 1, 1), 1), files.detection(98, (0, 0, 1, 1), 1)],
        "2 of 6 boxes are of 2 images that the annotation file does not list, first image 99",
    ),
    "annotations": ({"annotations": BOXES}, "holds dict, expected a list of"),
    "no score": ([{"image_id": 3, "category_id": 1, "bbox": [0, 0, 1, 1]}], "box 0: score is missing"),
    "keypoints": ([{"image_id": 3, "category_id": 1, "keypoints": [], "score": 1}], "box 0: bbox is missing"),
    "short box": (
        [BOXES[0], {**BOXES[1], "bbox": [1, 2, 3]}],
        "box 1: a value is no number, or bbox has not",
    ),
    "text as id": ([{**BOXES[0], "image_id": "3"}], "box 0: a value is no number"),
    "no record": ([3], "box 0: is int"),
    "no person": ([BOXES[2]], "has no box of category 1, person; categories: 18"),
    "empty": ([], "has no box of category 1, person; categories: none"),
}


@pytest.mark.parametrize("mistake", BOX_MISTAKES)
def test_mistakes_of_detections(tmp_path: Path, mistake: str) -> None:
    value, said = BOX_MISTAKES[mistake]
    path = files.write_json(tmp_path / "boxes.json", value)
    with pytest.raises(DataError) as error:
        read_detections(path, np.array([3, 7]))
    assert said in message(error)
    assert str(path) in message(error)


def test_too_high_a_score(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "boxes.json", BOXES)
    with pytest.raises(DataError, match=r"none of its 3 boxes of people has a score of 0.95 or more"):
        read_detections(path, np.array([3, 7]), smallest_score=0.95)


def test_the_real_photos() -> None:
    root = files.real()
    split = find_split(root, "train")
    found = read_keypoints(split.annotations)
    assert len(found.names) == 18
    assert len(found.truth.ids) == 118
    assert found.truth.labelled.sum() == 65
    assert found.truth.crowd.sum() == 5
    found.require_areas()
    assert len(require_images(split.images, found.names, found.truth.image_ids.tolist())) == 18
    images = read_keypoints(find_split(root, "val").annotations).truth.image_ids
    assert len(read_detections(root / files.DETECTIONS, images).scores) == 118
