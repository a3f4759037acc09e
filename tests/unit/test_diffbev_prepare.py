"""Labels and depths from tables, resized copies: right content, resumed, never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffbev_files as files
import numpy as np
import pytest
import torch

from omma.data.formats.nuscenes import Tables
from omma.data.formats.nuscenes_bev import CLASSES, IGNORE_BIT, LAYERS, expand_bits, read_label
from omma.data.formats.nuscenes_index import read_index
from omma.data.io import image_size
from omma.errors import DataError, UsageError
from omma.systems.diffbev.data import build, label_setting
from omma.systems.diffbev.keyframes import read_keyframes
from omma.systems.diffbev.prepare import bev_labels, depth, resize

DEPTH = {"depth_loss": {"name": "ce"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return files.write_nuscenes(tmp_path / "nuscenes")


def _labels(root: Path, **options: Any) -> str:
    return bev_labels(root=root, **{"workers": 1, **options})


def _depths(root: Path, **options: Any) -> str:
    return depth(root=root, **{"workers": 1, "height": 60, "width": 80, **options})


def test_labels_are_those_of_the_reference(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    text = _labels(root, progress=lambda *call: calls.append(call))
    assert text.startswith("6 labels written, 0 were there")
    assert calls[-1] == (6, 6)
    written = sorted(path.relative_to(root / "ann_bev_dir").as_posix() for path in root.rglob("*.png"))
    assert written == [
        *(f"train/{token}.png" for token in ("0back", "0front", "1back", "1front")),
        *(f"val/{token}.png" for token in ("2back", "2front")),
    ]
    front = read_label(root / "ann_bev_dir/train/0front.png")
    expected = files.case()["label"].astype(np.int16)
    # the images are a tenth of the size: columns at the edge of the view may round to the other side
    assert ((front != expected).sum(0) > 0).sum() <= 1
    back = read_label(root / "ann_bev_dir/train/0back.png")
    masks, _ = expand_bits(back, IGNORE_BIT)
    assert masks[:4].any(), "the road goes on behind"
    assert (back != front).mean() > 0.1


def test_labels_say_how_they_were_made(root: Path) -> None:
    _labels(root, style="exact", ignore="fov", cameras="CAM_FRONT")
    assert label_setting(root) == "labels: style exact, ignored: fov"
    note = json.loads((root / "ann_bev_dir/labels.json").read_text())
    assert (note["cell_m"], note["classes"][4]) == (0.25, "car")
    assert len(list(root.rglob("*.png"))) == 3
    with pytest.raises(DataError, match=r"other settings \(labels\.json: ignore, style\)"):
        _labels(root)


def test_a_stopped_run_goes_on(root: Path) -> None:
    _labels(root)
    gone = [root / f"ann_bev_dir/train/{token}.png" for token in ("0back", "1front")]
    kept = root / "ann_bev_dir/train/0front.png"
    before = kept.stat().st_mtime_ns
    for path in gone:
        path.unlink()
    assert _labels(root).startswith("2 labels written, 4 were there")
    assert all(path.is_file() for path in gone)
    assert kept.stat().st_mtime_ns == before
    assert _labels(root).startswith("0 labels written, 6 were there")
    assert not list(root.rglob("*.part"))


def test_labels_of_unknown_making_are_not_mixed(root: Path) -> None:
    _labels(root)
    (root / "ann_bev_dir/labels.json").unlink()
    with pytest.raises(DataError, match="holds data of unknown making"):
        _labels(root)


def test_processes_write_the_same_bytes(root: Path) -> None:
    _labels(root)
    _labels(root, workers=2, output_dir=root / "again")
    for path in (root / "ann_bev_dir").rglob("*.png"):
        assert path.read_bytes() == (root / "again" / path.parent.name / path.name).read_bytes()


def test_a_problem_in_a_process_is_named(root: Path) -> None:
    path = root / "samples/LIDAR_TOP/scene-0004.pcd.bin"
    path.write_bytes(path.read_bytes()[:-3])
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"scene-0004\.pcd\.bin: .* no whole number of points"):
            _labels(root, workers=workers)


def test_missing_maps_stop_before_the_work(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path, maps=False)
    with pytest.raises(DataError, match=r"the map expansion is missing: boston-seaport\.json\n.*download"):
        _labels(root)
    assert not (root / "ann_bev_dir").exists()
    assert _depths(root).startswith("6 depths written"), "depths need no map"


def test_depths_train_a_network(root: Path) -> None:
    _labels(root)
    assert _depths(root).startswith("6 depths written, 0 were there")
    with np.load(root / "ann_bev_dir/val_depth/2front.npz") as stored:
        assert stored["depth"].shape == (60, 80)
        assert stored["depth"].dtype == np.float32
        assert stored["mask"].dtype == np.uint8
        np.testing.assert_array_equal(stored["mask"] > 0, stored["depth"] > 0)
        known = stored["depth"][stored["depth"] > 0]
    assert 1 < known.min() < known.max() <= 50
    sample = build(files.config(root, DEPTH), "val", augment=False)[0][1]
    assert sample["depth"].shape == (1, 60, 80)
    assert int((sample["depth"] > 0).sum()) == len(known)


def test_flags_of_the_runbook(root: Path, tmp_path: Path) -> None:
    """--nuscenes-root --version --output-dir --split --img-dir --cameras --height --width --min/max-depth."""
    files.write_jpeg(root / "img_dir/train/2front.png", 1)
    files.write_jpeg(root / "img_dir/train/0back.png", 1)
    text = depth(
        nuscenes_root=root,
        version=files.VERSION,
        output_dir=tmp_path / "out",
        split="train",
        img_dir=root / "img_dir/train",
        cameras="CAM_FRONT",
        height=600,
        width=800,
        min_depth=1,
        max_depth=20,
        workers=1,
    )
    assert text.startswith("1 depths written")
    with np.load(tmp_path / "out/train_depth/2front.npz") as stored:
        assert stored["depth"].shape == (600, 800)
        assert stored["depth"].max() <= 20


def test_img_dir_decides_where_it_is(root: Path) -> None:
    """With img_dir in the data set, its images are the split, as for training."""
    files.write_jpeg(root / "img_dir/val/0front.png", 1)
    _depths(root, split="val")
    assert [path.name for path in root.rglob("*.npz") if "_depth" in str(path)] == ["0front.npz"]
    files.write_jpeg(root / "img_dir/val/stranger.png", 1)
    with pytest.raises(DataError, match=r"lacks 1 of 2 images, first stranger"):
        _depths(root, split="val")


def test_depths_of_another_size_are_not_mixed(root: Path) -> None:
    _depths(root, split="val")
    with pytest.raises(DataError, match=r"other settings \(depth\.json: max_depth\)"):
        _depths(root, max_depth=60)
    assert _depths(root).startswith("4 depths written, 2 were there")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "pretty"}, "style=pretty: expected reference or exact"),
        ({"ignore": "nothing"}, "ignore=nothing: expected"),
        ({"split_lists": "mine"}, "split_lists=mine: expected pon or official"),
        ({"cameras": "CAM_TOP"}, "cameras: CAM_TOP is not among CAM_BACK, CAM_FRONT"),
        ({"img_dir": Path("x")}, "img_dir needs split"),
    ],
)
def test_wrong_settings_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _labels(root, **options)


def test_tables_of_two_versions_need_a_choice(root: Path) -> None:
    files.write_json(root / "v1.0-mini/sample.json", [])
    with pytest.raises(UsageError, match=r"has v1\.0-mini, v1\.0-trainval\n.*version="):
        _labels(root)
    assert _labels(root, version=files.VERSION).startswith("6 labels")


def test_a_root_is_needed() -> None:
    with pytest.raises(UsageError, match="give root=PATH"):
        bev_labels()
    with pytest.raises(UsageError, match="min_depth=5, max_depth=2"):
        depth(root=Path(), min_depth=5, max_depth=2)


@pytest.mark.parametrize("layout", ["tables", "folders"])
def test_samples_of_a_copy_equal_those_of_the_original(tmp_path: Path, layout: str) -> None:
    if layout == "tables":
        root = files.write_nuscenes(tmp_path / "large")
        _labels(root)
        _depths(root)
    else:
        root = files.write_folders(tmp_path / "large", cameras=True)
    text = resize(root=root, out=tmp_path / "small", height=60, width=80, workers=2)
    assert text.startswith("6 images written, 0 were there")
    for split in ("train", "val"):
        large, small = (
            build(files.config(folder, DEPTH), split, augment=False)[0]
            for folder in (root, tmp_path / "small")
        )
        for index in range(len(large)):
            first, second = large[index], small[index]
            assert (first["token"], first["channel"]) == (second["token"], second["channel"])
            for key in ("label", "depth"):
                assert torch.equal(first[key], second[key])
            torch.testing.assert_close(first["intrinsics"], second["intrinsics"])
            assert (first["image"].float() - second["image"].float()).abs().mean() < 3
    assert image_size(next((tmp_path / "small/img_dir/train").iterdir())) == (60, 80)
    assert label_setting(root) == label_setting(tmp_path / "small")


def test_a_copy_of_a_set_without_validation(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path / "large", ("scene-0002",))
    assert resize(root=root, out=tmp_path / "small", height=60, width=80).startswith("2 images written")
    unlisted = files.write_nuscenes(tmp_path / "own", ("my-drive",))
    with pytest.raises(DataError, match="no scene is in the pon lists"):
        resize(root=unlisted, out=tmp_path / "other")


def test_a_copy_goes_on_and_is_not_mixed(tmp_path: Path) -> None:
    root = files.write_folders(tmp_path / "large")
    resize(root=root, out=tmp_path / "small", height=60, width=80)
    (tmp_path / "small/img_dir/train/a.jpg").unlink()
    assert resize(root=root, out=tmp_path / "small", height=60, width=80).startswith("1 images written")
    with pytest.raises(DataError, match=r"other settings \(resized\.json: height, width\)"):
        resize(root=root, out=tmp_path / "small")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/thesis.txt").touch()
    with pytest.raises(DataError, match="of unknown making"):
        resize(root=root, out=tmp_path / "used")


@pytest.mark.skipif(not files.REAL.is_dir(), reason="data folder not present")
def test_depth_of_a_real_keyframe(tmp_path: Path) -> None:
    """About 3,000 pixels of 480,000 in each camera; labels need the map expansion, which is not there."""
    root = files.copy_real(tmp_path / "real")
    assert depth(root=root, workers=1).startswith("6 depths written")
    for path in (root / "ann_bev_dir/train_depth").iterdir():
        with np.load(path) as stored:
            assert 0.002 < (stored["depth"] > 0).mean() < 0.01, path.name
            assert stored["depth"].max() > 30
    with pytest.raises(DataError, match=r"singapore-onenorth\.json"):
        bev_labels(root=root, workers=1)


@pytest.mark.skipif(not files.REAL.is_dir(), reason="data folder not present")
def test_boxes_of_a_real_keyframe_lie_where_the_lidar_sees_them(tmp_path: Path) -> None:
    """With a map of nothing: cells with a LiDAR return at bumper height are cars far above chance."""
    root = files.copy_real(tmp_path / "real")
    files.write_maps(root, dict.fromkeys(LAYERS, ()), "singapore-onenorth")
    bev_labels(root=root, workers=1)
    depth(root=root, workers=1)
    tables = Tables(root)
    index = read_index(root)
    hits, mirrored, cells = 0, 0, 0
    for keyframe in read_keyframes(tables, index.tokens.tolist(), boxes=False):
        for camera in keyframe.cameras:
            label = read_label(root / f"ann_bev_dir/train/{camera.token}.png")
            car = label >> CLASSES.index("car") & 1 > 0
            xyz = keyframe.points_in(camera, keyframe.points())
            above_ground = 1.5 - xyz[:, 1]  # the cameras are about 1.5 m high
            low = xyz[(above_ground > 0.4) & (above_ground < 1.2)]
            column = np.floor((low[:, 0] + 25) / 0.25).astype(int)
            row = np.floor((low[:, 2] - 1) / 0.25).astype(int)
            inside = (column >= 0) & (column < 200) & (row >= 0) & (row < 196)
            hits += car[row[inside], column[inside]].sum()
            mirrored += car[row[inside], 199 - column[inside]].sum()
            cells += inside.sum()
    assert cells > 1000
    assert hits > 5 * max(mirrored, 1)
