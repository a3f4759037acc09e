"""The data check names the mistakes that otherwise cost days: extrinsics, mirrored labels, wrong sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lss_files as files
import numpy as np
import pytest
from PIL import Image

from omma.core.grid import BevGrid
from omma.core.poses import invert_rigid
from omma.data.formats.frame import Boxes
from omma.data.formats.simbev_layout import CAMERAS
from omma.errors import Finding
from omma.systems.lss.checks import check_extrinsics, check_labels, check_orientation, fit_boxes
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.doctor import SHEET, check

SMALL = {"backbone": "resnet18", "bev_width": 8, "neck_channels": 16, "context_channels": 8}
RIG = np.stack([files.ego_T_cam(camera) for camera in CAMERAS])


def _check(root: Path, out: Path | None = None, **data: Any) -> list[Finding]:
    return check(files.config(root, SMALL, **data), out)


def _errors(findings: list[Finding]) -> list[str]:
    return [finding.title for finding in findings if finding.severity == "error"]


def _find(findings: list[Finding], title: str) -> Finding:
    return next(finding for finding in findings if title in finding.title)


def _boxes_beside(root: Path) -> None:
    """Write the box of each sample of a seed-layout set as JSON in the ego frame."""
    record = {"class": "car", "center_xy_ego": [12, 2], "length": 4, "width": 2, "yaw_rad_mod_pi": 0}
    for meta in root.rglob("meta.json"):
        samples = json.loads(meta.read_text())
        for sample in samples:
            sample["boxes"] = "boxes.json"
        files.write_json(meta.parent / "boxes.json", [record])
        meta.write_text(json.dumps(samples))


def _turn_labels(root: Path, turn: Any) -> None:
    for path in root.rglob("bev_*.npy"):
        np.save(path, turn(np.load(path)))


@pytest.mark.parametrize("layout", ["seed", "cvt", "official", "nuscenes"])
def test_sound_data_have_no_error(tmp_path: Path, layout: str) -> None:
    getattr(files, f"write_{layout}")(tmp_path)
    findings = _check(tmp_path)
    assert _errors(findings) == []
    assert _find(findings, "extrinsics lead from the cameras").severity == "ok"


@pytest.mark.parametrize("layout", ["seed", "cvt", "official"])
def test_inverted_extrinsics_are_an_error_with_the_remedy(tmp_path: Path, layout: str) -> None:
    getattr(files, f"write_{layout}")(tmp_path)
    finding = _find(_check(tmp_path, invert_extrinsics=True), "wrong way round")
    assert finding.severity == "error"
    assert "data.invert_extrinsics=false" in finding.fix


def test_files_with_camera_to_ego_matrices_are_an_error(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    for meta in root.rglob("meta.json"):
        samples = json.loads(meta.read_text())
        for sample in samples:
            sample["extrinsics"] = RIG.tolist()
        meta.write_text(json.dumps(samples))
    finding = _find(_check(root), "wrong way round")
    assert "invert them in the files" in finding.fix


def test_label_turned_by_180_degrees_names_the_setting(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    _boxes_beside(root)
    assert _find(_check(root), "labels lie the right way round").severity == "ok"
    _turn_labels(root, lambda label: label[::-1, ::-1])
    finding = _find(_check(root), "only when turned by 180 degrees")
    assert finding.severity == "error"
    assert finding.fix == "set data.label_frame=simbev"
    assert _errors(_check(root, label_frame="simbev")) == []


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda label: label[:, ::-1], "mirrored left to right"),
        (lambda label: label[::-1], "mirrored front to back"),
        (lambda label: label.T, "with its axes swapped"),
    ],
)
def test_mirrored_labels_are_an_error_that_names_the_mirror(tmp_path: Path, turn: Any, name: str) -> None:
    root = files.write_seed(tmp_path)
    _boxes_beside(root)
    _turn_labels(root, turn)
    finding = _find(_check(root), f"only when {name}")
    assert finding.severity == "error"
    assert "axis 0 along +x" in finding.fix


def test_official_boxes_are_used_when_trusted_and_asked_for_when_not(tmp_path: Path) -> None:
    root = files.write_official(tmp_path, frames=1)
    unverified = _find(_check(root), "turn of the labels is not verified")
    assert unverified.severity == "warning"
    assert "data.trust_pickle=true" in unverified.fix
    assert "omma prepare lss-boxes" in unverified.fix
    assert _find(_check(root, trust_pickle=True), "labels lie the right way round").severity == "ok"
    turned = _check(root, trust_pickle=True, label_frame="lss")
    assert _find(turned, "turned by 180 degrees").fix == "set data.label_frame=simbev"


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    for path in sorted(root.rglob("back_0001.jpg")):
        path.unlink()
    finding = _find(_check(root), "files of train are missing")
    assert finding.severity == "error"
    assert finding.title.startswith("1 of 14")
    assert "back_0001.jpg" in finding.evidence


def test_a_scene_copied_into_both_splits_is_an_error(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    assert _find(_check(root), "no samples of val are in train").severity == "ok"
    shutil.copytree(root / "train/train_0000", root / "val/train_0000")
    finding = _find(_check(root), "2 samples of val are in train too")
    assert finding.severity == "error"
    assert "train_0000" in finding.evidence
    same = _find(_check(root, val_split="train"), "training and validation are the same split train")
    assert same.severity == "warning"


def test_a_missing_data_set_ends_the_check() -> None:
    findings = check(LSSConfig(), None)
    assert [finding.severity for finding in findings] == ["error"]
    assert "omma world simbev-seed" in findings[0].fix


def test_a_missing_split_does_not_stop_the_other(tmp_path: Path) -> None:
    root = files.write_official(tmp_path)
    (root / "simbev/infos/simbev_infos_train.json").unlink()
    findings = _check(root)
    assert _errors(findings) == [f"{root / 'simbev/infos/simbev_infos_train.json'}: no such file"]
    assert _find(findings, "extrinsics lead").severity == "ok"


def test_intrinsics_of_another_size_are_an_error(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    for meta in root.rglob("meta.json"):
        samples = json.loads(meta.read_text())
        samples[0]["intrinsics"] = [[[953, 0, 800], [0, 953, 450], [0, 0, 1]]] * 6
        meta.write_text(json.dumps(samples))
    with pytest.warns(UserWarning, match="another image size"):
        finding = _find(_check(root), "intrinsics are those of another image size")
    assert finding.severity == "error"
    assert "CAM_FRONT_LEFT: cx is 800, the image is 96 pixels wide" in finding.evidence


def test_wide_images_are_told_about_top_crop(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path, size=(90, 160))
    finding = _find(_check(root, source_size=[48, 96]), "images change their aspect")
    assert finding.fix.startswith("data.top_crop=6")
    assert "images change" not in str(_check(root, source_size=[48, 96], top_crop=6))


def test_picture_shows_the_label_in_the_images(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path / "data")
    finding = _find(_check(root, tmp_path / "out"), "picture")
    assert finding.figure == str(tmp_path / "out" / SHEET)
    picture = np.asarray(Image.open(finding.figure)).astype(int)
    assert picture.shape[1] == 1400
    red = (picture[..., 0] > 180) & (picture[..., 1] < 100) & (picture[..., 2] < 100)
    assert red.sum() > 50


def test_picture_shows_the_lidar_from_above(tmp_path: Path) -> None:
    """The sweep's one point at the height of objects turns a cell of the map grey; without it none is."""
    root = files.write_nuscenes(tmp_path / "data")
    grey = []
    for height_m in (-1.0, -3.0):
        for path in root.rglob("*.pcd.bin"):
            np.array([[30, -20, height_m, 0, 0]], np.float32).tofile(path)
        figure = _find(_check(root, tmp_path / "out"), "picture").figure
        picture = np.asarray(Image.open(str(figure))).astype(int)
        grey.append((np.ptp(picture, axis=-1) < 30) & (np.abs(picture.mean(-1) - 145) < 25))
    assert grey[0].sum() > grey[1].sum()


def test_empty_labels(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path)
    _turn_labels(root, np.zeros_like)
    assert "all labels looked at are empty" in _errors(_check(root))
    half = [np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.float32)]
    half[0][0, 1, 1] = 1
    finding = check_labels(half, ["vehicle", "road"])[0]
    assert finding.title == "no label looked at has road"
    assert "empty labels: 50 %" in finding.evidence


def test_sound_rig_passes_and_swapped_sides_do_not() -> None:
    assert [finding.severity for finding in check_extrinsics(RIG, CAMERAS, "f")] == ["ok"]
    swapped = RIG[[2, 1, 0, 3, 4, 5]]
    finding = check_extrinsics(swapped, CAMERAS, "f")[0]
    assert finding.severity == "error"
    assert "CAM_FRONT_LEFT looks along (+0.57, -0.82)" in finding.evidence


def test_left_handed_matrices_and_odd_places() -> None:
    mirrored = RIG.copy()
    mirrored[:, 1] *= -1
    assert check_extrinsics(mirrored, CAMERAS, "f")[0].title == "extrinsics are no rotations"
    centimetres = RIG.copy()
    centimetres[:, :3, 3] *= 100
    assert check_extrinsics(centimetres, CAMERAS, "f")[0].title == "cameras are at unlikely places"
    lying = RIG.copy()
    lying[:, :3, :3] = RIG[:, [2, 0, 1], :3]
    assert check_extrinsics(lying, CAMERAS, "f")[0].severity in ("warning", "error")
    assert check_extrinsics(invert_rigid(RIG), CAMERAS, "f")[0].title == "extrinsics are the wrong way round"


def test_fit_on_a_grid_that_is_not_square() -> None:
    grid = BevGrid((-8, 24, 1), (-8, 8, 1), (-10, 10, 20))
    label = np.zeros((32, 16), bool)
    label[18:23, 9:12] = True
    corners = np.array([[[x, y, z] for x in (10, 14) for y in (1, 3) for z in (0, 1)]], float)
    fit = fit_boxes([label], [Boxes(corners, ("car",), np.zeros(1, np.int64))], grid)
    assert len(fit.overlap) == 4
    assert fit.best == "as it is"
    poor = fit_boxes([np.ones((32, 16), bool)], [Boxes(corners, ("car",), np.zeros(1, np.int64))], grid)
    assert check_orientation(poor, "lss").title == "labels hardly agree with the boxes"
