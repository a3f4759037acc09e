"""Depth scores: values by hand, independence of batches and processes, images without depth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omma.core.depth_meter import DepthMeter, DistanceMeter, PaperMeter
from omma.core.depth_metrics import (
    MORE,
    SEVEN,
    crop_window,
    fit_scale_and_shift,
    metrics_of_sums,
    official_metrics,
    pair_indices,
    pixel_sums,
    relative_metrics,
    scale_to_median,
    scored_depth,
)


def one(pred: list[float], gt: list[float]) -> dict[str, float]:
    tensors = (torch.tensor(values, dtype=torch.float64)[None, None, None] for values in (pred, gt))
    sums = {name: values.numpy() for name, values in pixel_sums(*tensors).items()}
    return {name: float(values[0]) for name, values in metrics_of_sums(sums).items()}


def test_scores_by_hand() -> None:
    scores = one([2.0, 5.0, 9.0], [1.0, 4.0, 0.0])
    assert scores["rmse"] == pytest.approx(1)
    assert scores["mae"] == pytest.approx(1)
    assert scores["abs_rel"] == pytest.approx((1 + 0.25) / 2)
    assert scores["sq_rel"] == pytest.approx((1 + 0.25) / 2)
    logs = [math.log(2), math.log(1.25)]
    assert scores["rmse_log"] == pytest.approx(math.sqrt(sum(v * v for v in logs) / 2))
    assert scores["silog"] == pytest.approx(100 * abs(logs[0] - logs[1]) / 2)
    assert scores["log10"] == pytest.approx((math.log10(2) + math.log10(1.25)) / 2)
    assert scores["irmse"] == pytest.approx(math.sqrt((500**2 + 50**2) / 2))
    assert scores["imae"] == pytest.approx(275)
    assert one([-1.0, 2.0], [2.0, 2.0])["imae"] == pytest.approx(250)  # inverse depth 0 for the first


def test_thresholds_are_strict() -> None:
    scores = one([1.25, 1.5, 1.0, 1.03], [1.0, 1.0, 1.0, 1.0])
    assert scores["delta1"] == 0.5
    assert scores["delta2"] == 1.0  # 1.5 < 1.5625
    assert (scores["delta_1.02"], scores["delta_1.05"]) == (0.25, 0.5)


def test_negative_predictions_are_no_hits() -> None:
    assert one([-2.0], [1.0])["delta3"] == 0
    meter = DepthMeter()
    pred, gt = torch.tensor([[[[-2.0, 1.0, -1.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
    meter.update(pred, gt, ["a"])
    assert meter.compute()["negative_share"] == 0.5


def test_what_is_unknown_does_not_matter() -> None:
    assert one([2.0, math.nan, math.inf], [1.0, 0.0, 0.0]) == one([2.0], [1.0])
    assert math.isnan(one([math.nan, 1.0], [1.0, 1.0])["rmse"])


def maps(seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(seed)
    gt = (
        5
        * torch.rand(number, 1, 7, 9, generator=generator)
        * (
            torch.rand(number, 1, 7, 9, generator=generator)
            > torch.rand(number, 1, 1, 1, generator=generator)
        )
    )
    pred = gt + 0.5 * torch.randn(gt.shape, generator=generator)
    gt[2] = 0
    return pred, gt, [f"image{index}" for index in range(number)]


def test_meter_does_not_depend_on_batches_order_or_processes() -> None:
    pred, gt, tokens = maps(0, 7)
    whole = DepthMeter(more=True)
    whole.update(pred, gt, tokens)
    parts = [DepthMeter(more=True) for _ in range(2)]
    for index in reversed(range(7)):
        parts[index % 2].update(pred[index : index + 1], gt[index : index + 1], tokens[index : index + 1])
    empty = DepthMeter(more=True)
    empty.merge([empty.state(), *(part.state() for part in parts)])
    assert empty.compute() == whole.compute()
    assert tuple(whole.compute()) == whole.names
    assert whole.compute()["images_without_depth"] == 1
    assert sorted(map(str, empty.per_sample())) == sorted(map(str, whole.per_sample()))


def test_both_averages_differ_as_images_hold_different_numbers_of_pixels() -> None:
    meter = DepthMeter()
    gt = torch.ones(2, 1, 1, 4)
    gt[1, 0, 0, 1:] = 0
    pred = gt.clone()
    pred[1] += 1
    meter.update(pred, gt, ["a", "b"])
    assert meter.compute()["mae"] == pytest.approx(0.5)
    assert meter.compute()["pooled/mae"] == pytest.approx(0.2)
    assert [row["pixels"] for row in meter.per_sample()] == [4, 1]


def test_rows_of_images() -> None:
    pred, gt, tokens = maps(1, 4)
    meter = DepthMeter()
    meter.update(pred, gt, tokens)
    rows = meter.per_sample()
    assert list(rows[0]) == ["token", "pixels", *SEVEN]
    assert rows[2]["rmse"] is None
    assert np.mean([row["rmse"] for row in rows if row["rmse"] is not None]) == pytest.approx(
        meter.compute()["rmse"]
    )
    assert not set(MORE) & set(rows[0])


def test_alignment_by_the_median() -> None:
    gt = torch.tensor([[[[1.0, 2.0, 4.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    pred = torch.tensor([[[[2.0, 4.0, 9.0, 50.0]]], [[[1.0, 2.0, 3.0, 4.0]]]])
    scaled = scale_to_median(pred, gt)
    assert scaled[0].flatten().tolist() == [1.0, 2.0, 4.5, 25.0]
    assert torch.equal(scaled[1], pred[1])
    negative = torch.full_like(pred, -1.0)
    assert torch.equal(scale_to_median(negative, gt), negative)


def test_alignment_by_scale_and_shift() -> None:
    gt = torch.tensor([[[[1.0, 2.0, 4.0, 0.0]]], [[[0.0, 0.0, 0.0, 0.0]]], [[[1.0, 3.0, 0.0, 0.0]]]])
    pred = torch.tensor([[[[5.0, 7.0, 11.0, 1.0]]], [[[1.0, 2.0, 3.0, 4.0]]], [[[7.0, 7.0, 7.0, 7.0]]]])
    fitted = fit_scale_and_shift(pred, gt)
    assert fitted[0].flatten().tolist() == pytest.approx([1.0, 2.0, 4.0, -1.0])
    assert torch.equal(fitted[1], pred[1])
    assert fitted[2].unique().tolist() == [2.0]
    noisy = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    line = fit_scale_and_shift(noisy, torch.tensor([[[[1.0, 4.0, 4.0]]]]))  # 1.5 + 1.5 x
    assert line.flatten().tolist() == pytest.approx([1.5, 3.0, 4.5])


def test_crops() -> None:
    assert crop_window("garg", (375, 1242)) == (slice(153, 371), slice(44, 1197))
    assert crop_window("nyu", (480, 640)) == (slice(45, 471), slice(41, 601))
    assert crop_window("eigen", (375, 1242)) == (slice(124, 342), slice(44, 1197))


def test_depths_that_do_not_count() -> None:
    gt = torch.arange(6.0).view(1, 1, 1, 6)
    assert scored_depth(gt).tolist() == gt.tolist()
    assert scored_depth(gt, min_depth=1, max_depth=4).flatten().tolist() == [0, 0, 2, 3, 0, 0]
    counted = scored_depth(torch.ones(2, 1, 480, 640), crop="nyu")
    assert counted.sum() == 2 * 426 * 560
    assert not counted[:, :, :45].any()
    meter = DepthMeter()
    meter.update(torch.ones(1, 1, 1, 6), scored_depth(gt, max_depth=4), ["a"])
    assert meter.per_sample()[0]["pixels"] == 3


def test_prefix() -> None:
    meter = DepthMeter(prefix="none/")
    assert tuple(meter.compute()) == meter.names
    assert np.isnan(meter.compute()["none/rmse"])
    meter.update(torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 3), ["a"])
    assert meter.compute()["none/rmse"] == 0
    assert meter.per_sample() == []  # the whole set's meter has them, and the pooled scores
    assert meter.names == tuple(f"none/{name}" for name in SEVEN)
    assert tuple(meter.compute()) == meter.names


def test_meters_before_the_first_image() -> None:
    meter = DepthMeter()
    assert meter.compute()["images"] == 0
    assert math.isnan(meter.compute()["rmse"])
    assert meter.per_sample() == []
    assert all(math.isnan(value) for value in PaperMeter().compute().values())


def test_all_images_without_depth() -> None:
    meter = DepthMeter()
    meter.update(torch.ones(2, 1, 1, 3), torch.zeros(2, 1, 1, 3), ["a", "b"])
    assert meter.compute()["images_without_depth"] == 2
    assert math.isnan(meter.compute()["pooled/rmse"])


def test_paper_scores_join() -> None:
    pred, gt, _ = maps(2, 5)
    raw = gt * (torch.arange(5) % 2).view(5, 1, 1, 1)
    whole, parts = PaperMeter(), [PaperMeter(), PaperMeter()]
    whole.update(pred / 5, gt / 5, raw / 5)
    for index in range(5):
        one_of = slice(index, index + 1)
        parts[index % 2].update(pred[one_of] / 5, gt[one_of] / 5, raw[one_of] / 5)
    joined = PaperMeter()
    joined.merge([part.state() for part in parts])
    assert joined.compute() == whole.compute()


def test_official_scores_without_depth_or_pairs() -> None:
    empty = official_metrics(np.ones((2, 2), np.uint16), np.zeros((2, 2), np.uint16))
    assert all(math.isnan(value) for value in empty.values())
    none = relative_metrics(np.ones((2, 2), np.uint16), np.zeros((2, 2), np.uint16))
    assert all(math.isnan(value) for value in none.values())
    few = relative_metrics(np.ones((1, 3), np.uint16), np.ones((1, 3), np.uint16))
    assert few["srmse"] == 0
    assert math.isnan(few["oe"])


def test_pairs_are_made_once() -> None:
    assert pair_indices(100)[0] is pair_indices(100)[0]
    assert len(pair_indices(100)[0]) == 30


def test_error_by_distance_to_the_given_depths() -> None:
    gt = torch.full((1, 1, 1, 100), 2.0)
    gt[..., 99] = 0
    raw = torch.zeros_like(gt)
    raw[..., 0] = 2
    pred = 2 + torch.arange(100.0).view(1, 1, 1, 100)
    whole = DistanceMeter()
    whole.update(pred, gt, raw)
    whole.update(pred + 5, gt, 0 * raw)  # nothing given: no distance
    expected = [0, 2, (4 + 15) / 2, (16 + 63) / 2, (64 + 98) / 2]
    assert list(whole.compute().values()) == pytest.approx(expected)
    assert list(whole.compute()) == ["mae/0_1px", "mae/1_4px", "mae/4_16px", "mae/16_64px", "mae/64px_on"]
    joined = DistanceMeter()
    assert all(math.isnan(value) for value in joined.compute().values())
    joined.merge([joined.state(), whole.state()])
    assert joined.compute() == whole.compute()
