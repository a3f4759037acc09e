"""The doctor of a recipe's data: every mistake is named with its remedy, sound data pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import diffbev_files as files
import numpy as np
import pytest

from omma.data.formats.nuscenes_bev import encode_png, read_label
from omma.errors import Finding
from omma.systems.diffbev.doctor import SHEET, check
from omma.systems.diffbev.label_checks import check_depths, check_intrinsics, fit_points, point_cells
from omma.systems.diffbev.prepare import bev_labels, depth

DEPTH = {"depth_loss": {"name": "ce"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = files.write_nuscenes(tmp_path / "nuscenes")
    bev_labels(root=root, workers=1)
    depth(root=root, workers=1, height=60, width=80)
    return root


def _check(root: Path, system: dict[str, Any] | None = None, **data: Any) -> list[Finding]:
    return check(files.config(root, system, **data), None)


def _errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def _turn_labels(root: Path, axis: int) -> None:
    for path in (root / "ann_bev_dir").rglob("*.png"):
        path.write_bytes(encode_png(np.flip(read_label(path), axis).astype(np.uint16)))


def test_sound_data_pass(root: Path, tmp_path: Path) -> None:
    findings = check(files.config(root, DEPTH), tmp_path / "out")
    assert not _errors(findings)
    titles = {finding.title: finding for finding in findings}
    assert "layout tables, 4 images; CAM_BACK, CAM_FRONT" in titles["split train"].evidence
    assert "12 are there" in titles["files of train"].evidence
    assert "90 x 160" in titles["intrinsics fit the images"].evidence
    assert "IoU with the boxes of 4 images: 1.00" in titles["labels lie the right way round"].evidence
    assert (
        "style reference, ignored: fov+occlusion"
        in titles["no label looked at has bus, trailer, motorcycle"].evidence
    )
    picture = cv2.imread(str(tmp_path / "out" / SHEET))
    assert picture.shape[0] > 300
    assert titles["picture of the labels in the images"].figure == str(tmp_path / "out" / SHEET)


def test_depth_self_check_prints_the_batch(root: Path) -> None:
    found = next(one for one in _check(root, DEPTH) if one.title == "depths are in metres")
    for part in (
        "batch keys token, channel, ",
        "image [1, 3, 60, 80]",
        "label [1, 196, 200]",
        "gt_depth [1, 1, 60, 80]",
        "over 4 samples",
    ):
        assert part in found.evidence
    ratio = found.evidence.split("valid_ratio ")[1].split()[0]
    assert len(ratio.split(".")[1]) == 6
    assert float(ratio) > 0


@pytest.mark.parametrize(("axis", "turn"), [(1, "mirrored left to right"), (0, "mirrored near to far")])
@pytest.mark.parametrize("compare", ["boxes", "points"])
def test_mirrored_labels_are_an_error(root: Path, axis: int, turn: str, compare: str) -> None:
    _turn_labels(root, axis)
    if compare == "points":
        _as_folders(root)
    assert f"the labels fit only when {turn}" in [one.title for one in _errors(_check(root))]


def _as_folders(root: Path) -> None:
    """The same images without tables: nothing but LiDAR depths tells how labels lie."""
    calibration = {}
    for table in json.loads((root / files.VERSION / "sample_data.json").read_text()):
        if not table["filename"].endswith(".jpg"):
            continue
        split = "val" if table["token"].startswith("2") else "train"
        target = root / "img_dir" / split / f"{table['token']}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / table["filename"]).read_bytes())
        rig = json.loads((root / files.VERSION / "calibrated_sensor.json").read_text())[1]
        calibration[table["token"]] = rig["camera_intrinsic"]
    files.write_json(root / "calib.json", calibration)
    (root / files.VERSION).rename(root / "tables")


def test_without_boxes_the_lidar_tells(root: Path) -> None:
    _as_folders(root)
    findings = _check(root)
    assert not _errors(findings)
    found = next(one for one in findings if one.title == "labels lie the right way round")
    assert "cells with LiDAR at car height" in found.evidence


def test_without_boxes_and_lidar_nothing_is_verified(root: Path) -> None:
    _as_folders(root)
    for folder in (root / "ann_bev_dir").glob("*_depth"):
        folder.rename(root / f"elsewhere_{folder.name}")
    assert "the turn of the labels is not verified" in [one.title for one in _check(root)]


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("img_dir/train", "put the images of train there"),
        ("img_dir/val", "put the images of val there"),
        ("ann_bev_dir/train", "omma prepare nuscenes-bev-labels"),
        ("ann_bev_dir/val", "omma prepare nuscenes-bev-labels"),
        ("ann_bev_dir/train_depth", "omma prepare nuscenes-depth"),
        ("ann_bev_dir/val_depth", "omma prepare nuscenes-depth"),
    ],
)
def test_a_renamed_folder_is_named_with_the_command(tmp_path: Path, part: str, step: str) -> None:
    root = files.write_folders(tmp_path)
    assert not _errors(_check(root, DEPTH))
    (root / part).rename(root / f"{part}_renamed")
    errors = _errors(_check(root, DEPTH))
    assert len(errors) == 1
    assert str(Path(part)) in errors[0].title
    assert step in errors[0].fix


def test_missing_calibration_is_named(tmp_path: Path) -> None:
    root = files.write_folders(tmp_path)
    (root / "calib.json").unlink()
    assert any("calib.json" in finding.title for finding in _errors(_check(root)))


def test_missing_map_expansion_says_what_to_download(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path, maps=False)
    errors = _errors(_check(root))
    found = next(one for one in errors if one.title == "the map expansion is missing")
    assert "boston-seaport.json" in found.evidence
    assert "nuscenes.org/download" in found.fix


def test_missing_images_and_some_labels(root: Path) -> None:
    (root / "samples/CAM_BACK/scene-0002.jpg").unlink()
    (root / "ann_bev_dir/train/1front.png").unlink()
    titles = [one.title for one in _errors(_check(root))]
    assert "1 of 4 images of train are missing" in titles
    assert any("1 of 4 labels are missing" in title for title in titles)


def test_images_of_both_splits_are_an_error(tmp_path: Path) -> None:
    root = files.write_folders(tmp_path)
    assert "no images of val are in train" in [one.title for one in _check(root)]
    first, second = (sorted((root / "img_dir" / split).iterdir())[0] for split in ("train", "val"))
    second.write_bytes(first.read_bytes())
    found = next(one for one in _errors(_check(root)) if "1 images of val are in train too" in one.title)
    assert str(second) in found.evidence


def test_root_in_another_letter_case(root: Path) -> None:
    findings = _check(root.with_name("NuScenes"))
    assert not _errors(findings)
    assert "is taken instead" in findings[0].title
    missing = _check(root.with_name("other"))
    assert [one.severity for one in missing] == ["error"]
    assert "omma world nuscenes" in missing[0].fix


def test_depth_divided_by_256_is_an_error(root: Path) -> None:
    for path in (root / "ann_bev_dir/train_depth").glob("*.npz"):
        with np.load(path) as stored:
            scaled = stored["depth"] / 256
        np.savez_compressed(path, depth=scaled, mask=scaled > 0)
    assert "depths are not in metres: all are at most 1" in [
        one.title for one in _errors(_check(root, DEPTH))
    ]


def test_depths() -> None:
    near, far, none = (np.full((2, 2), value, np.float32) for value in (3, 60, 0))
    assert check_depths([near, none], 50, "").severity == "ok"
    assert "valid_ratio 0.500000" in check_depths([near, none], 50, "").evidence
    assert check_depths([none, none], 50, "").title == "no depth is known in the samples looked at"
    assert check_depths([near, far], 50, "").title == "depths reach 60.0 m, beyond 50 m"


def test_labels_of_other_classes(root: Path) -> None:
    system = {"classes": ["drivable_area", "ped_crossing"]}
    errors = _errors(_check(root, system))
    assert errors[0].title.startswith("labels use bits 2, 3, 4")
    assert "system.classes" in errors[0].fix


def test_empty_and_ignored_labels(root: Path) -> None:
    for bits, title in (
        (0, "all labels looked at are empty"),
        (1 << 14, "hardly a cell of the labels counts"),
    ):
        for path in (root / "ann_bev_dir").rglob("*.png"):
            path.write_bytes(encode_png(np.full((196, 200), bits, np.uint16)))
        assert title in [one.title for one in _errors(_check(root))]


def test_damaged_label_is_named(root: Path) -> None:
    (root / "ann_bev_dir/train/0back.png").write_bytes(b"no png")
    assert any("0back.png" in one.title for one in _errors(_check(root)))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1266, 0, 816], [0, 1266, 491], [0, 0, 1]], "principal point is (816, 491)"),
        ([[2000, 0, 80], [0, 2000, 45], [0, 0, 1]], "view of 5 degrees"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "principal point is (0, 0)"),
        ([[126, 0, 80], [0, 126, 45], [0, 0, 2]], "is no camera matrix"),
    ],
)
def test_calibrations_of_other_images(matrix: list[list[float]], message: str) -> None:
    finding = check_intrinsics(np.array([matrix], float), [(90, 160)], ["image a"])
    assert finding.severity == "error"
    assert message in finding.evidence
    assert finding.evidence.startswith("image a")


def test_points_find_their_cell() -> None:
    """A depth of 20 m, 30 pixels right of the middle and 3 below it: x = 6, 0.6 m below the camera."""
    from omma.data.formats.nuscenes_bev import GRID

    picture = np.zeros((60, 80), np.float32)
    picture[33, 70] = 20
    intrinsics = np.array([[100, 0, 40.5], [0, 100, 30.5], [0, 0, 1.0]])
    cells = point_cells(picture, intrinsics, GRID)
    assert np.argwhere(cells).tolist() == [[(20 - 1) * 4, (25 + 6) * 4]]
    picture[33, 70], picture[59, 70] = 0, 20
    assert not point_cells(picture, intrinsics, GRID).any(), "5.8 m below the camera is no car"
    assert fit_points([cells], [cells]) is None, "one cell tells nothing"


@pytest.mark.skipif(not files.REAL.is_dir(), reason="data folder not present")
def test_real_keyframe_is_drawn(tmp_path: Path) -> None:
    """No labels without the map expansion: that is said, the images are drawn, the calibration fits."""
    root = files.copy_real(tmp_path / "real")
    depth(root=root, workers=1)
    config = files.config(root, DEPTH, image_size=[600, 800], val_split="train")
    findings = check(config, tmp_path)
    titles = [one.title for one in findings]
    assert "the map expansion is missing" in titles
    assert "intrinsics fit the images" in titles
    assert "depths are in metres" in titles
    assert (tmp_path / SHEET).is_file()
