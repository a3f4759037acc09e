"""COCO's numbers from batches: parts of a set, several processes, doubles; and where joints are off."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import coco_files as files
import numpy as np
import pytest
import torch
from torch import Tensor

from omma.core.coco_eval import NUMBERS
from omma.core.heatmaps import decode, encode, to_image
from omma.core.joint_meter import PEAK_BINS, JointMeter
from omma.core.keypoint_meter import KeypointMeter
from omma.core.keypoints import FLIP_PAIRS, JOINTS, mirrored_order
from omma.data.formats.coco import read_ground_truth
from omma.systems.sdpose import data

HEATMAP = (16, 12)
Batch = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files.write_split(tmp_path, "val")
    return tmp_path


def batches(root: Path, size: int = 2, **settings: Any) -> list[Batch]:
    samples, collate = data.build(files.config(root, data=settings), "val", augment=False)
    chosen = range(len(samples))
    return [collate([samples[i] for i in chosen[start : start + size]]) for start in chosen[::size]]


def true_places(batch: Batch) -> Tensor:
    """The annotated joints in pixels of the image."""
    return to_image(batch["joints"], batch["center"], batch["scale"], batch["image"].shape[-2:])


def meter_of(found: list[Batch], offset: float = 0.0, **options: Any) -> KeypointMeter:
    """Every joint to the right of its place."""
    meter = KeypointMeter(read_ground_truth, **options)
    for batch in found:
        places = true_places(batch) + torch.tensor([offset, 0.0])
        meter.update(places, torch.full(places.shape[:2], 0.9), batch)
    return meter


def test_perfect_people_score_one(root: Path) -> None:
    meter = meter_of(batches(root))
    numbers = meter.compute()
    assert tuple(numbers) == NUMBERS == meter.names
    assert numbers == pytest.approx(dict.fromkeys(NUMBERS, 1.0) | {"APL": np.nan, "ARL": np.nan}, nan_ok=True)
    rows = meter.per_sample()
    assert [row["token"] for row in rows] == ["000000000007#0", "000000000003#0", "000000000003#1"]
    assert all(row["OKS"] == pytest.approx(1) and row["score"] == pytest.approx(0.9) for row in rows)
    assert all(row["error_px"] < 1e-3 for row in rows)


def test_results_are_as_coco_wants_them(root: Path) -> None:
    meter = meter_of(batches(root))
    results = json.loads(json.dumps(meter.results()))
    assert [row["image_id"] for row in results] == [3, 3, 7]
    assert {row["category_id"] for row in results} == {1}
    joints = np.array(results[2]["keypoints"]).reshape(17, 3)
    expected = files.joints_of((60, 10, 50, 100), absent=[3, 15])
    present = expected[:, 2] > 0
    np.testing.assert_allclose(joints[present, :2], expected[present, :2], atol=1e-3)
    np.testing.assert_allclose(joints[:, 2], 0.9, rtol=1e-6)


def test_an_error_lowers_the_numbers(root: Path) -> None:
    near, far = meter_of(batches(root), 3.0), meter_of(batches(root), 30.0)
    assert 0 < near.compute()["AP"] < 1
    assert far.compute()["AP"] == 0
    assert all(row["error_px"] == pytest.approx(3, abs=1e-3) for row in near.per_sample())
    assert all(0.3 < row["OKS"] < 1 for row in near.per_sample())


def test_a_missing_person_counts_only_when_the_whole_set_was_seen(root: Path) -> None:
    """Of the first samples alone (validate.limit, --overfit) only the people seen should be found."""
    part = batches(root)[:1]
    assert meter_of(part).compute()["AR"] == 1
    whole = copy.deepcopy(part)
    whole[0]["set_size"] = len(whole[0]["token"])
    assert meter_of(whole).compute()["AR"] == pytest.approx(2 / 3)


def test_images_without_boxes_count(root: Path) -> None:
    """A detector that finds nobody in an image misses the people there."""
    boxes = [files.detection(3, (10, 20, 40, 90), 0.9), files.detection(3, (90, 30, 30, 80), 0.8)]
    files.write_json(root / "boxes.json", boxes)
    found = batches(root, boxes="boxes.json")
    meter = KeypointMeter(read_ground_truth)
    people = [files.joints_of((10, 20, 40, 90)), files.joints_of((90, 30, 30, 80))]
    for batch in found:
        places = torch.tensor(np.stack(people))[..., :2].float()
        meter.update(places, torch.full((2, 17), 0.5), batch)
    assert meter.compute()["AR"] == pytest.approx(2 / 3)
    rows = meter.per_sample()
    assert [row["score"] for row in rows] == pytest.approx([0.45, 0.4])
    assert [row["OKS"] for row in rows] == pytest.approx([1, 1])
    assert [row["error_px"] for row in rows] == [None, None]
    assert set(found[0]["annotation_id"].tolist()) == {-1}


def test_doubles_are_suppressed(root: Path) -> None:
    boxes = [files.detection(7, (60, 10, 50, 100), score) for score in (0.5, 0.9, 0.7)]
    files.write_json(root / "boxes.json", boxes)
    found = batches(root, size=3, boxes="boxes.json")
    for nms, kept in (("oks", [0.9]), ("soft", [0.9, 0.7, 0.5]), ("none", [0.5, 0.9, 0.7])):
        meter = KeypointMeter(read_ground_truth, nms=nms)
        place = torch.tensor(files.joints_of((60, 10, 50, 100))[None, :, :2]).float().repeat(3, 1, 1)
        meter.update(place, torch.ones(3, 17), found[0])
        assert [row["score"] for row in meter.results()] == pytest.approx(kept)


def test_processes_join_and_doubles_of_samplers_go(root: Path) -> None:
    found = batches(root, size=1)
    whole = meter_of(found, 2.0)
    parts = [meter_of(part, 2.0) for part in (found[::2], found[1::2], found[:1], [])]
    joined = KeypointMeter(read_ground_truth)
    joined.merge([part.state() for part in parts])
    assert joined.compute() == pytest.approx(whole.compute(), nan_ok=True)
    assert len(joined.per_sample()) == 3
    first = {row["token"]: row for row in whole.per_sample()}
    assert {row["token"]: row for row in joined.per_sample()} == first


def test_nothing_seen() -> None:
    meter = KeypointMeter(read_ground_truth)
    meter.merge([KeypointMeter(read_ground_truth).state()])
    assert all(np.isnan(value) for value in meter.compute().values())
    assert meter.results() == meter.per_sample() == []


def test_low_joints_do_not_count_for_the_score(root: Path) -> None:
    found = batches(root, size=3)
    scores = torch.full((3, 17), 0.1)
    scores[:, :2] = 0.6
    for threshold, score in ((0.2, 0.6), (0.05, (2 * 0.6 + 15 * 0.1) / 17), (0.7, 0.0)):
        meter = KeypointMeter(read_ground_truth, visible_score=threshold)
        meter.update(true_places(found[0]), scores, found[0])
        assert meter.results()[0]["score"] == pytest.approx(score)


def test_people_without_joints_are_ignored(root: Path) -> None:
    """Someone found where a crowd, or a person without joints, is annotated is no mistake."""
    boxes = [files.detection(7, (60, 10, 50, 100), 0.5), files.detection(7, (5, 5, 20, 50), 0.9)]
    files.write_json(root / "boxes.json", boxes)
    found = batches(root, boxes="boxes.json")[0]
    meter = KeypointMeter(read_ground_truth)
    people = [files.joints_of((60, 10, 50, 100)), files.joints_of((5, 5, 20, 50))]
    meter.update(torch.tensor(np.stack(people))[..., :2].float(), torch.ones(2, 17), found)
    assert meter.compute()["AP"] == pytest.approx(34 / 101)  # one of three people, no mistake before it


def joints_of(found: list[Batch], change: Any = lambda places, batch: places) -> JointMeter:
    meter = JointMeter()
    for batch in found:
        places = change(true_places(batch), batch)
        meter.update(places, torch.full(places.shape[:2], 0.75), batch)
    return meter


def test_perfect_joints(root: Path) -> None:
    meter = joints_of(batches(root))
    numbers = meter.compute()
    assert tuple(numbers) == meter.names
    for name in ("PCK@0.05", "PCK@0.1/seen", "PCK@0.1/hidden", "OKS", "OKS/medium", "OKS/seen_12_17"):
        assert numbers[name] == pytest.approx(1), name
    for name in ("OKS/small", "OKS/large", "OKS/seen_0_5"):
        assert np.isnan(numbers[name]), name
    assert numbers["swap_error"] == 0
    assert numbers["error_px"] == pytest.approx(0, abs=1e-3)
    assert numbers["peak"] == numbers["peak/absent"] == 0.75


def test_joints_by_class(root: Path) -> None:
    meter = joints_of(batches(root))
    rows = {row["class"]: row for row in meter.per_class()}
    assert list(rows) == list(JOINTS)
    assert rows["nose"]["labelled"] == 3
    assert rows["left_ear"]["labelled"] == rows["left_ankle"]["labelled"] == 2
    assert rows["nose"]["peak_p50"] == pytest.approx(0.75, abs=1 / PEAK_BINS)
    histogram = meter.peak_histogram()
    assert histogram.shape == (2, 17, PEAK_BINS)
    assert histogram[0].sum() == 49
    assert histogram[1].sum() == 2


def test_hidden_joints_have_their_own_number(root: Path) -> None:
    def move_hidden(places: Tensor, batch: Batch) -> Tensor:
        return places + 100 * batch["hidden"][..., None]

    numbers = joints_of(batches(root), move_hidden).compute()
    assert numbers["PCK@0.1/hidden"] == 0
    assert numbers["PCK@0.1/seen"] == 1
    assert numbers["PCK@0.1"] == pytest.approx(np.mean([1.0] * 48 + [0.0]))


def test_distances_count_by_the_boxs_longer_side(root: Path) -> None:
    """Boxes are 90, 100 and 80 pixels high: 9.5 pixels are a tenth of the second only."""
    numbers = joints_of(batches(root), lambda places, batch: places + torch.tensor([0.0, 9.5])).compute()
    assert numbers["PCK@0.1"] == pytest.approx(15 / 49)
    assert (numbers["PCK@0.05"], numbers["PCK@0.2"]) == (0, 1)
    assert numbers["error_px"] == pytest.approx(9.5, rel=1e-4)


def test_sides_mixed_up(root: Path) -> None:
    swapped = joints_of(batches(root), lambda places, batch: places[:, mirrored_order()]).compute()
    labelled_pairs = 3 * len(FLIP_PAIRS) - 2
    assert swapped["swap_error"] == pytest.approx(1)
    wrists = [(9, 10)]

    def swap_wrists(places: Tensor, batch: Batch) -> Tensor:
        return places[:, mirrored_order(tuple(wrists))]

    assert joints_of(batches(root), swap_wrists).compute()["swap_error"] == pytest.approx(3 / labelled_pairs)
    elsewhere = joints_of(batches(root), lambda places, batch: places[:, mirrored_order()] + 60).compute()
    assert elsewhere["swap_error"] == 0


def test_joints_of_processes_add_up(root: Path) -> None:
    found = batches(root, size=1)
    whole, parts = joints_of(found), [joints_of(found[:1]), joints_of(found[1:]), joints_of([])]
    joined = JointMeter()
    joined.merge([part.state() for part in parts])
    assert joined.compute() == pytest.approx(whole.compute(), nan_ok=True)
    assert [row["OKS"] for row in joined.per_class()] == [row["OKS"] for row in whole.per_class()]
    assert (joined.peak_histogram() == whole.peak_histogram()).all()


@pytest.mark.parametrize(("encoding", "method"), [("unbiased", "unbiased"), ("udp", "udp")])
def test_drawn_joints_come_back_to_their_photo(root: Path, encoding: str, method: str) -> None:
    settings = {"image_size": [256, 192], "target": {"encoding": encoding}}
    samples, collate = data.build(files.config(root, data=settings), "val", augment=False)
    batch = collate([samples[index] for index in range(3)])
    target = encode(batch["joints"], batch["visible"], (64, 48), encoding=encoding)[0]
    coords, scores = decode(target, method=method)
    found = to_image(coords, batch["center"], batch["scale"], (64, 48), udp=encoding == "udp")
    meter = JointMeter(udp=encoding == "udp")
    meter.update(found, scores, batch)
    assert meter.compute()["error_px"] < 0.05
    truth = read_ground_truth(batch["annotations"])
    places = truth.joints[truth.rows(batch["annotation_id"].numpy())]
    assert np.abs(found.numpy() - places[..., :2])[places[..., 2] > 0].max() < 0.3


def test_a_detectors_boxes_have_no_joints(root: Path) -> None:
    files.write_json(root / "boxes.json", [files.detection(7, (60, 10, 50, 100), 0.5)])
    meter = joints_of(batches(root, boxes="boxes.json"))
    numbers = meter.compute()
    assert numbers["peak/absent"] == 0.75
    assert all(np.isnan(value) for name, value in numbers.items() if name != "peak/absent")


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_people_found_perfectly(split: str) -> None:
    """Drawn and decoded, all joints come back but for those near the border of their crops."""
    settings = {"image_size": [256, 192]}
    samples, collate = data.build(files.config(files.real(), data=settings), split, augment=False)
    perfect, drawn = KeypointMeter(read_ground_truth), KeypointMeter(read_ground_truth)
    outside = 0
    for index in range(len(samples)):
        batch = collate([samples[index]])
        places = true_places(batch)
        perfect.update(places, torch.ones(1, 17), batch)
        target = encode(batch["joints"], batch["visible"], (64, 48))[0]
        coords, scores = decode(target)
        found = to_image(coords, batch["center"], batch["scale"], (64, 48))
        drawn.update(found, scores, batch)
        border = ((batch["joints"] < 10) | (batch["joints"] > torch.tensor([178.0, 242.0]))).any(-1)
        outside += int((border & (batch["visible"] > 0)).sum())
        inside = (batch["visible"] > 0) & ~border
        assert (found - places)[inside].norm(dim=-1).max() < 0.2 * float(batch["scale"].max()) * 200 / 64
    assert perfect.compute() == pytest.approx(dict.fromkeys(NUMBERS, 1.0))
    assert 0 < outside < 40
    assert 0.97 < drawn.compute()["AP"] < 1
