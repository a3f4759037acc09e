"""The index of nuScenes tables, PON's scene lists and the map expansion's reader."""

from __future__ import annotations

import json
import os
from pathlib import Path

import diffbev_files as files
import numpy as np
import pytest

from omma.data.formats import nuscenes_index
from omma.data.formats.nuscenes import CAMERAS, val_scenes
from omma.data.formats.nuscenes_index import FILE, read_index
from omma.data.formats.nuscenes_maps import read_layers
from omma.data.formats.nuscenes_splits import common_scenes, official_scenes, pon_scenes
from omma.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return files.write_nuscenes(tmp_path / "data")


def test_rows_hold_what_the_tables_say(root: Path) -> None:
    index = read_index(root)
    assert index.tokens.tolist() == sorted(index.tokens.tolist())
    assert len(index) == 6
    row = int(index.find(["1back"])[0])
    assert index.images[row] == "samples/CAM_BACK/scene-0004.jpg"
    assert index.samples[row] == "s1"
    assert index.scenes[index.scene_of[row]] == "scene-0004"
    assert index.channels[index.channel_of[row]] == "CAM_BACK"
    assert index.sizes[row].tolist() == list(files.SIZE)
    assert len(index.intrinsics) == 1, "both cameras have one calibration"
    np.testing.assert_allclose(index.intrinsics[0][0, 0], 126.6417203)
    assert index.find(["nothing", "0front", "zz"]).tolist()[::2] == [-1, -1]
    assert index.tokens[index.of_scenes(["scene-0038", "elsewhere"])].tolist() == ["2back", "2front"]


def test_it_is_built_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_index(root)
    assert (root / files.VERSION / FILE).stat().st_size < 5000
    assert not list(root.rglob("*.part"))

    def refuse(*_: object) -> None:
        raise AssertionError("built twice")

    monkeypatch.setattr(nuscenes_index, "_build", refuse)
    np.testing.assert_array_equal(read_index(root).images, first.images)
    tables = root / files.VERSION / "scene.json"
    os.utime(tables, ns=(1, 1))
    with pytest.raises(AssertionError, match="built twice"):
        read_index(root)


def test_changed_tables_change_the_index(root: Path) -> None:
    read_index(root)
    tables = root / files.VERSION / "sample_data.json"
    rows = [row for row in json.loads(tables.read_text()) if row["token"] != "0back"]
    files.write_json(tables, rows)
    assert len(read_index(root)) == 5


def test_a_damaged_index_is_built_again(root: Path) -> None:
    whole = read_index(root)
    (root / files.VERSION / FILE).write_bytes(b"PK\x03\x04 cut short")
    np.testing.assert_array_equal(read_index(root).tokens, whole.tokens)


def test_where_the_data_cannot_be_written_it_lies_in_the_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (root / files.VERSION / FILE).mkdir()  # a folder cannot be replaced by a file, not even by root
    read_index(root)
    assert len(list((tmp_path / "cache" / "omma").glob("nuscenes-*.npz"))) == 1
    monkeypatch.setattr(nuscenes_index, "_build", None)
    assert len(read_index(root)) == 6


def test_missing_tables_are_named(root: Path) -> None:
    (root / files.VERSION / "sensor.json").unlink()
    with pytest.raises(DataError, match=r"sensor\.json: no such file"):
        read_index(root)


def test_pon_lists() -> None:
    train, val = pon_scenes("train"), pon_scenes("val")
    assert (len(train), len(val), len(pon_scenes("calibration"))) == (698, 148, 50)
    assert not train & val
    assert pon_scenes("calibration") <= train
    official = val_scenes("v1.0-trainval")
    assert len(val & official) == 32
    assert {"scene-0002", "scene-0061", "scene-1110"} <= train
    assert {"scene-0001", "scene-0757", "scene-1063"} <= val
    with pytest.raises(DataError, match="split 'test': PON has train, val, calibration"):
        pon_scenes("test")


def test_official_lists_and_the_common_ones() -> None:
    names = ["scene-0003", "scene-0061", "scene-9999"]
    assert official_scenes("val", names, "v1.0-trainval") == {"scene-0003"}
    assert official_scenes("train", names, "v1.0-trainval") == {"scene-0061", "scene-9999"}
    assert official_scenes("val", ["scene-0103", "scene-0003"], "v1.0-mini") == {"scene-0103"}
    assert (len(common_scenes("train")), len(common_scenes("val"))) == (581, 32)
    assert set(common_scenes("val")) <= val_scenes("v1.0-trainval")
    with pytest.raises(DataError, match="split 'calibration': nuScenes has train and val"):
        official_scenes("calibration", names, "v1.0-trainval")


def test_map_layers(root: Path) -> None:
    layers = read_layers(root, "boston-seaport")
    assert {name: len(tree.geometries) for name, tree in layers.items()} == {
        "drivable_area": 2,
        "ped_crossing": 1,
        "walkway": 2,
        "carpark_area": 1,
    }
    assert [len(polygon.interiors) for polygon in layers["drivable_area"].geometries] == [1, 0]


def test_self_crossing_polygons_are_left_out(root: Path) -> None:
    layers = json.loads(str(files.case()["map_layers_json"]))
    layers["walkway"][0]["exterior"] = [[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]
    files.write_maps(root, layers)
    assert len(read_layers(root, "boston-seaport")["walkway"].geometries) == 1


def test_a_missing_map_says_what_to_download(root: Path) -> None:
    with pytest.raises(DataError) as error:
        read_layers(root, "singapore-onenorth")
    for part in (
        "singapore-onenorth.json",
        "Map expansion pack",
        "nuscenes.org/download",
        str(root / "maps"),
    ):
        assert part in str(error.value)


@pytest.mark.skipif(not files.REAL.is_dir(), reason="data folder not present")
def test_real_tables(tmp_path: Path) -> None:
    index = read_index(files.copy_real(tmp_path))
    assert len(index) == 6
    assert len(index.intrinsics) == 6
    assert index.sizes.tolist() == [[900, 1600]] * 6
    assert index.scenes.tolist() == ["scene-0061"]
    assert sorted(index.channels.tolist()) == sorted(CAMERAS)
