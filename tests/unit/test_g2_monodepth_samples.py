"""Samples, layouts and checks of G2-MonoDepth on small folders, and on real pictures if present."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from rgbd_files import real, scene, write, write_pairs

from omma.data.formats.rgbd import DepthFile, ImageFile, RgbdFrame
from omma.errors import ConfigError, DataError
from omma.systems.g2_monodepth import checks
from omma.systems.g2_monodepth.changes import (
    central_window,
    changed_intrinsics,
    crop_resize_colour,
    crop_resize_depth,
    draw_window,
    jitter_colours,
)
from omma.systems.g2_monodepth.degrade import GUIDE, Degradation
from omma.systems.g2_monodepth.layouts import find_layout, read_frames
from omma.systems.g2_monodepth.samples import TrainingSamples, ValidationSamples, collate, read_arrays
from omma.systems.g2_monodepth.sheet import UNKNOWN, draw_depth, draw_inputs

SIZE = (32, 48)
PATTERNS = ("none", "uniform:5%", "full")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "train", 4)
    write_pairs(tmp_path / "val", 2, first=4)
    (tmp_path / "rgbd.json").write_text(json.dumps({"units_per_metre": 1000, "max_depth": 10}), "utf-8")
    return tmp_path


def training(root: Path, **kwargs: object) -> TrainingSamples:
    samples = TrainingSamples(read_frames(root, "train"), SIZE, degradation=Degradation(), **kwargs)
    samples.seed = 3
    return samples


def equal(first: dict, second: dict) -> bool:
    return all(
        torch.equal(value.nan_to_num(), second[key].nan_to_num())
        if isinstance(value, torch.Tensor)
        else value == second[key]
        for key, value in first.items()
    )


def test_a_batch(root: Path) -> None:
    samples = training(root)
    batch = collate([samples[0, index] for index in range(4)])
    assert batch["rgb"].shape == (4, 3, *SIZE)
    assert batch["rgb"].dtype == torch.uint8
    for key in ("depth", "point", "hole_point"):
        assert batch[key].shape == (4, 1, *SIZE)
        assert batch[key].dtype == torch.float32
    assert torch.equal(batch["point"] > 0, batch["hole_point"] == 1)
    assert set(batch["hole_point"].unique().tolist()) <= {0.0, 1.0}
    assert batch["max_depth"].tolist() == [10.0] * 4
    assert batch["token"] == [f"train/{index:03d}" for index in range(4)]
    assert 0.05 < batch["depth"][batch["depth"] > 0].min() < batch["depth"].max() <= 1


def test_training_is_a_function_of_seed_epoch_and_index(root: Path) -> None:
    samples = training(root)
    again = pickle.loads(pickle.dumps(samples))
    assert equal(samples[2, 1], again[2, 1])
    assert not torch.equal(samples[2, 1]["rgb"], samples[3, 1]["rgb"])
    again.seed = 4
    assert not torch.equal(samples[2, 1]["rgb"], again[2, 1]["rgb"])


def test_validation_is_the_same_always(root: Path) -> None:
    samples = ValidationSamples(read_frames(root, "val"), SIZE, patterns=PATTERNS)
    other = ValidationSamples(read_frames(root, "val")[::-1], SIZE, patterns=PATTERNS[::-1])
    other.seed = 99
    assert len(samples) == 6
    assert [samples.name(index) for index in range(3)] == [f"val/004@{name}" for name in PATTERNS]
    for index in range(6):
        assert equal(samples[0, index], samples[7, index])
        assert equal(samples[0, index], other[0, 5 - index])
        assert samples[0, index]["token"] == samples.name(index)
    shares = [float(samples[index]["hole_point"].mean()) for index in range(3)]
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.05, abs=0.03)
    assert shares[2] == 1
    given = samples[1]["point"]
    assert torch.equal(given[given > 0], samples[1]["depth"][given > 0])


def test_validation_at_the_pictures_own_size(root: Path) -> None:
    samples = ValidationSamples(read_frames(root, "val"), None, patterns=("full",))
    image, depth = scene(4)
    np.testing.assert_array_equal(samples[0]["rgb"].permute(1, 2, 0), image)
    np.testing.assert_allclose(samples[0]["depth"][0] * 10, depth, atol=6e-4)
    assert samples.name(0) == "val/004"
    assert len(samples.files()) == 4


def test_colours_and_mirror_move_together(tmp_path: Path) -> None:
    """The picture shows its depth, so that any change of one alone is seen."""
    _, depth = scene(0, (64, 96))
    grey = np.repeat(np.rint(depth * 40).astype(np.uint8)[..., None], 3, 2)
    write(tmp_path / "rgb" / "a.png", grey)
    write(tmp_path / "depth" / "a.png", np.rint(depth * 1000).astype(np.uint16))
    frames = read_frames(tmp_path, "train", units_per_metre=1000, max_depth_m=10)
    samples = TrainingSamples(frames, SIZE, degradation=GUIDE)
    for epoch in range(12):
        sample = samples[epoch, 0]
        known = sample["depth"][0] > 0
        correlation = np.corrcoef(sample["rgb"][0][known], sample["depth"][0][known])[0, 1]
        assert correlation > 0.99


def measured(folder: Path) -> list[RgbdFrame]:
    write_pairs(folder, 1)
    (folder / "raw").mkdir()
    raw = scene(0)[1] + 0.1
    raw[:, ::2] = 0
    np.save(folder / "raw" / "000.npy", raw.astype(np.float32))
    return read_frames(folder, "train", units_per_metre=1000, max_depth_m=10)


def test_measured_depth_is_kept(tmp_path: Path) -> None:
    frames = measured(tmp_path)
    samples = TrainingSamples(frames, (48, 64), degradation=Degradation(), depth_resize="nearest")
    for epoch in range(5):
        sample = samples[epoch, 0]
        given = sample["point"] > 0
        ratio = (sample["point"] / sample["depth"])[given]
        assert sample["pattern"] == "measured"
        assert 0.4 < given.float().mean() < 0.6
        assert 1.01 < ratio.min() < ratio.max() < 1.12  # both are scaled together
    made = TrainingSamples(frames, (48, 64), degradation=Degradation(), measured=0.5)
    assert {made[epoch, 0]["pattern"] for epoch in range(20)} == {"mixture", "measured"}
    val = ValidationSamples(frames, None, patterns=("measured",))
    np.testing.assert_allclose(val[0]["point"][0] * 10, frames[0].raw.read(), rtol=1e-6)


def test_windows() -> None:
    for seed in range(200):
        top, left, height, width = draw_window(np.random.default_rng(seed), (60, 90), SIZE)
        assert 0 <= top <= top + height <= 60
        assert 0 <= left <= left + width <= 90
        assert 0.6 * 32 * 48 < height * width <= 32 * 48
    assert central_window((480, 640), (240, 320)) == (0, 0, 480, 640)
    assert central_window((375, 1242), (320, 320)) == (0, 433, 375, 375)


@pytest.mark.parametrize(("how", "least"), [("bilinear", 0.0), ("nearest", 0.02), ("scatter", 0.045)])
def test_sparse_depth_survives_what_it_should(how: str, least: float) -> None:
    depth = np.where(np.random.default_rng(0).random((96, 96)) < 0.04, 3.0, 0).astype(np.float32)
    small = crop_resize_depth(depth, (10, 10, 80, 80), (64, 64), how)
    share = (small > 0).mean()
    assert (share > least) if least else share == 0
    assert set(np.unique(small)) <= {0.0, 3.0}
    if how == "scatter":
        np.testing.assert_array_equal(small, crop_resize_depth(depth, (10, 10, 80, 80), (64, 64), "auto"))


def test_changed_intrinsics_see_the_same_point() -> None:
    matrix = np.array([[60.0, 0, 45], [0, 60, 30], [0, 0, 1]])
    u, v = 50.0, 40.0
    changed = changed_intrinsics(matrix, (10, 20, 40, 60), (80, 90), mirrored=True)
    ray = np.linalg.inv(matrix) @ [u, v, 1]
    ray[0] *= -1  # the mirrored camera looks from the other side
    np.testing.assert_allclose(changed @ ray, [90 - (u - 20) * 1.5, (v - 10) * 2, 1])


def test_colour_jitter_is_mild() -> None:
    image = scene(0)[0]
    np.testing.assert_array_equal(crop_resize_colour(image, (4, 5, 20, 30), (20, 30)), image[4:24, 5:35])
    for hue in (False, True):
        first, second = (jitter_colours(image, np.random.default_rng(1), hue=hue) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.uint8
        assert 1 < np.abs(first.astype(int) - image).mean() < 80


def one_frame(folder: Path, depth: np.ndarray, units: float = 1000.0) -> RgbdFrame:
    image = write(folder / "image.png", scene(0)[0])
    return RgbdFrame("one", "set", ImageFile(image), DepthFile(write(folder / "d.png", depth), units), 10.0)


def load(frame: RgbdFrame, size: tuple[int, int] = SIZE) -> dict:
    return TrainingSamples([frame], size, degradation=Degradation())[0, 0]


def test_mistakes_are_one_line_each(tmp_path: Path) -> None:
    good = np.rint(scene(0)[1] * 1000).astype(np.uint16)
    cases = {
        "all are 0": np.zeros_like(good),
        "depth is 20 x 64": good[:20],
        "expected a 16-bit": (good // 256).astype(np.uint8),
    }
    for message, depth in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            load(one_frame(tmp_path, depth))
        assert "d.png" in caught.value.message
        assert "(sample one)" in caught.value.message
    with pytest.raises(DataError, match=r"image.png.*48 x 64, smaller than the crop of 50 x 64"):
        load(one_frame(tmp_path, good), (50, 64))
    with pytest.raises(DataError, match="exceed max_depth 10 m") as caught:
        load(one_frame(tmp_path, good, 1.0))
    assert "factor 1000" in caught.value.hint


def test_depth_beyond_max_depth_is_unknown(tmp_path: Path) -> None:
    depth = np.full((48, 64), 5000, np.uint16)
    depth[:10] = 10001
    _, normalised, raw = read_arrays(one_frame(tmp_path, depth), measured=True)
    assert raw is None
    assert not normalised[:10].any()
    np.testing.assert_allclose(normalised[10:], 0.5)


def test_sizes_of_a_batch_must_agree(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    write_pairs(tmp_path, 1, first=1, size=(40, 40))
    frames = read_frames(tmp_path, "train", units_per_metre=1000, max_depth_m=10)
    samples = ValidationSamples(frames, None, patterns=("full",))
    with pytest.raises(DataError, match="40 x 40, 48 x 64"):
        collate([samples[0], samples[1]])


def test_layouts(root: Path, tmp_path: Path) -> None:
    assert find_layout(root) == "folders"
    with pytest.raises(DataError, match="no such folder"):
        find_layout(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no layout is recognised"):
        find_layout(tmp_path / "empty")
    half = read_frames(root, "train", max_depth_m=5)[0]
    assert (half.max_depth_m, half.depth.units_per_metre) == (5, 1000)
    (root / "rgbd.json").unlink()
    with pytest.raises(DataError, match="no such file, so largest depth is unknown"):
        read_frames(root, "train", units_per_metre=1000)
    millimetres = read_frames(root, "train", layout="nyu_folder")[0]
    assert (millimetres.max_depth_m, millimetres.depth.units_per_metre) == (10, 1000)
    with pytest.raises(ConfigError, match="layout kitti has its own units"):
        read_frames(root, "train", layout="kitti", units_per_metre=1000)
    assert read_frames(root, "val", units_per_metre=256, max_depth_m=80)[0].max_depth_m == 80


@pytest.mark.parametrize(
    ("factor", "max_depth", "severity", "named"),
    [
        (1, 10, "ok", ""),
        (1000, 10, "error", "factor 1000"),
        (1000 / 256, 10, "error", "factor 3.9"),
        (1 / 1000, 10, "error", "factor 1/1000"),
        (5000, 10, "error", "factor 5000"),
        (1, 100, "warning", "lower data.max_depth"),
    ],
)
def test_units_of_indoor_depth(factor: float, max_depth: float, severity: str, named: str) -> None:
    finding = checks.check_units([scene(index)[1] * np.float32(factor) for index in range(3)], max_depth)
    assert finding.severity == severity
    assert named in finding.fix


@pytest.mark.parametrize(
    ("factor", "severity", "named"),
    [(1, "ok", ""), (256, "error", "factor 256"), (0.256, "warning", "factor 0.256")],
)
def test_units_of_a_street(factor: float, severity: str, named: str) -> None:
    street = np.geomspace(3, 70, 2000, dtype=np.float32).reshape(40, 50)
    finding = checks.check_units([street * np.float32(factor)], 100)
    assert finding.severity == severity
    assert named in finding.fix


@pytest.mark.parametrize(
    ("folder", "file", "units", "max_depth"),
    [
        ("nyu_dining", "depth.png", 1000, 10),
        ("tum_desk", "depth.png", 1000, 10),
        ("kitti_000001", "lidar_depth.png", 256, 100),
        ("ibims_corridor_sparse", "sparse_depth.npz", 1, 50),
    ],
)
def test_units_of_real_depth(folder: str, file: str, units: float, max_depth: float) -> None:
    path = real(folder) / file
    right = checks.check_units([DepthFile(path, units).read()], max_depth)
    assert right.severity in {"ok", "info"}
    if file.endswith("png"):
        wrong = checks.check_units([DepthFile(path, 1).read()], max_depth)
        assert wrong.severity == "error"
        assert f"factor {units}" in wrong.fix
        swapped = checks.check_units([DepthFile(path, 256 if units == 1000 else 1000).read()], max_depth)
        assert swapped.severity != "ok"
        assert f"set data.units_per_metre to {units}" in swapped.fix


def test_coverage() -> None:
    depth = scene(0)[1]
    assert checks.check_coverage([depth], ["a"]).severity == "ok"
    finding = checks.check_coverage([depth, 0 * depth], ["a", "b"])
    assert finding.severity == "error"
    assert "first b" in finding.title
    assert checks.check_units([0 * depth], 10).severity == "error"
    hardly = np.zeros((100, 100), np.float32)
    hardly[3, 3] = 1
    assert checks.check_coverage([hardly], ["a"]).severity == "warning"


def test_measured_input_against_truth() -> None:
    true = scene(0)[1]
    noise = np.random.default_rng(0).normal(0, 0.05, true.shape)
    sensor = np.where(noise > -0.05, true + noise, 0).astype(np.float32)
    sparse = np.where(noise > 0.1, true, 0)
    found = {
        "ok": [sensor],
        "off by factor 1000": [sensor * 1000],
        "off by factor 256": [sensor * 256],
        "off by factor 3.9": [sensor * np.float32(1000 / 256)],
        "is the true depth itself": [true],
        "are picked from the true depth": [sparse],
        "does not agree": [sensor * np.float32(1.6)],
        "share no pixel": [np.zeros_like(true)],
    }
    for title, raws in found.items():
        finding = checks.check_measured(raws, [true])
        assert (finding.severity == "ok") == (title == "ok"), title
        assert title == "ok" or title in finding.title


def test_real_scans_of_fewer_beams_are_picked_from_the_whole() -> None:
    folder = real("kitti_000001")
    raw, true = (
        DepthFile(folder / f"{name}.png", 256).read() for name in ("lidar_depth_16beam", "lidar_depth")
    )
    assert "picked" in checks.check_measured([raw], [true]).title


def test_sparsity_of_training_and_validation() -> None:
    assert checks.check_sparsity([0, 0.01, 0.5, 1], [0, 0.01, 1]).severity == "ok"
    assert "without input depth" in checks.check_sparsity([0.01, 0.5], [0, 0.01]).title
    assert "never sees" in checks.check_sparsity([0.5, 1.0], [0.001]).title
    assert "never sees" in checks.check_sparsity([0, 0], [0.05]).title


@pytest.mark.parametrize("folder", ["nyu_dining", "kitti_000001", "tum_desk"])
def test_real_pictures_become_samples(folder: str) -> None:
    kitti = folder.startswith("kitti")
    image, depth = ("image_2.png", "lidar_depth.png") if kitti else ("rgb.png", "depth.png")
    frame = RgbdFrame(
        token=folder,
        dataset="real",
        image=ImageFile(real(folder) / image),
        depth=DepthFile(real(folder) / depth, 256 if kitti else 1000),
        max_depth_m=100 if kitti else 10,
    )
    sample = TrainingSamples([frame], (192, 192), degradation=Degradation(pattern="uniform:50%"))[0, 0]
    assert sample["depth"].shape == (1, 192, 192)
    known = (sample["depth"] > 0).float().mean()
    assert known > (0.01 if kitti else 0.5)
    assert (sample["point"] > 0).float().mean() < 0.75


def test_sheet_of_inputs(root: Path) -> None:
    samples = ValidationSamples(read_frames(root, "val"), SIZE, patterns=PATTERNS)
    sheet = draw_inputs([samples[index] for index in range(3)], title="inputs", width=600)
    assert sheet.shape[1:] == (600, 3)
    assert sheet.dtype == np.uint8
    sparse = np.zeros((40, 40), np.float32)
    sparse[20, 20] = 3
    drawn = draw_depth(sparse, 1, 5)
    assert (drawn != UNKNOWN).any(-1).sum() == 9
    assert (draw_depth(0 * sparse, 1, 5) == UNKNOWN).all()
