"""A resized copy gives the same samples up to resampling; pickled boxes become JSON only when trusted."""

from __future__ import annotations

import json
from pathlib import Path

import lss_files as files
import numpy as np
import pytest
import torch

from omma.data.io import image_size
from omma.errors import DataError
from omma.systems.lss.data import build
from omma.systems.lss.doctor import check
from omma.systems.lss.prepare import NOTE, boxes, resize

WRITERS = {
    "seed": files.write_seed,
    "cvt": files.write_cvt,
    "official": files.write_official,
    "nuscenes": files.write_nuscenes,
}


def _copy(root: Path, out: Path) -> str:
    return resize(root, out, height=32, width=64, quality=98, workers=2, frame_stride=1)


@pytest.mark.parametrize("layout", WRITERS)
def test_samples_of_the_copy_equal_those_of_the_original(tmp_path: Path, layout: str) -> None:
    """Same label and poses; the network's pixels and what they project to are the same up to resampling."""
    root = WRITERS[layout](tmp_path / "large")
    _copy(root, tmp_path / "small")
    options = {"frame_stride": 1, "source_size": [32, 64], "image_size": [32, 64]}
    large, small = (
        build(files.config(folder, **options), "train", augment=False)[0][0]
        for folder in (root, tmp_path / "small")
    )
    assert small["sizes"].tolist() == [[32, 64]] * 6
    for key in ("target", "rots", "trans"):
        assert torch.equal(large[key], small[key])
    for key in ("intrins", "post_rots"):
        assert not torch.equal(large[key], small[key])
    projected = [sample["post_rots"] @ sample["intrins"] for sample in (large, small)]
    torch.testing.assert_close(projected[0], projected[1], atol=1e-3, rtol=1e-4)
    assert (large["images"].float() - small["images"].float()).abs().mean() < 3


def test_copy_of_a_seed_layout_is_complete_and_sound(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path / "large", scenes=2)
    assert "36 images written, 0 were there" in _copy(root, tmp_path / "small")
    copied = {
        path.relative_to(tmp_path / "small") for path in (tmp_path / "small").rglob("*") if path.is_file()
    }
    assert copied == {path.relative_to(root) for path in root.rglob("*") if path.is_file()} | {Path(NOTE)}
    small = {"backbone": "resnet18", "bev_width": 8, "neck_channels": 16}
    findings = check(files.config(tmp_path / "small", small, source_size=[32, 64]), None)
    assert [finding.title for finding in findings if finding.severity == "error"] == []


def test_a_stopped_copy_goes_on(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path / "large")
    _copy(root, tmp_path / "small")
    missing = sorted((tmp_path / "small").rglob("front_*.jpg"))[:2]
    kept = next((tmp_path / "small").rglob("back_0000.jpg"))
    before = kept.stat().st_mtime_ns
    for path in missing:
        path.unlink()
    calls: list[tuple[int, int]] = []
    text = resize(
        root,
        tmp_path / "small",
        height=32,
        width=64,
        quality=98,
        frame_stride=1,
        progress=lambda *call: calls.append(call),
    )
    assert text.startswith("2 images written, 22 were there")
    assert all(image_size(path) == (32, 64) for path in missing)
    assert kept.stat().st_mtime_ns == before
    assert calls[-1] == (24, 24)


def test_another_size_or_a_used_folder_is_refused(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path / "large")
    _copy(root, tmp_path / "small")
    with pytest.raises(DataError, match="other settings"):
        resize(root, tmp_path / "small", height=16, width=32)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/thesis.txt").touch()
    with pytest.raises(DataError, match="unknown making"):
        _copy(root, tmp_path / "used")


def test_official_copy_takes_the_frames_of_training(tmp_path: Path) -> None:
    """One of 20 frames by default, as the loader takes them; infos stay whole."""
    root = files.write_official(tmp_path / "large", frames=21)
    resize(root, tmp_path / "small", height=32, width=64)
    samples, _ = build(files.config(tmp_path / "small"), "val", augment=False)
    assert len(samples) == 2
    assert len(list((tmp_path / "small").rglob("*.jpg"))) == 2 * 2 * 6
    assert samples[1]["sizes"].tolist() == [[32, 64]] * 6


def test_a_broken_image_stops_with_its_name_and_leaves_no_half_file(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path / "large")
    path = root / "val/val_0000/yaw0pitch0/images/front_0000.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"front_0000\.jpg: the image is cut short"):
        _copy(root, tmp_path / "small")
    assert not list((tmp_path / "small").rglob("*.part"))


def test_boxes_need_trust_and_then_are_read_without(tmp_path: Path) -> None:
    root = files.write_official(tmp_path)
    with pytest.raises(DataError, match=r"4 box files are pickled.*\n.*trust=true"):
        boxes(root)
    assert boxes(root, trust=True) == "4 files written, 0 were there"
    assert boxes(root, trust=True) == "0 files written, 4 were there"
    written = next(root.rglob("*GT_DET.json"))
    assert json.loads(written.read_text())[0]["semantic_tags"] == [14]
    samples, _ = build(files.config(root, frame_stride=1), "val", augment=False)
    found = samples.labels.boxes(samples.frames[0])
    assert found is not None
    np.testing.assert_allclose(found.footprints[0].max(0), [14, 3], atol=1e-6)
    with pytest.raises(DataError, match="SimBEV's own layout"):
        boxes(files.write_seed(tmp_path / "seed"), trust=True)
