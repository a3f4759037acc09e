"""Whole samples of the three SimBEV layouts against what the reference loaders gave."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import load_arrays

from omma.systems.lss.config import LSSConfig
from omma.systems.lss.data import build

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "lss"
MEAN = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
GEOMETRY = {"rots", "trans", "intrins", "post_rots", "post_trans"}


def _unpack(name: str, folder: Path) -> Any:
    case = load_arrays(CASES / f"{name}.npz")
    zipfile.ZipFile(io.BytesIO(case["zip"].tobytes())).extractall(folder)
    return case


def _config(root: Path, **data: Any) -> LSSConfig:
    values = {"root": str(root), "source_size": [56, 120], "image_size": [32, 64], "frame_stride": 1} | data
    return LSSConfig.model_validate_json(json.dumps({"data": values}))


def _assert_images(ours: torch.Tensor, normalised: np.ndarray) -> None:
    """Stored images are normalised float16; ours are uint8 and may differ by the resampler's rounding."""
    levels = (normalised.astype(np.float64) * STD + MEAN) * 255
    difference = np.abs(ours.numpy() - levels)
    assert difference.max() <= 2.1
    assert (difference > 0.5).mean() < 0.02


@pytest.mark.parametrize("index", [0, 1])
def test_seed_layout_validation(tmp_path: Path, index: int) -> None:
    case = _unpack("dataset_seed_layout", tmp_path)
    samples, _ = build(_config(tmp_path, post_scale="nominal"), "val", augment=False)
    assert len(samples) == case["n_val"]
    sample = samples[index]
    for key in GEOMETRY:
        np.testing.assert_allclose(sample[key], case[f"val{index}_{key}"], atol=1e-5, err_msg=key)
    np.testing.assert_array_equal(sample["target"], case[f"val{index}_binimg"])
    _assert_images(sample["images"], case[f"val{index}_imgs"])


def test_seed_layout_training_draws(tmp_path: Path) -> None:
    """With the reference's generator and scale range, the second training sample is drawn alike."""
    case = _unpack("dataset_seed_layout", tmp_path)
    config = _config(tmp_path, post_scale="nominal", augment={"resize": [0.9, 1.1]})
    samples, _ = build(config, "train", augment=True)
    assert [samples.name(index) for index in range(len(samples))] == case["train_tokens_order"].tolist()
    sample = samples.load(1, np.random.RandomState(7))
    for key in GEOMETRY:
        np.testing.assert_allclose(sample[key], case[f"train1_seed7_{key}"], atol=1e-5, err_msg=key)
    np.testing.assert_array_equal(sample["target"], case["train1_seed7_binimg"])
    _assert_images(sample["images"], case["train1_seed7_imgs"])


def test_true_scale_differs_from_the_reference_by_less_than_a_pixel(tmp_path: Path) -> None:
    """The default records what the resize really did; at the source size that is a rounding apart."""
    case = _unpack("dataset_seed_layout", tmp_path)
    sample = build(_config(tmp_path), "val", augment=False)[0][0]
    corners = np.array([[0, 0, 0], [120, 56, 0]])
    ours = corners @ sample["post_rots"][0].numpy().T + sample["post_trans"][0].numpy()
    theirs = corners @ case["val0_post_rots"][0].T + case["val0_post_trans"][0]
    assert 0 < np.abs(ours - theirs).max() < 1


def test_cvt_layout(tmp_path: Path) -> None:
    """Inverted extrinsics and labels turned by 180 degrees; the reference had both wrong, images right."""
    case = _unpack("dataset_cvt_layout", tmp_path)
    config = _config(tmp_path, post_scale="nominal")
    assert len(build(config, "train", augment=False)[0]) == case["n_train"]
    samples, _ = build(config, "val", augment=False)
    assert [samples.name(0)] == case["val_tokens"].tolist()
    sample = samples[0]
    np.testing.assert_allclose(sample["rots"], case["right_rots"], atol=1e-6)
    np.testing.assert_allclose(sample["trans"], case["right_trans"], atol=1e-6)
    np.testing.assert_array_equal(sample["target"][0], case["right_binimg"][0])
    for key in ("intrins", "post_rots", "post_trans"):
        np.testing.assert_allclose(sample[key], case[f"reference_{key}"], atol=1e-5)
    _assert_images(sample["images"], case["reference_imgs"])
    wrong = build(_config(tmp_path, invert_extrinsics=True), "val", augment=False)[0][0]
    np.testing.assert_allclose(wrong["rots"], case["reference_rots"], atol=1e-6)
    np.testing.assert_allclose(wrong["trans"], case["reference_trans"], atol=1e-6)


def test_official_layout(tmp_path: Path) -> None:
    case = _unpack("dataset_official_layout", tmp_path)
    sample = build(_config(tmp_path), "train", augment=False)[0][0]
    np.testing.assert_allclose(sample["rots"], case["cam2ego"][:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(sample["trans"], case["cam2ego"][:, :3, 3], atol=1e-6)
    np.testing.assert_allclose(sample["intrins"], np.stack([case["K"]] * 6), atol=1e-5)
    vehicles = np.unpackbits(case["vehicle_lss_200_nearest_train"], axis=-1)
    np.testing.assert_array_equal(sample["target"][0], vehicles)


def test_official_layout_in_the_authors_crop(tmp_path: Path) -> None:
    """All eight classes at 0.4 m within 51.2 m, as the data set's author loads them."""
    case = _unpack("dataset_official_layout", tmp_path)
    axis = [-51.2, 51.2, 0.4]
    system = {
        "grid": {"x": axis, "y": axis},
        "targets": {name: [name] for name in case["train_classes"].tolist()},
    }
    config = LSSConfig.model_validate_json(
        json.dumps({"system": system, "data": {"root": str(tmp_path), "frame_stride": 1}})
    )
    sample = build(config, "train", augment=False)[0][0]
    expected = np.unpackbits(case["gt_rot180_crop256_train"], axis=-1)[..., :256]
    np.testing.assert_array_equal(sample["target"], expected)
    fourteen = {"grid": {"x": axis, "y": axis}, "targets": {"lines": ["road_line", "crosswalk"]}}
    later = LSSConfig.model_validate_json(json.dumps({"system": fourteen, "data": {"root": str(tmp_path)}}))
    assert build(later, "val", augment=False)[0][0]["target"].shape == (1, 256, 256)
