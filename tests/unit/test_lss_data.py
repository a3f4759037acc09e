"""LSS samples: right geometry in every layout, augmentation from the generator alone, clear errors."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import lss_files as files
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from omma.data.dataset import Samples
from omma.data.formats.simbev_layout import CAMERAS
from omma.errors import ConfigError, DataError
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.data import build, build_inputs, collate

WRITERS = {
    "simbev-seed": files.write_seed,
    "simbev-cvt": files.write_cvt,
    "simbev": files.write_official,
    "nuscenes": files.write_nuscenes,
}
REAL = Path(__file__).parents[3] / "shared" / "realdata" / "simbev"


@pytest.fixture
def seed_root(tmp_path: Path) -> Path:
    return files.write_seed(tmp_path / "seed", scenes=2)


def _lift(sample: dict[str, Any], camera: int, point_ego: np.ndarray) -> np.ndarray:
    """Project a point into the network's input by the true rig, then lift it by the sample's matrices."""
    name = CAMERAS[camera]
    cam = np.linalg.inv(files.ego_T_cam(name)) @ np.append(point_ego, 1)
    intrinsics = sample["intrins"][camera].double().numpy()
    uv_file = (intrinsics @ cam[:3] / cam[2])[:2]
    post = sample["post_rots"][camera].double().numpy()
    uv = post[:2, :2] @ uv_file + sample["post_trans"][camera].double().numpy()[:2]
    undone = np.linalg.solve(post[:2, :2], uv - sample["post_trans"][camera].double().numpy()[:2])
    ray = np.linalg.solve(intrinsics, np.append(undone, 1))
    rotation, translation = (sample[key][camera].double().numpy() for key in ("rots", "trans"))
    return rotation @ (ray * cam[2]) + translation


@pytest.mark.parametrize("layout", WRITERS)
def test_a_box_seen_is_the_box_labelled(tmp_path: Path, layout: str) -> None:
    """A box 12 m ahead, 2 m left: lifted from two cameras and labelled in cell (124, 104) in all layouts."""
    WRITERS[layout](tmp_path)
    samples, _ = build(files.config(tmp_path, frame_stride=1), "train", augment=False)
    assert samples.labels.layout == layout
    sample = samples[0]
    for camera in (0, 1):
        lifted = _lift(sample, camera, np.array([12.1, 2.1, 0.5]))
        np.testing.assert_allclose(lifted, [12.1, 2.1, 0.5], atol=1e-4)
        cell = ((lifted[:2] + 50) / 0.5).astype(int)
        assert tuple(cell) == files.BOX_CELL
    target = sample["target"].numpy()
    assert target.shape == (1, 200, 200)
    assert target.dtype == np.float32
    assert target[(0, *files.BOX_CELL)] == 1
    rows, columns = np.nonzero(target[0])
    assert rows.min() >= 119
    assert rows.max() <= 129
    assert columns.min() >= 101
    assert columns.max() <= 107
    assert 25 <= len(rows) <= 60


@pytest.mark.parametrize("layout", WRITERS)
def test_samples_have_the_promised_shapes(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    config = files.config(tmp_path, frame_stride=1, layout=layout)
    samples, join = build(config, "train", augment=True)
    batch = join([samples[0], samples[0]])
    shapes = {key: tuple(value.shape) for key, value in batch.items() if key != "token"}
    assert shapes == {
        "images": (2, 6, 3, 32, 64),
        "rots": (2, 6, 3, 3),
        "trans": (2, 6, 3),
        "intrins": (2, 6, 3, 3),
        "post_rots": (2, 6, 3, 3),
        "post_trans": (2, 6, 3),
        "sizes": (2, 6, 2),
        "target": (2, 1, 200, 200),
    }
    assert batch["images"].dtype == torch.uint8
    assert batch["sizes"][0, 0].tolist() == list(files.SIZE)
    assert batch["token"] == [samples.name(0)] * 2
    assert {batch[key].dtype for key in ("rots", "trans", "intrins", "post_rots", "target")} == {
        torch.float32
    }


def test_augmentation_is_a_function_of_seed_epoch_and_index(seed_root: Path) -> None:
    samples, _ = build(files.config(seed_root), "train", augment=True)
    first, again, other = samples[0, 1], samples[0, 1], samples[1, 1]
    for key in ("images", "post_rots", "post_trans"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])
    samples.seed = 1
    assert not torch.equal(samples[0, 1]["post_rots"], first["post_rots"])
    plain, _ = build(files.config(seed_root), "train", augment=False)
    assert torch.equal(plain[0, 1]["images"], plain[1, 1]["images"])


def test_each_camera_has_its_own_draw_unless_asked_otherwise(seed_root: Path) -> None:
    own = build(files.config(seed_root), "train", augment=True)[0][0]["post_rots"]
    assert len({tuple(matrix.flatten().tolist()) for matrix in own}) == 6
    shared_config = files.config(seed_root, augment={"per_sample": True})
    shared = build(shared_config, "train", augment=True)[0][0]["post_rots"]
    assert len({tuple(matrix.flatten().tolist()) for matrix in shared}) == 1


def test_automatic_scale_brackets_the_validation_scale(seed_root: Path) -> None:
    config = files.config(seed_root, augment={"rotate_deg": [0, 0], "flip": False})
    train, _ = build(config, "train", augment=True)
    scales = torch.stack([train[epoch, 0]["post_rots"][:, 0, 0] for epoch in range(20)])
    val = build(config, "val", augment=False)[0][0]["post_rots"][0, 0, 0]
    assert scales.min() < val < scales.max()
    assert 0.85 * val < scales.min()
    assert scales.max() < 1.03 * val


def test_three_cameras_are_the_front_ones_in_training_and_validation(seed_root: Path) -> None:
    config = files.config(seed_root, num_cameras=3)
    full = build(files.config(seed_root), "val", augment=False)[0][0]
    for split, augment in (("train", True), ("val", False)):
        samples, _ = build(config, split, augment=augment)
        assert samples.cameras == ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")
        sample = samples[0]
        assert sample["images"].shape[0] == 3
        assert torch.equal(sample["trans"], full["trans"][:3])


def test_random_cameras_in_training_all_in_validation(seed_root: Path) -> None:
    config = files.config(seed_root, num_cameras=4, camera_sampling="random")
    train, _ = build(config, "train", augment=True)
    chosen = {tuple(map(tuple, train[epoch, 0]["trans"].tolist())) for epoch in range(12)}
    assert len(chosen) > 3
    assert train[0]["images"].shape[0] == 4
    assert train.cameras is None
    assert build(config, "val", augment=False)[0][0]["images"].shape[0] == 6


def test_cameras_by_name(seed_root: Path) -> None:
    samples, _ = build(files.config(seed_root, cameras=["CAM_BACK", "CAM_FRONT"]), "val", augment=False)
    assert samples.cameras == ("CAM_BACK", "CAM_FRONT")
    np.testing.assert_allclose(samples[0]["trans"][:, 0], [-1.0, 0.6], atol=1e-6)
    with pytest.raises(ConfigError, match=r"data\.cameras names CAM_TOP; there are CAM_FRONT_LEFT"):
        build(files.config(seed_root, cameras=["CAM_TOP"]), "val", augment=False)
    with pytest.raises(ConfigError, match=r"num_cameras=7: there are 6"):
        build(files.config(seed_root, num_cameras=7), "val", augment=False)


def test_turning_the_ego_frame_turns_geometry_and_label_alike(seed_root: Path) -> None:
    """Whatever turn is drawn, the box lifted from the image still lies on the label."""
    config = files.config(seed_root, augment={"bev_rotate_deg": 45, "bev_flip": True})
    samples, _ = build(config, "train", augment=True)
    cells = set()
    for epoch in range(6):
        sample = samples[epoch, 0]
        lifted = [_lift(sample, camera, np.array([12.1, 2.1, 0.5])) for camera in (0, 1)]
        np.testing.assert_allclose(lifted[0], lifted[1], atol=1e-4)
        cell = tuple(((lifted[0][:2] + 50) / 0.5).astype(int))
        assert sample["target"][(0, *cell)] == 1
        assert sample["mask"].shape == (1, 200, 200)
        assert not sample["mask"].all(), "corners of the turned grid are not known"
        cells.add(cell)
    assert len(cells) == 6


def test_inverted_extrinsics_are_the_deliberate_error(seed_root: Path) -> None:
    sample = build(files.config(seed_root, invert_extrinsics=True), "val", augment=False)[0][0]
    lifted = [_lift(sample, camera, np.array([12.1, 2.1, 0.5])) for camera in (0, 1)]
    assert np.abs(lifted[0] - lifted[1]).max() > 5, "the two cameras contradict each other"


def test_visibility_masks_hidden_objects(tmp_path: Path) -> None:
    for layout in ("simbev-cvt", "nuscenes"):
        root = WRITERS[layout](tmp_path / layout)
        sample = build(files.config(root, min_visibility=2), "train", augment=False)[0][0]
        assert sample["mask"].shape == (1, 200, 200)
        hidden = ~sample["mask"][0]
        assert hidden[files.BOX_CELL]
        overlap = (hidden & (sample["target"][0] > 0)).sum() / hidden.sum()
        assert overlap == 1, layout
        assert "mask" not in build(files.config(root), "train", augment=False)[0][0]
        assert build(files.config(root, min_visibility=1), "train", augment=False)[0][0]["mask"].all()


def test_labels_stored_like_pictures_are_turned_on_request(seed_root: Path) -> None:
    plain = build(files.config(seed_root), "val", augment=False)[0][0]["target"]
    turned = build(files.config(seed_root, label_frame="simbev"), "val", augment=False)[0][0]["target"]
    assert torch.equal(turned, plain.flip(1, 2))


def test_ego_vehicle_is_blanked_on_request(tmp_path: Path) -> None:
    root = files.write_official(tmp_path)
    system = {"targets": {"road": ["road"]}}
    config = files.config(root, system, blank_ego=True)
    target = build(config, "val", augment=False)[0][0]["target"][0]
    assert target[96:104, 98:102].max() == 0
    assert target.sum() == 200 * 200 - 10 * 4


def test_targets_unite_classes_by_name(tmp_path: Path) -> None:
    """Car is channel 7 of 14: with indices of another version it would not be found."""
    root = files.write_official(tmp_path, cells=400, classes=14)
    system = {"targets": {"vehicle": ["car", "bus"], "road": ["road"], "person": ["pedestrian"]}}
    target = build(files.config(root, system), "val", augment=False)[0][0]["target"]
    assert target.shape == (3, 200, 200)
    assert target[(0, *files.BOX_CELL)] == 1
    assert target[1].all()
    assert not target[2].any()


def test_seed_labels_of_another_size_need_a_cell_size(seed_root: Path) -> None:
    small = {"grid": {"x": [-32, 32, 1], "y": [-32, 32, 1]}}
    with pytest.raises(DataError, match=r"bev_0000\.npy: the label has 200 x 200 cells, the grid 64 x 64"):
        build(files.config(seed_root, small), "val", augment=False)[0][0]
    sampled = build(files.config(seed_root, small, label_cell_m=0.5), "val", augment=False)[0][0]["target"]
    assert sampled.shape == (1, 64, 64)
    assert sampled[0, 44, 34] == 1
    with pytest.raises(DataError, match="the label reaches 20 m, the grid 32 m"):
        build(files.config(seed_root, small, label_cell_m=0.2), "val", augment=False)[0][0]


def test_top_crop_and_file_size_keep_points_in_place(tmp_path: Path) -> None:
    """Files of 90 x 160 under a 48 x 96 source with rows cut off: lifting still finds the point."""
    root = files.write_seed(tmp_path, size=(90, 160))
    for options in ({}, {"top_crop": 6}, {"fast_decode": True}):
        sample = build(files.config(root, **options), "train", augment=True)[0][0]
        assert sample["sizes"][0].tolist() == [90, 160]
        np.testing.assert_allclose(_lift(sample, 1, np.array([12.1, 2.1, 0.5])), [12.1, 2.1, 0.5], atol=1e-4)


def test_fast_decode_changes_pixels_little(tmp_path: Path) -> None:
    root = files.write_seed(tmp_path, size=(384, 768))
    slow = build(files.config(root), "val", augment=False)[0][0]
    fast = build(files.config(root, fast_decode=True), "val", augment=False)[0][0]
    assert torch.equal(slow["post_rots"], fast["post_rots"])
    difference = (slow["images"].float() - fast["images"].float()).abs()
    assert 0 < difference.mean() < 4


def test_samples_pickle_and_load_in_spawned_workers(seed_root: Path) -> None:
    samples, join = build(files.config(seed_root), "train", augment=True)
    copy = pickle.loads(pickle.dumps(samples))
    assert isinstance(copy, Samples)
    assert torch.equal(copy[3, 2]["images"], samples[3, 2]["images"])
    loader = DataLoader(
        samples, batch_size=2, num_workers=1, collate_fn=join, multiprocessing_context="spawn"
    )
    assert [token for batch in loader for token in batch["token"]] == [samples.name(i) for i in range(4)]


def test_files_lists_everything_that_is_read(seed_root: Path) -> None:
    samples, _ = build(files.config(seed_root), "val", augment=False)
    assert len(samples.files()) == 2 * 7
    assert all(path.is_file() for path in samples.files())


def test_inputs_without_labels(tmp_path: Path, seed_root: Path) -> None:
    meta = seed_root / "val/val_0000/yaw0pitch0/meta.json"
    samples = json.loads(meta.read_text())
    del samples[0]["label"]
    meta.write_text(json.dumps(samples))
    inputs, join = build_inputs(files.config(seed_root), [meta])
    assert "target" not in join([inputs[0]])
    assert inputs[1]["target"].shape == (1, 200, 200)
    meta.write_text("[]")
    with pytest.raises(DataError, match="hold no sample"):
        build_inputs(files.config(seed_root), [meta])
    with pytest.raises(DataError, match=r"front\.png: no meta\.json") as error:
        build_inputs(files.config(seed_root), [meta.with_name("front.png")])
    assert "where its camera is" in error.value.hint


def test_a_missing_data_root_names_every_way_to_give_one(tmp_path: Path) -> None:
    for config in (LSSConfig(), files.config(tmp_path / "none")):
        with pytest.raises(DataError) as error:
            build(config, "train", augment=True)
        for remedy in ("data.root", "OMMA_DATA_LSS", "omma world simbev-seed --out"):
            assert remedy in str(error.value)


def test_unknown_folder_and_empty_split(tmp_path: Path, seed_root: Path) -> None:
    with pytest.raises(DataError, match="no layout is recognised"):
        build(files.config(tmp_path), "train", augment=True)
    with pytest.raises(DataError, match="split 'train' has no sample"):
        build(files.config(seed_root, orientation="yaw90pitch0"), "train", augment=True)
    with pytest.raises(DataError, match=r"seed.test: no such folder"):
        build(files.config(seed_root), "test", augment=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_visibility", 2), ("version", "v1.0-mini"), ("trust_pickle", True), ("split_file", "a")],
)
def test_settings_of_another_layout_are_not_ignored(seed_root: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{name}=.*layout simbev-seed does not have it"):
        build(files.config(seed_root, **{name: value}), "train", augment=True)


def test_a_broken_file_is_named_with_its_sample(seed_root: Path) -> None:
    samples, _ = build(files.config(seed_root), "train", augment=True)
    path = seed_root / "train/train_0001/yaw0pitch0/images/back_0000.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"back_0000\.jpg: the image is cut short.*sample train_0001_0000"):
        samples[2]
    path.unlink()
    with pytest.raises(
        DataError, match=r"back_0000\.jpg: no such file \(sample train_0001_0000, .*meta\.json"
    ):
        samples[2]
    label = seed_root / "train/train_0000/yaw0pitch0/labels/bev_0001.npy"
    np.save(label, np.zeros((100, 100)))
    with pytest.raises(DataError, match=r"bev_0001\.npy: the label has 100 x 100 .*train_0000_0001"):
        samples[1]


def test_intrinsics_of_another_size_are_warned_of(seed_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(files.config(seed_root), "val", augment=False)
    meta = seed_root / "val/val_0000/yaw0pitch0/meta.json"
    samples = json.loads(meta.read_text())
    samples[0]["intrinsics"] = [[[953, 0, 800], [0, 953, 450], [0, 0, 1]]] * 6
    meta.write_text(json.dumps(samples))
    with pytest.warns(UserWarning, match="another image size .*cx is 800, the image is 96 pixels wide"):
        build(files.config(seed_root), "val", augment=False)


def test_split_file_names_scenes(tmp_path: Path) -> None:
    root = files.write_cvt(tmp_path / "cvt")
    (tmp_path / "my-val.txt").write_text("scene_0000\nscene_0003\n", encoding="utf-8")
    config = files.config(root, split_file=str(tmp_path / "my-{split}.txt"))
    assert [frame.scene for frame in build(config, "val", augment=False)[0].frames] == [
        "scene_0000",
        "scene_0003",
    ]
    with pytest.raises(DataError, match=r"my-train\.txt: no such split file"):
        build(config, "train", augment=False)


def test_collate_keeps_tokens_as_a_list() -> None:
    batch = collate([{"token": "a", "x": torch.zeros(2)}, {"token": "b", "x": torch.ones(2)}])
    assert batch["token"] == ["a", "b"]
    assert batch["x"].tolist() == [[0, 0], [1, 1]]


@pytest.mark.skipif(not REAL.is_dir(), reason="data folder not present")
def test_real_simbev_frame_loads_and_boxes_lie_on_the_label() -> None:
    """The published frame: six 1600 x 900 images; box footprints fit the label and none of its turns."""
    from omma.data.transforms import fill_boxes

    config = files.config(REAL, source_size=[224, 480], image_size=[128, 352])
    samples, _ = build(config, "val", augment=False)
    sample = samples[0]
    assert sample["images"].shape == (6, 3, 128, 352)
    assert sample["sizes"].tolist() == [[900, 1600]] * 6
    label = sample["target"][0].numpy() > 0
    boxes = samples.labels.boxes(samples.frames[0])
    assert boxes is not None
    drawn = fill_boxes(boxes.of_classes(["car", "truck", "bus"]).footprints, files.GRID) > 0
    turns = [label, label[::-1], label[:, ::-1], label[::-1, ::-1]]
    turns += [label.T, label.T[::-1], label.T[:, ::-1], label.T[::-1, ::-1]]
    overlaps = [(turn & drawn).sum() / (turn | drawn).sum() for turn in turns]
    assert overlaps[0] > 0.45
    assert max(overlaps[1:]) < 0.1
