"""Images of the user's own, of KITTI's layout and of the real keyframe."""

from __future__ import annotations

from pathlib import Path

import cv2
import diffbev_files as files
import numpy as np
import pytest
import torch

from omma.data.formats.nuscenes_bev import IGNORE_BIT
from omma.errors import DataError
from omma.systems.diffbev.data import build, build_inputs


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return files.write_folders(tmp_path / "nuscenes")


def test_inputs_of_the_user(folders: Path, tmp_path: Path) -> None:
    files.write_jpeg(tmp_path / "own/photo.jpg", 1)
    intrinsics = [[100, 0, 80], [0, 100, 45], [0, 0, 1]]
    files.write_json(tmp_path / "own/one.json", {"image": "photo.jpg", "intrinsics": intrinsics})
    given = [tmp_path / "own/one.json", folders / "img_dir/val/e.png", folders / "img_dir/train/a.png"]
    inputs, join = build_inputs(files.config(None), given)
    batch = join([inputs[i] for i in range(3)])
    assert batch["token"] == ["photo", "e", "a"]
    assert "label" not in batch
    assert batch["intrinsics"][0, 0].tolist() == [50, 0, 40]
    in_split = build(files.config(folders), "val", augment=False)[0][0]
    for key in ("image", "intrinsics"):
        assert torch.equal(batch[key][1], in_split[key])


def test_inputs_of_nuscenes_tables(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path)
    files.write_json(root / "calib.json", {})
    inputs, _ = build_inputs(files.config(None), [root / "samples/CAM_BACK/scene-0002.jpg"])
    assert (inputs[0]["token"], inputs[0]["channel"]) == ("0back", "CAM_BACK")


def test_inputs_without_calibration_are_refused(tmp_path: Path) -> None:
    files.write_jpeg(tmp_path / "a/b/c/photo.jpg", 1)
    with pytest.raises(DataError, match=r"photo\.jpg: its calibration is not known\n.*calib\.json"):
        build_inputs(files.config(None), [tmp_path / "a/b/c/photo.jpg"])
    with pytest.raises(DataError, match=r"nothing\.jpg: no such file"):
        build_inputs(files.config(None), [tmp_path / "nothing.jpg"])
    files.write_json(tmp_path / "in.json", {"image": "photo.jpg"})
    with pytest.raises(DataError, match=r"in\.json: field 'intrinsics' is missing"):
        build_inputs(files.config(None), [tmp_path / "in.json"])
    files.write_json(tmp_path / "in.json", [])
    with pytest.raises(DataError, match="hold no image"):
        build_inputs(files.config(None), [tmp_path / "in.json"])


def test_kitti_labels_are_turned_and_masked(folders: Path) -> None:
    """Stored with the far end on top; the mask lies as the labels do."""
    label, mask = np.zeros((196, 200), np.uint8), np.full((196, 200), 255, np.uint8)
    label[195, 3], mask[:10] = 255, 0
    cv2.imwrite(str(folders / "ann_bev_dir/val/e.png"), label)
    cv2.imwrite(str(folders / "mask.png"), mask)
    system = {"classes": ["vehicle"], "priors": [0.04]}
    config = files.config(folders, system, layout="kitti", mask_file="mask.png")
    bits = build(config, "val", augment=False)[0][0]["label"]
    assert bits[0, 3] == 1
    assert (bits == 1).sum() == 1
    assert (bits[-10:] == 1 << IGNORE_BIT).all()
    assert (bits[:-10] < 2).all()


@pytest.mark.skipif(not files.REAL.is_dir(), reason="data folder not present")
def test_real_keyframe(tmp_path: Path) -> None:
    """Six images train under both lists; a picture of its own is predicted on with the same calibration."""
    root = files.copy_real(tmp_path)
    config = files.config(root, image_size=[600, 800])
    samples, join = build(config, "train", augment=False)
    batch = join([samples[index] for index in range(len(samples))])
    assert batch["image"].shape == (6, 3, 600, 800)
    assert len(set(batch["channel"])) == 6
    assert (batch["intrinsics"][:, 0, 0] > 390).all()
    assert (batch["intrinsics"][:, 1, 1] / batch["intrinsics"][:, 0, 0] - 4 / 3).abs().max() < 1e-3
    inputs, _ = build_inputs(config, [root / samples.items.images[2]])
    for key in ("image", "intrinsics"):
        assert torch.equal(inputs[0][key], samples[2][key])
    assert inputs.name(0) == samples.name(2)
    with pytest.raises(DataError, match="none of its 1 scenes is in 'val'"):
        build(config, "val", augment=False)
