"""Decoded copies: the same samples to the last bit, resumed, renewed, and refused when out of date."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rgbd_files import scene, write, write_pairs
from torchvision.transforms.v2 import functional as F

from omma.commands.prepare import run_prepare
from omma.data.fingerprint import fingerprint
from omma.data.formats.rgbd import RgbdFrame
from omma.data.formats.rgbd_cache import CachedDepth, open_cache, write_cache
from omma.data.loader import Loader
from omma.errors import DataError, UsageError
from omma.systems.g2_monodepth import changes, prepare
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.layouts import read_frames
from omma.systems.g2_monodepth.prepare import rgbd_cache
from omma.systems.g2_monodepth.samples import RgbdSamples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of several sizes, one with an odd number of bytes."""
    root = tmp_path / "rooms"
    write_pairs(root / "train", 3)
    write_pairs(root / "train", 1, first=3, size=(37, 51))
    write_pairs(root / "val", 2, first=4)
    (root / "rgbd.json").write_text(json.dumps({"units_per_metre": 1000, "max_depth": 10}), "utf-8")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def samples_of(root: Path, split: str = "train", **data: Any) -> RgbdSamples:
    content = {"data": {"root": str(root), "image_size": [32, 40], "measured": 0.5, **data}}
    config = G2Config.model_validate_json(json.dumps(content))
    return build(config, split, augment=split == "train")[0]


def assert_same(first: RgbdSamples, second: RgbdSamples) -> None:
    assert len(first) == len(second) > 0
    for epoch in range(4):
        for index in range(len(first)):
            one, other = first[epoch, index], second[epoch, index]
            assert one.keys() == other.keys()
            for key, value in one.items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(other[key], value, atol=0, rtol=0, equal_nan=True)
                else:
                    assert other[key] == value


def cached_depth(root: Path, out: Path, index: int = 0, part: str = "depth") -> CachedDepth:
    return getattr(open_cache(read_frames(root, "train"), root, out / "train")[index], part)


@pytest.mark.parametrize("workers", [1, 3])
def test_samples_are_the_same(root: Path, out: Path, workers: int) -> None:
    calls: list[tuple[int, int]] = []
    lines: list[str] = []
    text = rgbd_cache(
        root=root, out=out, workers=workers, progress=lambda *call: calls.append(call), say=lines.append
    )
    assert text == f"6 pictures decoded, 0 were there; train with data.cache={out}"
    assert calls == [(number, 6) for number in range(1, 7)]
    assert lines[0].startswith("6 pictures take 0.0 GB decoded; ")
    for split in ("train", "val"):
        plain, cached = samples_of(root, split), samples_of(root, split, cache=str(out))
        assert_same(plain, cached)
        assert cached.files() == plain.files()
        assert fingerprint(cached, root) == fingerprint(plain, root)
    assert cached_depth(root, out).stored.dtype == "uint16"
    assert not list(out.rglob("*.part"))


def test_the_command(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_prepare("rgbd-cache", [f"root={root}", f"out={out}", "split=val", "--workers", "1"])
    assert "2 pictures take 0.0 GB decoded" in capsys.readouterr().out
    assert_same(samples_of(root, "val"), samples_of(root, "val", cache=str(out)))
    with pytest.raises(DataError, match="holds no decoded pictures") as caught:
        samples_of(root, cache=str(out))
    assert f"omma prepare rgbd-cache root={root} out={out} split=train" in caught.value.hint
    with pytest.raises(UsageError, match="layout=folder: expected one of auto, folders"):
        rgbd_cache(root=root, out=out, layout="folder")


def test_measured_depth_and_metres(root: Path, out: Path) -> None:
    """Floating-point metres stay what they are; maps without a known depth are kept too."""
    for index, image in enumerate(sorted((root / "train" / "rgb").iterdir())):
        size = scene(index)[1].shape if index < 3 else (37, 51)
        raw = np.random.default_rng(index).uniform(0.5, 9, size).astype(np.float32)
        raw[:, ::2] = 0
        (root / "train" / "raw").mkdir(exist_ok=True)
        np.save(root / "train" / "raw" / f"{image.stem}.npy", raw if index else 0 * raw)
    rgbd_cache(root=root, out=out, split="train")
    assert_same(samples_of(root), samples_of(root, cache=str(out)))
    assert cached_depth(root, out, 1, "raw").stored.dtype == "float32"
    assert cached_depth(root, out, 0, "raw").extremes == (0, 0)
    depth = cached_depth(root, out)
    np.testing.assert_array_equal(depth.read_window((3, 5, 7, 9)), depth.read()[3:10, 5:14])


def test_kitti_keeps_its_rows(tmp_path: Path, out: Path) -> None:
    drive = tmp_path / "kitti" / "train" / "2011_09_26_drive_0001_sync"
    image, depth = scene(0, (360, 64))
    write(drive / "image_02" / "data" / "0000000005.png", image)
    for name in ("groundtruth", "velodyne_raw"):
        coded = np.rint(depth * 256).astype(np.uint16)
        write(drive / "proj_depth" / name / "image_02" / "0000000005.png", coded)
    rgbd_cache(root=tmp_path / "kitti", out=out, split="train")
    assert_same(samples_of(tmp_path / "kitti"), samples_of(tmp_path / "kitti", cache=str(out)))


def test_nyu_in_one_file(tmp_path: Path, out: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "nyu" / "train").mkdir(parents=True)
    for index in range(2):
        image, depth = scene(index)
        with h5py.File(tmp_path / "nyu" / "train" / f"{index}.h5", "w") as file:
            file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth
    rgbd_cache(root=tmp_path / "nyu", out=out, split="train")
    assert_same(samples_of(tmp_path / "nyu"), samples_of(tmp_path / "nyu", cache=str(out)))


def test_a_stopped_run_goes_on(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = root / "train" / "depth" / "002.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(prepare, "estimate_bytes", lambda frames: 0)  # it reads that picture too
    with pytest.raises(DataError, match=r"002.png: the image is cut short"):
        rgbd_cache(root=root, out=out, split="train", workers=1)
    damaged.write_bytes(whole)
    with (out / "train" / "index.jsonl").open("a", encoding="utf-8") as index:
        index.write('{"token": "train/00')  # as a power cut leaves it
    text = rgbd_cache(root=root, out=out, split="train", workers=1)
    assert text.startswith("2 pictures decoded, 2 were there")
    assert_same(samples_of(root), samples_of(root, cache=str(out)))


def test_what_changed_is_noticed_and_renewed(root: Path, out: Path) -> None:
    rgbd_cache(root=root, out=out, split="train")
    changed = root / "train" / "depth" / "001.png"
    write(changed, np.full((48, 64), 3000, np.uint16))
    with pytest.raises(DataError, match=r"001.png: depth of train/001 or how it is read") as caught:
        samples_of(root, cache=str(out))
    assert "it renews what has changed" in caught.value.hint
    write_pairs(root / "train", 1, first=8)
    with pytest.raises(DataError, match="1 of 5 pictures are not in it, first train/008"):
        samples_of(root, cache=str(out))
    assert rgbd_cache(root=root, out=out, split="train").startswith("2 pictures decoded, 3 were there")
    assert_same(samples_of(root), samples_of(root, cache=str(out)))
    (root / "train" / "depth" / "008.png").unlink()
    (root / "train" / "rgb" / "008.png").unlink()
    assert_same(samples_of(root), samples_of(root, cache=str(out)))


def test_other_units_are_noticed(root: Path, out: Path) -> None:
    rgbd_cache(root=root, out=out, split="train")
    with pytest.raises(DataError, match="or how it is read"):
        samples_of(root, cache=str(out), units_per_metre=500, max_depth=20)


def test_data_and_cache_may_move_together(root: Path, out: Path) -> None:
    rgbd_cache(root=root, out=out, split="train")
    moved = root.rename(root.with_name("elsewhere"))
    assert_same(samples_of(moved), samples_of(moved, cache=str(out.rename(moved / "cache"))))


def test_damaged_caches(root: Path, out: Path) -> None:
    rgbd_cache(root=root, out=out, split="train")
    file = cached_depth(root, out).stored.path
    os.truncate(file, 100)
    cached = samples_of(root, cache=str(out))
    with pytest.raises(DataError, match=rf"{file.name}: .*missing or cut short.*\(sample train/000"):
        cached[0]
    file.unlink()
    assert rgbd_cache(root=root, out=out, split="train").startswith("1 pictures decoded, 3 were there")


def test_mistakes_are_those_of_the_files(root: Path, out: Path) -> None:
    """A cache hides no bad picture, nor one that other settings make bad."""
    write(root / "train" / "depth" / "000.png", np.zeros((48, 64), np.uint16))
    write(root / "train" / "depth" / "001.png", np.full((40, 64), 3000, np.uint16))
    write(root / "train" / "depth" / "002.png", np.full((48, 64), 30000, np.uint16))
    rgbd_cache(root=root, out=out, split="train")
    plain, cached = samples_of(root), samples_of(root, cache=str(out))
    for index in range(3):
        with pytest.raises(DataError) as first:
            plain[index]
        with pytest.raises(DataError) as second:
            cached[index]
        assert second.value.message == first.value.message


def test_a_full_disk_is_said_before(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "estimate_bytes", lambda frames: 10**18)
    with pytest.raises(DataError, match=r"6 pictures take 2000000000.0 GB decoded, .* GB are free"):
        rgbd_cache(root=root, out=out)
    assert not out.exists()


def test_reading_in_spawned_processes(root: Path, out: Path) -> None:
    rgbd_cache(root=root, out=out, split="val")
    config = G2Config.model_validate_json(json.dumps({"data": {"root": str(root), "cache": str(out)}}))
    samples, collate = build(config, "val", augment=False)
    keys = [[index] for index in range(len(samples))]
    loader = Loader(samples, collate, keys, workers=1, device=torch.device("cpu"), start_method="spawn")
    batches = list(loader)
    loader.close()
    assert len(batches) == len(keys)
    torch.testing.assert_close(batches[1]["rgb"][0], samples[1]["rgb"])


def test_frames_of_equal_names_in_other_letters(root: Path, out: Path) -> None:
    """Tokens of the reference's test frames hold characters that are not for file names."""
    frames = [
        RgbdFrame(f"set/{name}@raw_0%", "set", frame.image, frame.depth, 10.0)
        for name, frame in zip("aA:", read_frames(root, "train"), strict=False)
    ]
    assert write_cache(frames, root, out, workers=1, progress=lambda *call: None) == (3, 0)
    for plain, cached in zip(frames, open_cache(frames, root, out), strict=True):
        np.testing.assert_array_equal(cached.image.read(), plain.image.read())
        assert cached.image.size() == plain.image.size()


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.2])
def test_fast_colours_are_those_of_torchvision(factor: float) -> None:
    image = scene(0)[0]
    planes = torch.from_numpy(image).permute(2, 0, 1)
    for ours, theirs in (
        (changes._brighten, F.adjust_brightness),
        (changes._set_contrast, F.adjust_contrast),
        (changes._saturate, F.adjust_saturation),
    ):
        expected = theirs(planes, factor).permute(1, 2, 0).numpy().astype(int)
        difference = np.abs(ours(image, factor) - expected)
        assert difference.max() <= 1  # one level: theirs cuts off what ours rounds
        assert (expected != image).mean() > 0.5


def test_enlarged_depth_is_that_of_torchvision() -> None:
    depth = np.where(np.random.default_rng(0).random((50, 61)) < 0.02, 0, scene(0, (50, 61))[1])
    resized = changes.crop_resize_depth(depth.astype(np.float32), (0, 0, 50, 61), (64, 80))
    planes = torch.from_numpy(np.stack([depth, depth > 0]).astype(np.float32))
    expected, known = F.resize(planes, [64, 80], antialias=True).numpy()
    np.testing.assert_allclose(resized, np.where(known > 0.999, expected, 0), atol=2e-5)
    assert 0.5 < (resized > 0).mean() < 1
