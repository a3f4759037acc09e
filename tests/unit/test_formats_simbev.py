"""SimBEV's three layouts: what is read, and what is said about what is missing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import lss_files as files
import numpy as np
import pytest

from omma.data.formats import simbev, simbev_boxes, simbev_cvt, simbev_seed
from omma.data.formats.frame import Boxes, Masks, is_class
from omma.data.formats.simbev_layout import CAMERAS, CLASSES_BY_COUNT
from omma.errors import ConfigError, DataError


def _edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def seed_root(tmp_path: Path) -> Path:
    return files.write_seed(tmp_path, scenes=2)


@pytest.fixture
def meta(seed_root: Path) -> Path:
    return seed_root / "train/train_0001/yaw0pitch0/meta.json"


def test_seed_frames_are_sorted_and_inverted(seed_root: Path) -> None:
    frames = simbev_seed.read_frames(seed_root, "train")
    expected = ["train_0000_0000", "train_0000_0001", "train_0001_0000", "train_0001_0001"]
    assert [frame.token for frame in frames] == expected
    assert [frame.scene for frame in frames] == ["train_0000"] * 2 + ["train_0001"] * 2
    assert frames[0].cameras == CAMERAS
    np.testing.assert_allclose(frames[0].ego_T_cam[0], files.ego_T_cam("CAM_FRONT_LEFT"), atol=1e-12)
    assert all(path.is_file() for frame in frames for path in frame.files)


def test_seed_reads_every_orientation_unless_one_is_named(seed_root: Path) -> None:
    turned = seed_root / "train/train_0000/yaw20pitch0"
    files.write_json(turned / "meta.json", [files.seed_sample(turned, 0)])
    assert len(simbev_seed.read_frames(seed_root, "train")) == 5
    assert len(simbev_seed.read_frames(seed_root, "train", orientation="yaw0pitch0")) == 4
    assert len(simbev_seed.read_frames(seed_root, "train", orientation="yaw20pitch0")) == 1
    assert len(simbev_seed.read_frames(seed_root, "train", frame_stride=2)) == 3


@pytest.mark.parametrize("field", ["token", "images", "intrinsics", "extrinsics", "label"])
def test_a_missing_field_is_named_with_file_and_sample(seed_root: Path, meta: Path, field: str) -> None:
    _edit(meta, lambda samples: samples[1].pop(field))
    with pytest.raises(DataError, match=rf"train_0001.*meta\.json, sample 1: field '{field}' is missing"):
        simbev_seed.read_frames(seed_root, "train")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", ["a.jpg"], "images has 1 entries, expected 6: CAM_FRONT_LEFT"),
        ("images", "a.jpg", "images has no list"),
        ("intrinsics", [[[1, 0, 0, 0]] * 3] * 6, r"intrinsics has shape \(6, 3, 4\), expected \(6, 3, 3\)"),
        ("extrinsics", [[[1, 0], [0]]] * 6, "extrinsics is not an array of numbers"),
        ("extrinsics", "none", "extrinsics is not an array of numbers"),
        ("extrinsics", [[[float("nan")] * 4] * 4] * 6, "extrinsics holds a value that is not finite"),
    ],
)
def test_a_wrong_field_is_named(seed_root: Path, meta: Path, field: str, value: Any, message: str) -> None:
    _edit(meta, lambda samples: samples[0].__setitem__(field, value))
    with pytest.raises(DataError, match=rf"meta\.json, sample 0: {message}"):
        simbev_seed.read_frames(seed_root, "train")


def test_a_foreign_meta_file_is_named(seed_root: Path, meta: Path) -> None:
    meta.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"meta\.json: holds dict, expected a list of samples"):
        simbev_seed.read_frames(seed_root, "train")
    meta.write_text("[3]", encoding="utf-8")
    with pytest.raises(DataError, match="sample 0: expected fields and values, found int"):
        simbev_seed.read_frames(seed_root, "train")
    with pytest.raises(DataError, match="no such folder"):
        simbev_seed.read_frames(seed_root, "test")


@pytest.mark.parametrize("suffix", [".npy", ".png", ".npy3"])
def test_seed_labels_in_all_forms(seed_root: Path, suffix: str) -> None:
    frame = simbev_seed.read_frames(seed_root, "val")[0]
    path = frame.folder / str(frame.label)
    label = files.lss_label()
    if suffix == ".png":
        frame = simbev_seed.read_frames(seed_root, "val")[0].__class__(**{**frame.__dict__, "label": "l.png"})
        cv2.imwrite(str(frame.folder / "l.png"), label * 255)
    elif suffix == ".npy3":
        np.save(path, np.dstack([np.zeros_like(label), label * 0.3]))
    masks = simbev_seed.read_masks(frame)
    np.testing.assert_array_equal(masks.unite({"vehicle": ["car"]})[0], label > 0)
    assert masks.classes is None


def test_unnamed_channels_are_one_target_each_or_united() -> None:
    values = np.zeros((2, 3, 3), bool)
    values[0, 0, 0] = values[1, 1, 1] = True
    masks = Masks(values, None, None)
    assert masks.unite({"a": ["car"]}).sum() == 2
    np.testing.assert_array_equal(masks.unite({"a": ["x"], "b": ["y"]}), values)
    with pytest.raises(ConfigError, match=r"has 3 entries, the label 2 channels"):
        masks.unite({"a": [], "b": [], "c": []})


@pytest.mark.parametrize("count", [8, 11, 14])
def test_classes_are_chosen_by_name_not_number(count: int) -> None:
    names = CLASSES_BY_COUNT[count]
    values = np.zeros((count, count, count), bool)
    values[range(count), range(count)] = True  # row k belongs to class k
    masks = Masks(values, names, 0.4)
    united = masks.unite({"vehicle": ["car", "truck", "bus"], "way": ["road"]})
    rows = [names.index(name) for name in ("car", "truck", "bus")]
    assert sorted(np.nonzero(united[0].any(1))[0].tolist()) == sorted(rows)
    assert np.nonzero(united[1].any(1))[0].tolist() == [0]
    with pytest.raises(ConfigError, match=r"names van, which the labels do not have"):
        masks.unite({"vehicle": ["car", "van"]})


def test_official_frames(tmp_path: Path) -> None:
    """Absolute paths of another machine, also Windows ones, are re-rooted; the splits are listed."""
    root = files.write_official(tmp_path, frames=5)
    frames = simbev.read_frames(root, "train", frame_stride=2)
    assert [frame.token for frame in frames] == ["scene_0000_0000", "scene_0000_0002", "scene_0000_0004"]
    assert all(path.is_file() for frame in frames for path in frame.files)
    assert len(simbev.read_frames(root / "simbev", "train")) == 1, "one of 20 frames by default"
    np.testing.assert_allclose(frames[0].ego_T_cam[1], files.ego_T_cam("CAM_FRONT"), atol=1e-7)
    np.testing.assert_allclose(frames[0].global_T_ego, files.GLOBAL_T_EGO, atol=1e-12)
    assert frames[0].cell_m == 0.4
    with pytest.raises(DataError, match=r"simbev_infos_test\.json: no such file\n.*train, val"):
        simbev.read_frames(root, "test")


def test_official_frames_far_apart_in_time_are_all_taken(tmp_path: Path) -> None:
    root = files.write_official(tmp_path, frames=3)
    infos = root / "simbev/infos/simbev_infos_train.json"
    for spacing_us, expected in ((50_000, 1), (1_000_000, 3)):

        def set_times(value: Any, spacing_us: int = spacing_us) -> None:
            for index, record in enumerate(value["data"]["scene_0000"]["scene_data"]):
                record["timestamp"] = 7 + index * spacing_us

        _edit(infos, set_times)
        assert len(simbev.read_frames(root, "train")) == expected


def test_official_cell_size_comes_from_the_scene_where_it_is_kept(tmp_path: Path) -> None:
    root = files.write_official(tmp_path, frames=1)
    infos = root / "simbev/infos/simbev_infos_val.json"
    settings = {"config": {"grid": {"bev_res": 0.25}}}
    _edit(infos, lambda value: value["data"]["scene_0001"]["scene_info"].update(settings))
    assert simbev.read_frames(root, "val")[0].cell_m == 0.25


def test_official_paths_outside_the_data_set_are_refused(tmp_path: Path) -> None:
    root = files.write_official(tmp_path, frames=1)
    infos = root / "simbev/infos/simbev_infos_val.json"
    change = {"GT_SEG": "/elsewhere/GT_SEG.npz"}
    _edit(infos, lambda value: value["data"]["scene_0001"]["scene_data"][0].update(change))
    with pytest.raises(DataError, match=r"scene_0001, frame 0: GT_SEG is '/elsewhere/GT_SEG\.npz'"):
        simbev.read_frames(root, "val")


def test_official_label_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    root = files.write_official(tmp_path, frames=1)
    frame = simbev.read_frames(root, "val")[0]
    np.savez(frame.folder / str(frame.label), data=np.zeros((9, 4, 4), bool))
    with pytest.raises(DataError, match=r"data has shape \(9, 4, 4\).*8, 11, 14"):
        simbev.read_masks(frame)


def test_pickled_boxes_need_trust_and_come_in_the_ego_frame(tmp_path: Path) -> None:
    frame = simbev.read_frames(files.write_official(tmp_path, frames=1), "val")[0]
    assert simbev.read_frame_boxes(frame) is None
    boxes = simbev.read_frame_boxes(frame, trust_pickle=True)
    assert boxes is not None
    assert boxes.classes == ("car",)
    footprint = boxes.footprints[0]
    assert {tuple(corner) for corner in footprint.round(6)} == {tuple(corner) for corner in files.BOX_XY}
    steps = np.linalg.norm(footprint - np.roll(footprint, 1, 0), axis=1)
    np.testing.assert_allclose(np.sort(steps), [2, 2, 4, 4], err_msg="corners go around, not across")


def test_json_boxes_are_read_always_and_first(tmp_path: Path) -> None:
    frame = simbev.read_frames(files.write_official(tmp_path, frames=1), "val")[0]
    path = (frame.folder / str(frame.boxes)).with_suffix(".json")
    records = simbev_boxes.plain_records([files.box_record(), files.box_record() | {"semantic_tags": [7]}])
    files.write_json(path, records)
    boxes = simbev.read_frame_boxes(frame)
    assert boxes is not None
    assert boxes.classes == ("car", "light")
    assert boxes.of_classes(["car"]).corners.shape == (1, 8, 3)


def test_boxes_measured_from_above(tmp_path: Path) -> None:
    record = {
        "class": "truck",
        "center_xy_ego": [12, 2],
        "length": 4,
        "width": 2,
        "yaw_rad_mod_pi": np.pi / 2,
    }
    files.write_json(tmp_path / "b.json", [record])
    boxes = simbev_boxes.read_boxes(tmp_path / "b.json", None)
    low, high = boxes.footprints[0].min(0), boxes.footprints[0].max(0)
    np.testing.assert_allclose([low, high], [[11, 0], [13, 4]], atol=1e-9)
    assert boxes.corners[..., 2].min() == 0


def test_boxes_given_in_the_ego_frame(tmp_path: Path) -> None:
    corners = [[x, y, z] for x in (10, 14) for y in (1, 3) for z in (0, 1.5)]
    files.write_json(tmp_path / "b.json", [{"class": "bus", "corners_ego": corners, "visible": 0.5}])
    boxes = simbev_boxes.read_boxes(tmp_path / "b.json", None)
    assert boxes.classes == ("bus",)
    assert {tuple(corner) for corner in boxes.footprints[0]} == {tuple(corner) for corner in files.BOX_XY}


def test_box_files_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(DataError, match=r"b\.json: holds dict, expected a list of boxes"):
        simbev_boxes.read_boxes(path, None)
    files.write_json(path, [{"semantic_tags": [14], "bounding_box": [[0, 0, 0]] * 8}])
    with pytest.raises(DataError, match=r"b\.json, box 0: .*global frame"):
        simbev_boxes.read_boxes(path, None)
    files.write_json(path, [{"bounding_box": []}])
    with pytest.raises(DataError, match="box 0: field 'semantic_tags' is missing"):
        simbev_boxes.read_boxes(path, None)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


class _Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, ("echo exploded > exploded",))


class _Eval:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("open('exploded', 'w')",))


@pytest.mark.parametrize("bomb", [_Bomb(), _Shell(), _Eval(), np.load, files])
@pytest.mark.parametrize("form", ["array", "list"])
def test_a_malicious_pickle_is_refused_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: Any, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "GT_DET.bin"
    if bomb is files:
        content = pickle.dumps([1])[:-2] + b"cbuiltins\nexec\n."  # a bare reference, without a call
        path.write_bytes(content)
    elif form == "array":
        with path.open("wb") as file:
            np.save(file, np.array([{"id": bomb}], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps([{"id": bomb}]))
    with pytest.raises(DataError, match=r"GT_DET\.bin: refused: it asks for"):
        simbev_boxes.read_pickled_records(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_honest_pickles_of_all_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "GT_DET.bin"
    record = files.box_record() | {"speed": np.float64(1.5), "valid_flag": True, "tags": (1, 2)}
    path.write_bytes(pickle.dumps([record], protocol=protocol))
    read = simbev_boxes.read_pickled_records(path)[0]
    np.testing.assert_array_equal(read["bounding_box"], record["bounding_box"])
    json.dumps(simbev_boxes.plain_records([read]))


def test_a_damaged_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "GT_DET.bin"
    path.write_bytes(pickle.dumps([files.box_record()])[:60])
    with pytest.raises(DataError, match=r"GT_DET\.bin"):
        simbev_boxes.read_pickled_records(path)
    path.write_bytes(pickle.dumps(3))
    with pytest.raises(DataError, match="holds int, expected a list of boxes"):
        simbev_boxes.read_pickled_records(path)


def test_cvt_frames_split_by_scene(tmp_path: Path) -> None:
    root = files.write_cvt(tmp_path)
    assert [frame.scene for frame in simbev_cvt.read_frames(root, "train")] == [
        f"scene_000{i}" for i in range(4)
    ]
    frame = simbev_cvt.read_frames(root, "val")[0]
    assert frame.token == "4_0"
    assert frame.cell_m == 0.5
    assert all(path.is_file() for path in frame.files)
    within = simbev_cvt.read_frames(root / "SimBEV_cvt_label", "val")[0]
    assert [path.resolve() for path in within.files] == [path.resolve() for path in frame.files]
    chosen = simbev_cvt.read_frames(root, "val", scenes=["scene_0001", "scene_0000"])
    assert [frame.scene for frame in chosen] == ["scene_0001", "scene_0000"]
    with pytest.raises(DataError, match="has no scene scene_0099"):
        simbev_cvt.read_frames(root, "val", scenes=["scene_0099"])
    with pytest.raises(DataError, match="train and val"):
        simbev_cvt.read_frames(root, "test")


def test_cvt_packed_png_equals_npz(tmp_path: Path) -> None:
    root = files.write_cvt(tmp_path, scenes=1)
    frame = simbev_cvt.read_frames(root, "val")[0]
    plain = simbev_cvt.read_masks(frame)
    bits = (plain.values.astype(np.uint16) << np.arange(8, dtype=np.uint16)[:, None, None]).sum(0)
    path = (frame.folder / str(frame.label)).with_suffix(".png")
    cv2.imwrite(str(path), bits.astype(np.uint16))
    meta = path.parent / "meta.json"
    _edit(meta, lambda samples: samples[0].update({"bev": path.name}))
    packed = simbev_cvt.read_masks(simbev_cvt.read_frames(root, "val")[0])
    np.testing.assert_array_equal(packed.values, plain.values)
    assert packed.classes == plain.classes == CLASSES_BY_COUNT[8]
    cv2.imwrite(str(path), np.full((4, 4), 1 << 9, np.uint16))
    with pytest.raises(DataError, match="class bits above"):
        simbev_cvt.read_masks(simbev_cvt.read_frames(root, "val")[0])


def test_cvt_cell_size_comes_from_the_view_matrix(tmp_path: Path) -> None:
    root = files.write_cvt(tmp_path, scenes=1)
    meta = root / "SimBEV_cvt_label/scene_0000/yaw0pitch0/meta.json"
    _edit(meta, lambda samples: samples[0].update({"view": [[0, -4, 200], [-4, 0, 200], [0, 0, 1]]}))
    assert simbev_cvt.read_frames(root, "val")[0].cell_m == 0.25


def test_dotted_class_names() -> None:
    assert is_class("vehicle.car", "vehicle")
    assert is_class("vehicle.car", "car")
    assert is_class("vehicle.bus.rigid", "vehicle.bus")
    assert not is_class("vehicle.car", "vehicle.c")
    assert not is_class("vehicle.ego", "car")
    none = Boxes(np.zeros((0, 8, 3)), (), np.zeros(0, np.int64))
    assert none.of_classes(["car"]).footprints.shape == (0, 4, 2)
