"""Scores of the reference on six images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fill import load_arrays

from omma.core.occupancy_meter import OccupancyMeter

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "diffbev"


@pytest.fixture(scope="module")
def case():
    return load_arrays(CASES / "metric_iou.npz")


def _meter(case, batches):
    meter = OccupancyMeter([f"c{index}" for index in range(14)])
    labels = torch.from_numpy(case["labels"])
    logits = torch.logit(torch.from_numpy(case["prob"]).double())
    for batch in batches:
        tokens = [str(index) for index in batch]
        meter.update(logits[batch], labels[batch, :14], labels[batch, 14:], tokens)
    return meter


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4, 5]], [[0], [1, 2, 3], [4, 5]]])
def test_counts_and_means_equal_the_references(case, batches):
    meter = _meter(case, batches)
    counts = meter.state()["images"]
    for index, name in enumerate(("tp", "fp", "fn")):
        np.testing.assert_array_equal(counts[:, index], case[name])
    values = meter.compute()
    by_class = [values[f"IoU_c{index}"] for index in range(14)]
    np.testing.assert_allclose(by_class, case["iou_per_class"], rtol=1e-6)
    assert values["mIoU"] == pytest.approx(float(case["mIoU_valid_only"]), rel=1e-6)
    assert values["mIoUv1"] == pytest.approx(float(case["mIoUv1"]), rel=1e-6)
    assert values["mIoUv2"] == pytest.approx(float(case["mIoUv2"]), rel=1e-6)
    assert values["classes"] == case["valid"].any(0).sum()
    by_image = [row["iou"] for row in meter.per_sample()]
    np.testing.assert_allclose(by_image, case["scalar_iou_per_image"], rtol=1e-6)


def test_nothing_visible_is_not_a_number(case):
    meter = OccupancyMeter(["a"])
    empty = torch.zeros(1, 1, 4, 4)
    meter.update(empty, empty > 0, empty > 0, ["x"])
    assert np.isnan(meter.compute()["mIoU"])
    assert np.isnan(meter.per_sample()[0]["iou"])
    assert np.isnan(float(case["scalar_iou_empty"]))


def test_perfect_logits_score_one_and_a_constant_answer_its_visible_share(case):
    labels = torch.from_numpy(case["labels"])
    target, visible = labels[:, :14], labels[:, 14:]
    tokens = [str(index) for index in range(len(labels))]
    perfect, constant = (OccupancyMeter([f"c{index}" for index in range(14)]) for _ in range(2))
    perfect.update(target * 20.0 - 10.0, target, visible, tokens)
    assert perfect.compute()["mIoU"] == 1.0
    everywhere = torch.full(target.shape, -10.0)
    everywhere[:, 0] = 10.0
    constant.update(everywhere, target, visible, tokens)
    share = (target[:, :1] & visible).sum() / visible.sum()
    assert constant.compute()["IoU_c0"] == pytest.approx(float(share), rel=1e-6)
    assert constant.compute()["IoU_c1"] == 0.0
