"""Loss and metrics of LSS against the reference's, and SimBEV's own map metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fill import load_arrays

from omma.core.losses import binary_cross_entropy
from omma.core.meter import BinaryIoUMeter, MeanMeter
from omma.core.metrics import SIMBEV_THRESHOLDS, batch_iou, confusion_counts, simbev_iou

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "lss"


@pytest.mark.parametrize("pos_weight", [2.13, 1.0])
@pytest.mark.parametrize("name", ["random", "zero_target", "all_ones", "extreme", "multi"])
def test_simple_loss(name: str, pos_weight: float) -> None:
    case = load_arrays(CASES / "simple_loss.npz")
    logits = torch.from_numpy(case[f"{name}_logits"]).requires_grad_()
    loss = binary_cross_entropy(logits, torch.from_numpy(case[f"{name}_target"]), pos_weight=pos_weight)
    loss.backward()
    np.testing.assert_allclose(loss.detach().numpy(), case[f"{name}_loss_pw{pos_weight}"], rtol=1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), case[f"{name}_grad_pw{pos_weight}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["normal", "empty_both", "empty_target", "empty_pred", "zero_logit", "soft_target"]
)
def test_iou(name: str) -> None:
    case = load_arrays(CASES / "iou.npz")
    logits, target = (torch.from_numpy(case[f"{name}_{part}"]) for part in ("logits", "target"))
    tp, fp, fn = (int(count.sum()) for count in confusion_counts(logits > 0, target))
    intersection, union, iou = case[f"{name}_intersect_union_iou"].tolist()
    assert (tp, tp + fp + fn) == (intersection, union)
    assert float(batch_iou(logits, target)) == iou


def test_iou_over_batches_is_pooled() -> None:
    """Loss and IoU of a validation set with a short last batch."""
    case = load_arrays(CASES / "iou.npz")
    loss, iou = MeanMeter("loss"), BinaryIoUMeter(["vehicle"])
    for start, stop in case["val_batches"].tolist():
        logits, target = (torch.from_numpy(case[f"val_{part}"][start:stop]) for part in ("logits", "target"))
        loss.update(float(binary_cross_entropy(logits, target, pos_weight=2.13)), stop - start)
        iou.update(logits, target, tokens=[str(index) for index in range(start, stop)])
    assert loss.compute()["loss"] == pytest.approx(float(case["val_loss"]), abs=1e-6)
    assert iou.compute()["iou"] == float(case["val_iou"])
    mean_of_images = np.mean([row["iou"] for row in iou.per_sample()])
    assert mean_of_images == pytest.approx(float(case["val_iou_mean_of_images"]))


def test_simbev_map_iou() -> None:
    """Every class and threshold, the best of each class, and the mean over classes."""
    case = load_arrays(CASES / "simbev_map_iou.npz")
    expected = dict(zip(case["metric_names"].tolist(), case["metric_values"].tolist(), strict=True))
    values = simbev_iou(torch.from_numpy(case["probs"]), torch.from_numpy(case["labels"])).numpy()
    ours = {}
    for name, row in zip(case["classes"].tolist(), values, strict=True):
        ours[f"map/{name}/IoU@max"] = row.max()
        ours |= {f"map/{name}/IoU@{t:.2f}": v for t, v in zip(SIMBEV_THRESHOLDS, row, strict=True)}
    ours["map/mean/IoU@max"] = values.max(1).mean()
    ours |= {f"map/mean/IoU@{t:.2f}": v for t, v in zip(SIMBEV_THRESHOLDS, values.mean(0), strict=True)}
    assert set(expected) <= set(ours)
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name
