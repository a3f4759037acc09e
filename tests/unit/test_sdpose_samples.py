"""Samples of people: who is cut out and how, random changes as a function of the seed, own photos."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import coco_files as files
import cv2
import numpy as np
import pytest
import torch

from omma.core.keypoints import JOINTS, mirrored_order
from omma.data import io
from omma.data.dataset import Subset
from omma.data.fingerprint import fingerprint
from omma.data.loader import Loader
from omma.errors import DataError
from omma.systems.sdpose import data, samples
from omma.systems.sdpose.augment import Placed, change, take_half
from omma.systems.sdpose.boxes import clip_boxes
from omma.systems.sdpose.config import AugmentSection
from omma.systems.sdpose.crops import crop_matrix, move_points, place_box

STILL = {"shift_chance": 0, "flip_chance": 0, "half_body_chance": 0, "scale": 0, "rotation_chance": 0}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return files.write_set(tmp_path)


def build(
    root: Path,
    split: str = "val",
    *,
    augment: bool = False,
    chances: dict[str, float] | None = None,
    **settings: Any,
) -> samples.PersonSamples:
    settings |= {"augment": chances or {}}
    return data.build(files.config(root, data=settings), split, augment=augment)[0]


def test_a_sample(root: Path) -> None:
    found = build(root)
    assert [found.name(index) for index in range(3)] == [
        "000000000007#0",
        "000000000003#0",
        "000000000003#1",
    ]
    sample = found[0]
    assert sample["image"].shape == (3, *files.CROP)
    assert sample["image"].dtype == torch.uint8
    assert sample["token"] == found.name(0)
    assert (sample["image_id"], sample["box_id"], sample["annotation_id"]) == (7, 0, 12)
    assert sample["area"] == 0.5 * 50 * 100
    assert sample["box"].tolist() == [60, 10, 50, 100]
    assert sample["center"].tolist() == [85, 60]
    torch.testing.assert_close(sample["scale"], torch.tensor([75.0, 100.0]) / 200 * 1.25)
    assert sample["visible"].sum() == 15
    assert [JOINTS[index] for index in sample["hidden"].nonzero()[:, 0]] == ["left_wrist"]
    assert sample["joints"][sample["visible"] == 0].abs().max() == 0
    assert (sample["boxes"], sample["set_size"], sample["rotation"]) == ("ground_truth", 3, 0)
    assert Path(sample["image_file"]).name == "000000000007.jpg"
    assert Path(sample["annotations"]).name == "person_keypoints_val2017.json"


@pytest.mark.parametrize("augment", [False, True])
def test_joints_lie_where_the_picture_shows_them(tmp_path: Path, augment: bool) -> None:
    """A bright spot on each joint of a black photo is where the sample says the joint is."""
    box = (60.0, 10.0, 50.0, 100.0)
    joints, shown = files.joints_of(box), [0, 9, 10, 15, 16]
    spots = np.zeros((*files.PHOTO, 3), np.uint8)
    for x, y in joints[shown, :2].astype(int):
        cv2.circle(spots, (int(x), int(y)), 1, (255, 255, 255), -1)
    for split in ("train", "val"):
        files.write_split(tmp_path, split, files.content([files.person(1, 7, box)], images=[7]))
    exact = files.write_photo(tmp_path / "exact.png", spots)
    split = "train" if augment else "val"
    exact.replace(tmp_path / f"{split}2017" / "000000000007.jpg")
    found = build(tmp_path, split, augment=augment, image_size=[128, 96])
    seen = 0
    for epoch in range(12):
        sample = found[epoch, 0]
        for joint in shown:
            x, y = sample["joints"][joint].tolist()
            if not (4 < x < 91 and 4 < y < 123):
                continue
            window = sample["image"][0, round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5].float()
            rows, columns = np.indices(window.shape)
            seen += 1
            assert window.max() > 100
            weight = window.numpy() / window.sum().item()
            assert abs((weight * columns).sum() + round(x) - 4 - x) < 0.7
            assert abs((weight * rows).sum() + round(y) - 4 - y) < 0.7
    assert seen > 30


def test_who_is_left_out_is_said(tmp_path: Path) -> None:
    people = files.three_people()
    people += [
        files.person(21, 3, (200, 10, 40, 40)),
        files.person(22, 3, (10, 10, 30, 40), area=0),
        files.person(23, 3, (-20, -10, 60, 60)),
    ]
    files.write_split(tmp_path, "val", files.content(people))
    found = build(tmp_path)
    assert found.people.left_out == {
        "crowd": [14],
        "no labelled joint": [15],
        "box outside the image or empty": [21],
        "area of 0": [22],
    }
    assert found.people.annotation_ids.tolist() == [12, 11, 13, 23]
    assert found[3]["box"].tolist() == [0, 0, 60, 60]


def test_boxes_are_clipped() -> None:
    """As the reference: the left edge is clipped first, so a box keeps its width as far as the image goes."""
    boxes = np.array([[-5.0, -7, 80, 90], [150, 100, 50, 50], [160, 0, 10, 10], [10, 10, -5, 20]])
    clipped = clip_boxes(boxes, np.array([files.PHOTO] * 4))
    np.testing.assert_array_equal(clipped[:2], [[0, 0, 80, 90], [150, 100, 9, 19]])
    assert (clipped[2:, 2] <= 0).all()


def test_nobody_is_left(tmp_path: Path) -> None:
    crowd = [files.person(1, 7, (0, 0, 10, 10), iscrowd=1)]
    files.write_split(tmp_path, "val", files.content(crowd, images=[7]))
    with pytest.raises(DataError, match="nobody in it has joints"):
        build(tmp_path)


def test_crops_have_one_aspect() -> None:
    for box in ((10, 20, 60, 200), (0, 0, 300, 40), (5, 5, 75, 100)):
        center, scale = place_box(np.array(box), (256, 192), 1.25)
        assert scale[0] / scale[1] == pytest.approx(0.75)
        np.testing.assert_allclose(center, [box[0] + box[2] / 2, box[1] + box[3] / 2])
        assert scale[0] * 200 >= 1.25 * box[2] * 0.999
        assert scale[1] * 200 >= 1.25 * box[3] * 0.999
        corners = np.array([center - scale * 100, center + scale * 100])
        moved = move_points(corners, crop_matrix(center, scale, (256, 192)))
        np.testing.assert_allclose(moved, [[0, 0], [192, 256]], atol=1e-3)
        moved = move_points(corners, crop_matrix(center, scale, (256, 192), udp=True))
        np.testing.assert_allclose(moved, [[0, 0], [191, 255]], atol=0.2)


def test_a_rotated_crop_turns_about_its_centre() -> None:
    center, scale = np.array([50.0, 40.0], np.float32), np.array([0.75, 1.0], np.float32)
    matrix = crop_matrix(center, scale, (256, 192), rotation_deg=90.0)
    moved = move_points(np.array([[50.0, 40.0], [60.0, 40.0]]), matrix)
    np.testing.assert_allclose(moved, [[96, 128], [96, 128 - 10 * 192 / 150]], atol=1e-3)


def test_randomness_is_of_seed_epoch_and_index_alone(root: Path) -> None:
    found = build(root, augment=True)
    found.seed = 3
    first = found[4, 1]
    _ = found[5, 2]
    again = pickle.loads(pickle.dumps(found))[4, 1]
    for name in ("image", "joints", "center", "scale", "rotation"):
        torch.testing.assert_close(again[name], first[name], rtol=0, atol=0)
    assert not torch.equal(found[5, 1]["image"], first["image"])
    found.seed = 4
    assert not torch.equal(found[4, 1]["image"], first["image"])
    plain = build(root)
    torch.testing.assert_close(plain[0, 1]["image"], plain[9, 1]["image"])


def test_augmentation_without_chances_changes_nothing(root: Path) -> None:
    plain, still = build(root)[1], build(root, augment=True, chances=STILL)[1]
    for name in ("image", "joints", "center", "scale"):
        torch.testing.assert_close(still[name], plain[name], rtol=0, atol=0)


def test_mirrored_samples(root: Path) -> None:
    plain = build(root)[0]
    mirrored = build(root, augment=True, chances=STILL | {"flip_chance": 1})[0]
    torch.testing.assert_close(mirrored["visible"], plain["visible"][mirrored_order()])
    assert [JOINTS[index] for index in mirrored["hidden"].nonzero()[:, 0]] == ["right_wrist"]
    assert mirrored["center"][0] == files.PHOTO[1] - 1 - plain["center"][0]
    own, other = mirrored["joints"][0], plain["joints"][0]  # the nose
    assert own[0] + other[0] == pytest.approx(files.CROP[1], abs=1e-4)
    assert own[1] == other[1]


def test_half_bodies_have_many_joints_and_few() -> None:
    section = AugmentSection(half_body_draw="uniform")
    box = (60.0, 10.0, 50.0, 100.0)
    whole = Placed(*place_box(np.array(box), (64, 48), 1.25), files.joints_of(box).astype(np.float32))
    halves = [take_half(whole, np.random.default_rng(seed), section, (64, 48)) for seed in range(200)]
    upper = np.mean([half.center[1] < 60 for half in halves])
    assert 0.4 < upper < 0.6
    section = AugmentSection()
    halves = [take_half(whole, np.random.default_rng(seed), section, (64, 48)) for seed in range(400)]
    assert 0.62 < np.mean([half.center[1] < 60 for half in halves]) < 0.76
    few = Placed(whole.center, whole.scale, whole.joints * (np.arange(17) == 3)[:, None])
    assert take_half(few, np.random.default_rng(0), section, (64, 48)) is few
    sure = AugmentSection(half_body_chance=1.0, **{k: v for k, v in STILL.items() if k != "half_body_chance"})
    eight = np.where(np.arange(17)[:, None] < 8, whole.joints, 0)
    same = change(
        Placed(whole.center, whole.scale, eight),
        np.random.default_rng(0),
        sure,
        image_width=160,
        size=(64, 48),
    )
    np.testing.assert_array_equal(same.scale, whole.scale)


def test_changes_stay_within_their_limits() -> None:
    section = AugmentSection(half_body_chance=0.0)
    box = (60.0, 10.0, 50.0, 100.0)
    whole = Placed(*place_box(np.array(box), (64, 48), 1.25), files.joints_of(box).astype(np.float32))
    rng = np.random.default_rng(0)
    found = [change(whole, rng, section, image_width=160, size=(64, 48)) for _ in range(500)]
    factors = np.array([one.scale[0] / whole.scale[0] for one in found])
    angles = np.array([one.rotation_deg for one in found])
    assert factors.min() == pytest.approx(0.65)
    assert factors.max() == pytest.approx(1.35)
    assert np.abs(angles).max() <= 90
    assert 0.3 < (angles == 0).mean() < 0.5
    assert 0.4 < np.mean([one.mirrored for one in found]) < 0.6
    places = np.array([one.center[0] if not one.mirrored else 159 - one.center[0] for one in found])
    moved = np.abs(places - whole.center[0])
    assert 0.2 < (moved > 0).mean() < 0.4
    assert moved.max() <= 0.16 * whole.scale[0] * 200 + 1e-3


def test_photos_are_decoded_once_in_evaluation(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(path: Path, **options: Any) -> Any:
        reads.append(path)
        return io.read_image(path, **options)

    monkeypatch.setattr(samples, "read_image", counted)
    boxes = [files.detection(image, (10 * k, 10, 30, 60), 0.5) for k in range(4) for image in (3, 7)]
    files.write_json(root / "boxes.json", boxes)
    found = build(root, boxes="boxes.json")
    everything = [found[index] for index in range(len(found))]
    assert len(everything) == 8
    assert len(reads) == 2
    assert [int(sample["image_id"]) for sample in everything] == [7] * 4 + [3] * 4


def test_a_detectors_boxes(root: Path) -> None:
    boxes = [
        files.detection(3, (-10, 20, 40, 90), 0.9),
        files.detection(7, (60, 10, 50, 100), 0.3),
        files.detection(3, (90, 30, 30, 80), 0.05),
    ]
    files.write_json(root / "annotations" / "boxes.json", boxes)
    found = build(root, boxes="annotations/boxes.json", box_score=0.1)
    assert [found.name(index) for index in range(len(found))] == ["000000000007#1", "000000000003#0"]
    sample = found[1]
    assert sample["box"].tolist() == [-10, 20, 40, 90]
    assert sample["box_score"] == pytest.approx(0.9)
    assert (sample["boxes"], sample["annotation_id"], sample["set_size"]) == ("detector", -1, 2)
    assert sample["visible"].sum() == sample["joints"].abs().sum() == 0
    assert torch.isnan(sample["area"])
    assert build(root, "train", boxes="annotations/boxes.json")[0]["boxes"] == "ground_truth"
    assert build(root, augment=True, boxes="annotations/boxes.json")[0]["boxes"] == "ground_truth"
    with pytest.raises(DataError, match=r"nothere.json: no such file \(data.boxes\)"):
        build(root, boxes="nothere.json")


def test_batches(root: Path) -> None:
    found, collate = data.build(files.config(root), "val", augment=False)
    loader = Loader(found, collate, [[0, 1], [2]], workers=0, device=torch.device("cpu"))
    first, last = list(loader)
    assert first["image"].shape == (2, 3, *files.CROP)
    assert first["joints"].shape == (2, 17, 2)
    assert first["image_id"].tolist() == [7, 3]
    assert first["token"] == ["000000000007#0", "000000000003#0"]
    assert (first["boxes"], first["set_size"]) == ("ground_truth", 3)
    assert last["scale"].shape == (1, 2)
    assert {key: value.dtype for key, value in first.items() if isinstance(value, torch.Tensor)} == {
        **dict.fromkeys(
            ("joints", "visible", "center", "scale", "box", "rotation", "box_score", "area"), torch.float32
        ),
        **dict.fromkeys(("image_id", "box_id", "annotation_id"), torch.int64),
        "image": torch.uint8,
        "hidden": torch.bool,
    }
    assert collate([Subset(found, [2])[0]])["set_size"] == 3


def test_fingerprint_covers_annotations(root: Path) -> None:
    facts = fingerprint(build(root), root)
    assert facts["num_samples"] == 3
    assert list(facts["annotations"]) == ["annotations/person_keypoints_val2017.json"]
    assert facts["num_files"] == 3


def test_roots_of_all_spellings(root: Path) -> None:
    assert len(build(Path(f"{root}/"))) == 3
    with pytest.raises(DataError) as error:
        data.build(files.config(None), "val", augment=False)
    assert "OMMA_DATA_SDPOSE" in str(error.value.hint)
    with pytest.raises(DataError, match=r"nowhere: no such folder \(data.root\)"):
        build(root / "nowhere")


def test_a_photo_of_another_size(root: Path) -> None:
    files.write_photo(root / "val2017" / "000000000007.jpg", files.photo(0)[:60])
    with pytest.raises(DataError) as error:
        _ = build(root)[0]
    assert "is 60 x 160 pixels, its annotations are for 120 x 160" in error.value.message
    assert "(token 000000000007#0)" in error.value.message


def exif_turned(path: Path, image: np.ndarray) -> None:
    """A JPEG whose viewers turn it by 90 degrees clockwise."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(path, exif=exif, quality=95)


def test_photos_that_say_how_they_are_turned(root: Path) -> None:
    """Annotations decide which way is meant, own photos stand upright."""
    path = root / "val2017" / "000000000007.jpg"
    stored = files.photo(1)
    exif_turned(path, stored)
    assert build(root).photo(0).shape[:2] == files.PHOTO
    exif_turned(path, np.ascontiguousarray(np.rot90(stored)))
    upright = build(root).photo(0)
    assert upright.shape[:2] == files.PHOTO
    assert np.abs(upright.astype(int) - stored).mean() < 3
    with pytest.warns(UserWarning, match="taken whole"):
        own = data.build_inputs(files.config(None), [path])[0]
    assert own.photo(0).shape[:2] == files.PHOTO


def test_own_photos_with_boxes(tmp_path: Path) -> None:
    photo = files.write_photo(tmp_path / "street.jpg", files.photo(2))
    files.write_json(
        tmp_path / "street.json", {"boxes": [[10, 10, 30, 60], [50, 5, 40, 100]], "scores": [0.9, 0.5]}
    )
    beside = data.build_inputs(files.config(None), [photo])[0]
    listed = {"image": "street.jpg", "boxes": [[10, 10, 30, 60]]}
    (tmp_path / "lists").mkdir()
    one = files.write_json(tmp_path / "one.json", listed)
    many = files.write_json(tmp_path / "lists" / "many.json", [listed | {"image": "../street.jpg"}])
    others = data.build_inputs(files.config(None), [one, many])[0]
    assert [beside.name(index) for index in range(len(beside))] == ["street#0", "street#1"]
    assert beside[1]["box_score"] == pytest.approx(0.5)
    assert beside[1]["boxes"] == "input"
    assert len(others) == 2
    torch.testing.assert_close(others[1]["image"], beside[0]["image"])


def test_a_photo_without_boxes_is_one_person_and_says_so(tmp_path: Path) -> None:
    photo = files.write_photo(tmp_path / "me.png", files.photo(2))
    with pytest.warns(UserWarning, match=r"1 of 1 photos are taken whole as one person, first .*me.png"):
        own, collate = data.build_inputs(files.config(None), [photo])
    assert own[0]["box"].tolist() == [0, 0, files.PHOTO[1], files.PHOTO[0]]
    assert collate([own[0]])["image"].shape == (1, 3, *files.CROP)


INPUT_MISTAKES = {
    "no boxes": ({"shapes": []}, "field 'boxes' is missing"),
    "three numbers": ({"boxes": [[1, 2, 3]]}, "boxes or scores are not as they should be"),
    "no width": ({"boxes": [[1, 2, 0, 3]]}, "boxes or scores are not as they should be"),
    "text": ({"boxes": "all"}, "boxes or scores are not as they should be"),
    "scores": ({"boxes": [[1, 2, 3, 4]], "scores": [0.5, 0.5]}, "boxes or scores are not as they should be"),
    "nobody": ({"boxes": []}, "the input files hold no box"),
}


@pytest.mark.parametrize("mistake", INPUT_MISTAKES)
def test_mistakes_of_own_boxes(tmp_path: Path, mistake: str) -> None:
    value, said = INPUT_MISTAKES[mistake]
    photo = files.write_photo(tmp_path / "me.png", files.photo(2))
    files.write_json(tmp_path / "me.json", value)
    with pytest.raises(DataError) as error:
        data.build_inputs(files.config(None), [photo])
    assert said in error.value.message


def test_own_files_that_are_not_there(tmp_path: Path) -> None:
    listed = files.write_json(tmp_path / "a.json", {"image": "b.jpg", "boxes": [[1, 2, 3, 4]]})
    for file, said in ((tmp_path / "x.jpg", "x.jpg: no such file"), (listed, "b.jpg: no such file")):
        with pytest.raises(DataError, match=said):
            data.build_inputs(files.config(None), [file])
    with pytest.raises(DataError, match="hold no photo"):
        data.build_inputs(files.config(None), [files.write_json(tmp_path / "none.json", [])])


def test_the_real_photos() -> None:
    root = files.real()
    train, val = build(root, "train"), build(root, "val")
    assert (len(train), len(train.people.files)) == (65, 16)
    assert train.people.left_out["crowd"] != []
    assert len(build(root, boxes=files.DETECTIONS)) == 118
    sample = val[0]
    assert sample["image"].float().std() > 10
    inside = ((sample["joints"] >= 0) & (sample["joints"] <= torch.tensor(files.CROP[::-1]))).all(-1)
    assert inside[sample["visible"] > 0].all()
