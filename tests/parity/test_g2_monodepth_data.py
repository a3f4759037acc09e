"""Joint changes, input depth, scan patterns and scores against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fill import load_arrays

from omma.core.depth_meter import DepthMeter, PaperMeter
from omma.core.depth_metrics import (
    SEVEN,
    export_16_bit,
    metrics_of_sums,
    official_metrics,
    pair_indices,
    pixel_sums,
    relative_metrics,
    scale_to_median,
)
from omma.systems.g2_monodepth.changes import crop_resize_colour, crop_resize_depth
from omma.systems.g2_monodepth.degrade import add_noise, blur_nearest, relocation_range
from omma.systems.g2_monodepth.patterns import scan_pattern, thin

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "g2_monodepth"


@pytest.mark.parametrize("name", ["a", "b", "c", "same"])
def test_crop_and_resize(name: str) -> None:
    case = load_arrays(CASES / "augment.npz")
    window = tuple(int(value) for value in case[f"rrc_{name}.ijhw"])
    expected = case[f"rrc_{name}.out_tol"]
    size = expected.shape[1:]
    np.testing.assert_allclose(
        crop_resize_depth(case["img"][3], window, size, "bilinear"), expected[3], atol=1e-6
    )
    colour = (255 * case["img"][:3]).round().astype(np.uint8).transpose(1, 2, 0)
    resized = crop_resize_colour(colour, window, size).transpose(2, 0, 1) / 255
    assert np.abs(resized - expected[:3]).max() < 1.5 / 255  # eight bits are rounded three times


def test_noise() -> None:
    case = load_arrays(CASES / "augment.npz")
    noisy = add_noise(case["gt"], case["noise.field"], case["noise.uniform"], float(case["noise.zero_rate"]))
    np.testing.assert_array_equal(np.clip(noisy, 0, 1), case["noise.out"])


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_blur(factor: int) -> None:
    case = load_arrays(CASES / "augment.npz")
    np.testing.assert_array_equal(blur_nearest(case["gt"], factor), case[f"blur.out{factor}"])


def test_blur_of_odd_sizes() -> None:
    case = load_arrays(CASES / "augment.npz")
    np.testing.assert_array_equal(blur_nearest(case["blur.odd_in"], 4), case["blur.odd_out4"])


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.97, 1.0])
def test_sampling(rate: float) -> None:
    case = load_arrays(CASES / "augment.npz")
    sampled = np.where(thin(case["sample.uniform"], rate), case["gt"], 0)
    np.testing.assert_array_equal(sampled, case[f"sample.out_{rate}"])


def test_relocation() -> None:
    for largest, upper in load_arrays(CASES / "augment.npz")["relocate.upper"]:
        assert relocation_range(np.array([[0.0, largest]])) == pytest.approx((0.8, upper), rel=1e-9)


@pytest.mark.parametrize("size", [(480, 640), (240, 320)])
@pytest.mark.parametrize("lines", [8, 16, 32, 64])
def test_scan_pattern(size: tuple[int, int], lines: int) -> None:
    expected = load_arrays(CASES / "lidar_pattern.npz")[f"{size[0]}x{size[1]}.LiDAR_{lines}"]
    np.testing.assert_array_equal(np.flatnonzero(scan_pattern(size, lines)), np.sort(expected))


@pytest.mark.parametrize(("prefix", "smallest"), [("raw", None), ("clamped_1e-3", 1e-3)])
def test_seven_scores(prefix: str, smallest: float | None) -> None:
    case = load_arrays(CASES / "metrics_seed.npz")
    pred, gt = torch.from_numpy(case["pred"]), torch.from_numpy(case["gt"])
    sums = {name: values.numpy() for name, values in pixel_sums(pred, gt, smallest=smallest).items()}
    by_image = metrics_of_sums({name: values[sums["count"] > 0] for name, values in sums.items()})
    pooled = metrics_of_sums({name: values.sum() for name, values in sums.items()})
    for name in SEVEN:
        np.testing.assert_allclose(by_image[name], case[f"per_image_{prefix}.{name}"], rtol=1e-6)
        np.testing.assert_allclose(pooled[name], case[f"batch_{prefix}.{name}"], rtol=1e-6)


def test_meter_names_both_averages() -> None:
    case = load_arrays(CASES / "metrics_seed.npz")
    meter = DepthMeter()
    meter.update(torch.from_numpy(case["pred"]), torch.from_numpy(case["gt"]), list("abcd"))
    scores = meter.compute()
    for name in SEVEN:
        mean = case[f"per_image_clamped_1e-3.{name}"].astype(np.float64).mean()
        assert scores[name] == pytest.approx(mean, rel=1e-6)
        assert scores[f"pooled/{name}"] == pytest.approx(float(case[f"batch_clamped_1e-3.{name}"]), rel=1e-6)
    assert (scores["images"], scores["images_without_depth"]) == (3, 1)


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_of_the_users_fork(scaled: bool) -> None:
    case = load_arrays(CASES / "ours_losses.npz")
    pred, gt = torch.from_numpy(case["pred"]), torch.from_numpy(case["gt"])
    pred = scale_to_median(pred, gt) if scaled else pred
    sums = {name: values.numpy() for name, values in pixel_sums(pred, gt, smallest=None).items()}
    scores = metrics_of_sums(sums)
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
    expected = case["metrics_median_scaled" if scaled else "metrics"]
    np.testing.assert_allclose([scores[name].mean() for name in names], expected, rtol=1e-5)


def test_export_of_predictions() -> None:
    case = load_arrays(CASES / "metrics_official.npz")
    np.testing.assert_array_equal(export_16_bit(case["net"], relative=False), case["adjust_abs"])
    np.testing.assert_array_equal(export_16_bit(case["net"], relative=True), case["adjust_rel"])


@pytest.mark.parametrize("kind", ["abs", "rel"])
def test_official_scores(kind: str) -> None:
    case = load_arrays(CASES / "metrics_official.npz")
    gt16 = case["gt16"].astype(np.uint16)
    predicted = case[f"adjust_{kind}"]
    scores = official_metrics(predicted, gt16) | relative_metrics(predicted, gt16)
    assert scores["rmse_official"] == pytest.approx(float(case[f"rmse_{kind}"]), rel=1e-6)
    assert scores["abs_rel_official"] == pytest.approx(float(case[f"absrel_{kind}"]), rel=1e-6)
    assert scores["srmse"] == pytest.approx(float(case[f"srmse_{kind}"]), rel=1e-6)
    assert scores["oe"] == pytest.approx(float(case[f"oe_{kind}"]), rel=1e-6)
    assert max([*official_metrics(gt16, gt16).values(), *relative_metrics(gt16, gt16).values()]) == 0
    metres = scores["rmse_official"] * 256 / 65535 * 20
    if kind == "abs":
        assert metres == pytest.approx(float(case["rmse_in_metres_if_max_depth_20"]), rel=1e-6)


def test_pairs_of_the_ordinal_error() -> None:
    case = load_arrays(CASES / "metrics_official.npz")
    first, second = pair_indices(int((case["gt16"] != 0).sum()))
    np.testing.assert_array_equal(first, case["oe_index_a"])
    np.testing.assert_array_equal(second, case["oe_index_b"])


def test_paper_meter_takes_the_scores_that_an_image_is_for() -> None:
    case = load_arrays(CASES / "metrics_official.npz")
    gt = torch.from_numpy((case["gt16"] / 65535).astype(np.float32))[None, None]
    pred = torch.from_numpy(case["net"])[None, None]
    meter = PaperMeter()
    meter.update(pred.repeat(2, 1, 1, 1), gt.repeat(2, 1, 1, 1), torch.cat([gt, 0 * gt]))
    scores = meter.compute()
    assert scores["rmse_official"] == pytest.approx(float(case["rmse_abs"]), rel=1e-6)
    assert scores["abs_rel_official"] == pytest.approx(float(case["absrel_abs"]), rel=1e-6)
    assert scores["srmse"] == pytest.approx(float(case["srmse_rel"]), rel=1e-6)
    assert scores["oe"] == pytest.approx(float(case["oe_rel"]), rel=1e-6)
