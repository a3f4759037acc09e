"""DiffBEV samples: the same image, geometry and label in every layout; augmentation; clear errors."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import cv2
import diffbev_files as files
import numpy as np
import pytest
import torch

from omma.data.formats.nuscenes_bev import IGNORE_BIT, encode_png
from omma.errors import ConfigError, DataError
from omma.systems.diffbev.data import build, collate, label_setting
from omma.systems.diffbev.depths import read_depth, resize_depth

DEPTH = {"depth_loss": {"name": "ce"}}
PLAIN = {"photometric": "none"}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return files.write_folders(tmp_path / "nuscenes")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return files.write_nuscenes(tmp_path / "nuscenes")


def _write_label(path: Path, bits: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(bits))


def test_a_batch_has_the_promised_content(folders: Path) -> None:
    samples, join = build(files.config(folders, DEPTH), "train", augment=True)
    batch = join([samples[0], samples[1]])
    assert {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)} == {
        "image": (2, 3, 60, 80),
        "intrinsics": (2, 3, 3),
        "label": (2, 196, 200),
        "depth": (2, 1, 60, 80),
    }
    kinds = {key: value.dtype for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert kinds == {
        "image": torch.uint8,
        "intrinsics": torch.float32,
        "label": torch.int16,
        "depth": torch.float32,
    }
    assert batch["token"] == ["a", "b"], "sorted by file name"
    assert batch["channel"] == ["", ""]
    np.testing.assert_array_equal(batch["label"][0], files.case()["label"].astype(np.int16))
    assert "depth" not in build(files.config(folders), "train", augment=True)[0][0]


def test_pixels_and_intrinsics_are_scaled_alike(folders: Path) -> None:
    sample = build(files.config(folders), "val", augment=False)[0][0]
    stored = cv2.imread(str(folders / "img_dir/val/e.png"))
    expected = cv2.resize(stored, (80, 60), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), expected)
    original = np.array(json.loads((folders / "calib.json").read_text())["e"])
    np.testing.assert_allclose(sample["intrinsics"][0], original[0] * 80 / 160, rtol=1e-6)
    np.testing.assert_allclose(sample["intrinsics"][1], original[1] * 60 / 90, rtol=1e-6)
    assert sample["intrinsics"][2].tolist() == [0, 0, 1]


def test_tables_split_by_scene(tables: Path) -> None:
    for lists in ("pon", "official"):
        train, _ = build(files.config(tables, split_lists=lists), "train", augment=False)
        val, _ = build(files.config(tables, split_lists=lists), "val", augment=False)
        assert [train.name(i) for i in range(4)] == ["0back", "0front", "1back", "1front"]
        assert [val.name(i) for i in range(2)] == ["2back", "2front"]
        assert val[1]["channel"] == "CAM_FRONT"
        assert "label" not in val[0]
    np.testing.assert_allclose(val[0]["intrinsics"][0, 0], 1266.4172 / 20, rtol=1e-5)


def test_pon_and_official_lists_differ(tmp_path: Path) -> None:
    """scene-0003 is official validation and PON training; scene-0001 the other way round."""
    root = files.write_nuscenes(tmp_path, ("scene-0003", "scene-0001"))
    tokens = {
        (lists, split): build(files.config(root, split_lists=lists), split, augment=False)[0].name(0)
        for lists in ("pon", "official")
        for split in ("train", "val")
    }
    assert tokens["pon", "train"] == tokens["official", "val"] == "0back"
    assert tokens["pon", "val"] == tokens["official", "train"] == "1back"


def test_split_file_names_scenes(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "my-val.txt").write_text("scene-0004\n", encoding="utf-8")
    config = files.config(tables, split_file=str(tmp_path / "my-{split}.txt"))
    samples, _ = build(config, "val", augment=False)
    assert [samples.name(i) for i in range(len(samples))] == ["1back", "1front"]
    (tmp_path / "my-val.txt").write_text("scene-7777\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"my-val\.txt: the tables have no scene scene-7777"):
        build(config, "val", augment=False)


def test_scenes_of_no_list_need_a_split_file(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path, ("my-drive",))
    with pytest.raises(DataError, match=r"none of its 1 scenes is in 'train'.*\n.*data\.split_file"):
        build(files.config(root), "train", augment=False)


def test_tables_find_labels_and_depths_of_either_folder(tables: Path) -> None:
    """Files made under one scene list also serve the other."""
    label = files.case()["label"]
    for token in ("0back", "0front", "1back", "1front", "2front"):
        _write_label(tables / f"ann_bev_dir/train/{token}.png", label)
        files.write_depth(tables / f"ann_bev_dir/train_depth/{token}.npz")
    _write_label(tables / "ann_bev_dir/val/2back.png", np.zeros_like(label))
    files.write_depth(tables / "ann_bev_dir/val_depth/2back.npz", 0.5)
    samples, _ = build(files.config(tables, DEPTH), "val", augment=False)
    assert [int(samples[i]["label"].max() > 0) for i in range(2)] == [0, 1]
    assert [round(float(samples[i]["depth"].max())) for i in range(2)] == [20, 40]


def test_flip_mirrors_image_geometry_label_and_depth(folders: Path) -> None:
    plain = build(files.config(folders, DEPTH, **PLAIN), "train", augment=False)[0][0]
    samples, _ = build(files.config(folders, DEPTH, flip=True, **PLAIN), "train", augment=True)
    drawn = [samples[epoch, 0] for epoch in range(16)]
    flipped = [not torch.equal(sample["image"], plain["image"]) for sample in drawn]
    assert 2 < sum(flipped) < 14
    mirrored = drawn[flipped.index(True)]
    for key in ("image", "label", "depth"):
        assert torch.equal(mirrored[key], plain[key].flip(-1))
    assert mirrored["intrinsics"][0, 2] == 79 - plain["intrinsics"][0, 2]
    fixed = mirrored["intrinsics"].clone()
    fixed[0, 2] = plain["intrinsics"][0, 2]
    assert torch.equal(fixed, plain["intrinsics"])


def test_a_flipped_point_stays_on_its_cell(folders: Path) -> None:
    """Pixel u of a point at x becomes W - 1 - u; the new intrinsics read it as a point at -x."""
    plain = build(files.config(folders, **PLAIN), "train", augment=False)[0][0]["intrinsics"]
    samples, _ = build(files.config(folders, flip=True, **PLAIN), "train", augment=True)
    mirrored = next(
        sample["intrinsics"]
        for sample in (samples[epoch, 0] for epoch in range(16))
        if not torch.equal(sample["intrinsics"], plain)
    )
    u = plain[0, 0] * 4 / 20 + plain[0, 2]
    torch.testing.assert_close((79 - u - mirrored[0, 2]) / mirrored[0, 0] * 20, torch.tensor(-4.0))


def test_colours_change_in_training_alone(folders: Path) -> None:
    for photometric in ("reference", "one_pass"):
        samples, _ = build(files.config(folders, photometric=photometric), "train", augment=True)
        assert torch.equal(samples[0, 1]["image"], samples[0, 1]["image"])
        assert len({samples[epoch, 0]["image"].sum().item() for epoch in range(8)}) > 4
    plain, _ = build(files.config(folders), "train", augment=False)
    assert torch.equal(plain[0, 1]["image"], plain[1, 1]["image"])


def test_noise_of_intrinsics_is_each_image_own(folders: Path) -> None:
    clean = build(files.config(folders), "train", augment=False)[0]
    noisy = build(files.config(folders, intrinsics_noise=0.03), "train", augment=False)[0]
    relative = torch.stack([noisy[i]["intrinsics"] / clean[i]["intrinsics"] - 1 for i in range(4)])
    errors = relative[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    assert torch.equal(noisy[1, 0]["intrinsics"], noisy[0, 0]["intrinsics"])
    assert len(errors.unique()) == 16
    assert 0.005 < errors.abs().mean() < 0.06


def test_cameras_by_name(folders: Path, tables: Path) -> None:
    samples, _ = build(files.config(tables, layout="tables", cameras=["CAM_FRONT"]), "train", augment=False)
    assert [samples.name(i) for i in range(len(samples))] == ["0front", "1front"]
    with pytest.raises(ConfigError, match=r"data\.cameras names CAM_TOP; there are CAM_BACK, CAM_FRONT"):
        build(files.config(tables, layout="tables", cameras=["CAM_TOP"]), "train", augment=False)


def test_cameras_of_folders_are_looked_up(tmp_path: Path) -> None:
    """File names are tokens; cameras.json or the tables beside them tell the camera."""
    root = files.write_folders(tmp_path / "a")
    with pytest.raises(DataError, match=r"which camera took a is not known.*\n.*cameras\.json"):
        build(files.config(root, cameras=["CAM_FRONT"]), "train", augment=False)
    files.write_folders(root, cameras=True)
    samples, _ = build(files.config(root, cameras=["CAM_FRONT"]), "train", augment=False)
    assert [samples.name(i) for i in range(len(samples))] == ["b", "c"]
    files.write_nuscenes(tmp_path / "b")
    for token in ("0back", "1front"):
        files.write_jpeg(tmp_path / f"b/img_dir/train/{token}.png", 3)
    samples, _ = build(files.config(tmp_path / "b", cameras=["CAM_BACK"]), "train", augment=False)
    assert [samples[i]["channel"] for i in range(len(samples))] == ["CAM_BACK"]


def test_folders_take_calibration_from_tables_where_there_is_no_file(tables: Path) -> None:
    files.write_jpeg(tables / "img_dir/train/0back.png", 3)
    sample = build(files.config(tables), "train", augment=False)[0][0]
    np.testing.assert_allclose(sample["intrinsics"][0, 0], 1266.4172 / 20, rtol=1e-5)
    files.write_jpeg(tables / "img_dir/train/unknown.png", 3)
    with pytest.raises(DataError, match=r"the tables lack 1 of 2 images, first unknown"):
        build(files.config(tables), "train", augment=False)


def test_tables_of_two_versions_beside_folders(tables: Path) -> None:
    """With calib.json they are not needed; for cameras or calibration one must be named."""
    files.write_jpeg(tables / "img_dir/train/0back.png", 3)
    files.write_json(tables / "v1.0-mini/sample.json", [])
    with pytest.raises(DataError, match=r"calib\.json: no calibration of the images"):
        build(files.config(tables), "train", augment=False)
    named = build(files.config(tables, version=files.VERSION), "train", augment=False)[0]
    assert named[0]["channel"] == "CAM_BACK"
    files.write_json(tables / "calib.json", {"0back": [[100, 0, 80], [0, 100, 45], [0, 0, 1]]})
    assert build(files.config(tables), "train", augment=False)[0][0]["channel"] == ""
    with pytest.raises(DataError, match=r"has v1\.0-mini, v1\.0-trainval"):
        build(files.config(tables, layout="tables"), "train", augment=False)


def test_missing_calibration_is_an_error(folders: Path) -> None:
    calibration = json.loads((folders / "calib.json").read_text())
    del calibration["c"]
    files.write_json(folders / "calib.json", calibration)
    with pytest.raises(DataError, match=r"calib\.json: has no calibration of 1 of 4 images, first c"):
        build(files.config(folders), "train", augment=False)
    files.write_json(folders / "calib.json", calibration | {"c": [1, 2, 3]})
    with pytest.raises(DataError, match=r"calib\.json: c has shape \(3,\), expected \(3, 3\)"):
        build(files.config(folders), "train", augment=False)
    (folders / "calib.json").unlink()
    with pytest.raises(DataError, match=r"calib\.json: no calibration of the images"):
        build(files.config(folders), "train", augment=False)


def test_missing_labels_name_the_command(folders: Path) -> None:
    (folders / "ann_bev_dir/train/c.png").unlink()
    for augment in (True, False):
        with pytest.raises(DataError, match=r"1 of 4 images have no label, first c\.png\n.*bev-labels root="):
            build(files.config(folders), "train", augment=augment)
    for name in "abd":
        (folders / f"ann_bev_dir/train/{name}.png").unlink()
    with pytest.raises(DataError, match="4 of 4 images have no label"):
        build(files.config(folders), "train", augment=True)
    assert "label" not in build(files.config(folders), "train", augment=False)[0][0]


def test_missing_depths_count_as_unknown_and_are_told_once(folders: Path) -> None:
    (folders / "ann_bev_dir/train_depth/a.npz").unlink()
    with pytest.warns(UserWarning, match="1 of 4 images have no depth file and count as unknown") as told:
        samples, _ = build(files.config(folders, DEPTH), "train", augment=True)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [bool(samples[i]["depth"].any()) for i in range(4)] == [False, True, True, True]
        build(files.config(folders), "train", augment=True)
    for name in "bcd":
        (folders / f"ann_bev_dir/train_depth/{name}.npz").unlink()
    with pytest.raises(DataError, match=r"no image of train has a depth file\n.*nuscenes-depth root="):
        build(files.config(folders, DEPTH), "train", augment=True)


def test_labels_of_another_size_or_kind_are_refused(folders: Path) -> None:
    path = folders / "ann_bev_dir/train/a.png"
    samples, _ = build(files.config(folders), "train", augment=False)
    _write_label(path, np.zeros((100, 100), np.uint16))
    with pytest.raises(DataError, match=r"a\.png: the label has 100 x 100 cells, expected 196 x 200"):
        samples[0]
    _write_label(path, np.full((196, 200), 1 << 15, np.uint16))
    with pytest.raises(DataError, match=r"a\.png: has value 32768; labels use bits 0 to 14"):
        samples[0]
    cv2.imwrite(str(path), np.zeros((196, 200), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: has uint8 values, expected a 16-bit label.*token a"):
        samples[0]


def test_label_size_follows_the_grid(folders: Path) -> None:
    small = {"grid": {"x": [-25, 25, 1], "z": [1, 50, 1]}}
    _write_label(folders / "ann_bev_dir/val/e.png", np.zeros((98, 100), np.uint16))
    assert build(files.config(folders, small), "val", augment=False)[0][0]["label"].shape == (98, 100)


def test_larger_cells_unite_the_label(folders: Path) -> None:
    """A cell of a coarser grid has every class that a counting part has; it counts if any part does."""
    bits = np.zeros((196, 200), np.uint16)
    bits[0, 0], bits[1, 1], bits[0, 1] = 1, 1 << 4, 1 << 5 | 1 << IGNORE_BIT
    bits[2:4, 0:2] = 1 << IGNORE_BIT | 1
    _write_label(folders / "ann_bev_dir/val/e.png", bits)
    coarse = {"grid": {"x": [-25, 25, 1], "z": [1, 50, 1]}}
    label = build(files.config(folders, coarse), "val", augment=False)[0][0]["label"]
    assert label.shape == (98, 100)
    assert (label[0, 0], label[1, 0], label[2, 2]) == (1 | 1 << 4, 1 << IGNORE_BIT, 0)


def test_broken_image_is_named(folders: Path) -> None:
    path = folders / "img_dir/train/b.png"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"b\.png: the image is cut short.*token b"):
        build(files.config(folders), "train", augment=False)[0][1]


def test_depth_files(tmp_path: Path) -> None:
    """Metres in npz and npy, metres times 256 in png; no scale is guessed."""
    depth = np.zeros((4, 6), np.float32)
    depth[1, 2], depth[3, 5] = 0.5, 40
    np.savez(tmp_path / "a.npz", depth=depth)
    np.save(tmp_path / "a.npy", depth)
    cv2.imwrite(str(tmp_path / "a.png"), (depth * 256).astype(np.uint16))
    for suffix in ("npz", "npy", "png"):
        np.testing.assert_array_equal(read_depth(tmp_path / f"a.{suffix}"), depth)
    np.save(tmp_path / "b.npy", depth[None])
    np.save(tmp_path / "c.npy", -depth)
    with pytest.raises(DataError, match=r"b\.npy: depth has shape \(1, 4, 6\)"):
        read_depth(tmp_path / "b.npy")
    with pytest.raises(DataError, match=r"c\.npy: depth is negative"):
        read_depth(tmp_path / "c.npy")


def test_resized_depth_keeps_the_nearest() -> None:
    depth = np.zeros((4, 4), np.float32)
    depth[0, 0], depth[1, 1], depth[3, 2] = 7, 5, 9
    assert resize_depth(depth, (2, 2)).tolist() == [[5, 0], [0, 9]]
    larger = resize_depth(depth, (8, 8))
    assert (larger > 0).sum() == 3
    assert larger[1, 1] == 7
    assert resize_depth(depth, (4, 4)) is depth


def test_root_in_another_letter_case(folders: Path) -> None:
    config = files.config(folders.with_name("nuScenes"))
    with pytest.warns(UserWarning, match="nuScenes: no such folder; .*nuscenes is taken instead"):
        samples, _ = build(config, "train", augment=False)
    assert len(samples) == 4


def test_missing_root_and_layout(tmp_path: Path) -> None:
    for config in (files.config(None), files.config(tmp_path / "none")):
        with pytest.raises(DataError, match=r"data\.root.*\n.*OMMA_DATA_DIFFBEV.*omma world nuscenes"):
            build(config, "train", augment=True)
    with pytest.raises(DataError, match="no layout is recognised"):
        build(files.config(tmp_path), "train", augment=True)


@pytest.mark.parametrize(("name", "value"), [("split_lists", "official"), ("mask_file", "a.png")])
def test_settings_of_another_layout_are_not_ignored(folders: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{name}={value}: layout folders does not have it"):
        build(files.config(folders, **{name: value}), "train", augment=True)


def test_samples_pickle_and_list_their_files(folders: Path) -> None:
    samples, _ = build(files.config(folders, DEPTH), "train", augment=True)
    copy = pickle.loads(pickle.dumps(samples))
    assert torch.equal(copy[3, 2]["image"], samples[3, 2]["image"])
    assert len(samples.files()) == 12
    assert all(path.is_file() for path in samples.files())


def test_fast_decode_changes_pixels_little(folders: Path) -> None:
    smooth = cv2.resize(files.photo(5, (60, 80)), (640, 480), interpolation=cv2.INTER_CUBIC)
    (folders / "img_dir/val/e.png").write_bytes(cv2.imencode(".jpg", smooth)[1].tobytes())
    slow, fast = (
        build(files.config(folders, fast_decode=fast), "val", augment=False)[0][0] for fast in (False, True)
    )
    assert torch.equal(slow["intrinsics"], fast["intrinsics"])
    assert 0 < (slow["image"].float() - fast["image"].float()).abs().mean() < 4


def test_label_setting(folders: Path) -> None:
    assert label_setting(folders).startswith("labels of unknown making")
    files.write_json(folders / "ann_bev_dir/labels.json", {"style": "exact", "ignore": "fov"})
    assert label_setting(folders) == "labels: style exact, ignored: fov"


def test_collate_keeps_words_as_lists() -> None:
    batch = collate([{"token": "a", "x": torch.zeros(2)}, {"token": "b", "x": torch.ones(2)}])
    assert batch["token"] == ["a", "b"]
    assert batch["x"].tolist() == [[0, 0], [1, 1]]
