"""Decoding, suppression of doubles and scores against the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omma.core.coco_eval import NUMBERS
from omma.core.heatmaps import decode, flip_back, highest_cells, to_image
from omma.core.keypoint_meter import KeypointMeter
from omma.core.keypoints import SIGMAS
from omma.core.oks import oks, oks_nms, soft_oks_nms
from omma.core.pck import auc, distances, epe, pck
from omma.data.formats.coco import find_split, read_ground_truth, read_keypoints
from omma.data.formats.coco_detections import read_detections
from omma.systems.sdpose.boxes import People, annotated_people, detected_people
from omma.systems.sdpose.crops import place_box

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "sdpose"
SIZE = (64, 48)


def load(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(CASES / f"{name}.npz"))


def decoding() -> tuple[dict[str, np.ndarray], torch.Tensor]:
    case = load("decode")
    return case, torch.from_numpy(case["heatmaps_f16"].astype(np.float32))


def test_highest_cells() -> None:
    case, heatmaps = decoding()
    coords, scores = highest_cells(heatmaps)
    np.testing.assert_array_equal(coords, case["argmax.preds"])
    np.testing.assert_array_equal(scores[..., None], case["argmax.maxvals"])


@pytest.mark.parametrize("method", ["none", "default", "unbiased", "megvii"])
def test_decoding(method: str) -> None:
    case, heatmaps = decoding()
    coords, scores = decode(heatmaps, method=method)
    np.testing.assert_allclose(coords, case[f"{method}.preds_heatmap_coords"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores[..., None], case[f"{method}.maxvals"], rtol=1e-6)
    places = to_image(coords, torch.from_numpy(case["center"]), torch.from_numpy(case["scale"]), SIZE)
    np.testing.assert_allclose(places, case[f"{method}.preds"], rtol=0, atol=1e-2)


def test_udp_decoding() -> None:
    case, heatmaps = decoding()
    center, scale = torch.from_numpy(case["center"]), torch.from_numpy(case["scale"])
    places = to_image(decode(heatmaps, method="udp")[0], center, scale, SIZE, udp=True)
    shaped = heatmaps.std((-2, -1)) > 1e-3  # a constant map's step is rounding error
    assert (~shaped).sum() == 2
    np.testing.assert_allclose(places[shaped], case["udp.preds"][shaped], rtol=0, atol=1e-2)


def test_flip_back() -> None:
    case, heatmaps = decoding()
    plain, shifted = flip_back(heatmaps, shift=False), flip_back(heatmaps)
    np.testing.assert_allclose(plain.sum(2), case["flip_back_sum_rows"], atol=1e-5)
    np.testing.assert_allclose(shifted.sum(2), case["flip_back_shifted_sum_rows"], atol=1e-5)
    np.testing.assert_array_equal(shifted[:, 1:3, ::4], case["flip_back_shifted_kpt1_2"])


def test_similarity_and_suppression() -> None:
    case = load("oks_nms")
    people = case["kpts"], case["areas"]
    np.testing.assert_allclose(oks(*people)[0], case["oks_first_vs_all"], rtol=1e-5)
    np.testing.assert_array_equal(case["sigmas"], SIGMAS)
    for threshold in (0.5, 0.8, 0.9):
        kept = oks_nms(*people, case["scores"], threshold=threshold)
        assert kept == case[f"keep_thr{threshold}"].tolist()
    assert soft_oks_nms(*people, case["scores"], threshold=0.9) == case["keep_soft0.9"].tolist()
    few = soft_oks_nms(*people, case["scores"], threshold=0.5, most=3)
    assert few == case["keep_soft0.5_max3"].tolist()
    by_joint = case["kpts"][..., 2].mean(-1)
    assert oks_nms(*people, by_joint, threshold=0.9) == case["keep_thr0.9_score_per_joint"].tolist()


def test_errors_of_joints() -> None:
    case = load("pck")
    pred, true, mask = (torch.from_numpy(case[name]) for name in ("pred_argmax", "gt_argmax", "mask"))
    relative = distances(pred, true, mask, torch.tensor(SIZE))
    for threshold in (0.05, 0.1, 0.2):
        by_joint, mean = pck(relative, threshold)
        np.testing.assert_allclose(by_joint.nan_to_num(-1.0), case[f"thr{threshold}.acc"])
        assert float(mean) == pytest.approx(float(case[f"thr{threshold}.avg"]))
        assert int((~by_joint.isnan()).sum()) == case[f"thr{threshold}.cnt"]
    assert float(epe(distances(pred, true, mask))) == pytest.approx(float(case["epe"]), rel=1e-6)
    assert float(auc(distances(pred, true, mask))) == pytest.approx(float(case["auc_norm30"]), rel=1e-6)
    by_joint, mean = pck(distances(pred, true, torch.zeros_like(mask)), 0.05)
    assert float(mean) == case["nothing_visible.avg"]
    assert int((~by_joint.isnan()).sum()) == case["nothing_visible.cnt"]


def synthetic(tmp_path: Path, kind: str) -> tuple[dict[str, np.ndarray], People]:
    """The synthetic set's people; its photos are empty files, nobody opens them."""
    case = load("coco_ap_synth")
    for folder in ("annotations", "val2017"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(
        str(case["json_gt"]), encoding="utf-8"
    )
    (tmp_path / "boxes.json").write_text(str(case["json_det"]), encoding="utf-8")
    for image in json.loads(str(case["json_gt"]))["images"]:
        (tmp_path / "val2017" / image["file_name"]).touch()
    split = find_split(tmp_path, "val")
    found = read_keypoints(split.annotations)
    if kind == "gtbox":
        return case, annotated_people(found, split.images)
    return case, detected_people(found, split.images, tmp_path / "boxes.json", smallest_score=0.0)


@pytest.mark.parametrize("kind", ["gtbox", "detbox"])
def test_ten_numbers(tmp_path: Path, kind: str) -> None:
    case, people = synthetic(tmp_path, kind)
    np.testing.assert_array_equal(people.image_ids, case[f"{kind}.image_id"])
    places = np.unique(people.box_ids, return_inverse=True)[1]  # the reference counts boxes of people only
    np.testing.assert_array_equal(places, case[f"{kind}.bbox_id"])
    predicted = torch.from_numpy(case[f"{kind}.preds"])
    boxes = torch.from_numpy(case[f"{kind}.boxes"])
    batch: dict[str, Any] = {
        "image_id": torch.from_numpy(people.image_ids),
        "box_id": torch.from_numpy(people.box_ids),
        "annotation_id": torch.from_numpy(people.annotation_ids),
        "center": boxes[:, :2],
        "scale": boxes[:, 2:4],
        "box_score": torch.from_numpy(people.scores).float(),
        "token": [people.token(index) for index in range(len(people))],
        "annotations": people.annotations,
        "boxes": people.source,
        "set_size": len(people),
    }
    meter = KeypointMeter(read_ground_truth)
    meter.update(predicted[..., :2], predicted[..., 2], batch)
    expected = dict(zip(NUMBERS, case[f"{kind}.stats"], strict=True))
    assert meter.compute() == pytest.approx(expected, abs=1e-6)
    found = sorted((row["image_id"], row["score"]) for row in meter.results())
    listed = zip(case[f"{kind}.result_image_id"], case[f"{kind}.result_scores"], strict=True)
    np.testing.assert_allclose(found, sorted(listed), rtol=1e-6)


def test_padded_boxes_of_the_synthetic_set(tmp_path: Path) -> None:
    case, people = synthetic(tmp_path, "detbox")
    for box, expected in zip(people.boxes, case["detbox.boxes"], strict=True):
        center, scale = place_box(box, (256, 192), 1.25)
        np.testing.assert_allclose([*center, *scale, (scale * 200).prod()], expected[:5], rtol=1e-6)
    detections = read_detections(tmp_path / "boxes.json", people.image_ids)
    np.testing.assert_allclose(detections.scores, case["detbox.boxes"][:, 5], rtol=1e-6)
