"""RGB-D readers: units, validity, pairing, splits, and one clear line for what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from lss_files import write_nuscenes
from rgbd_files import REAL, real, scene, write, write_pairs

from omma.data.formats import (
    rgbd_folders,
    rgbd_ibims,
    rgbd_kitti,
    rgbd_nuscenes,
    rgbd_nyu,
    rgbd_reference,
    rgbd_uniformat,
)
from omma.data.formats.nuscenes import CAMERAS
from omma.data.formats.rgbd import KITTI, MILLIMETRES, DepthFile, ImageFile, read_intrinsics
from omma.errors import DataError
from omma.systems.g2_monodepth.layouts import find_layout, read_frames

NYU = {"units_per_metre": 1000, "max_depth": 10}


def note(folder: Path, **record: object) -> None:
    (folder / "rgbd.json").write_text(json.dumps(record or NYU), encoding="utf-8")


def test_split_folders(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 3)
    write_pairs(tmp_path / "val", 2, first=7)
    note(tmp_path)
    (tmp_path / "intrinsics.txt").write_text("60 0 32\n0 60 24\n0 0 1\n", encoding="utf-8")
    train, val = (rgbd_folders.read_frames(tmp_path, split) for split in ("train", "val"))
    assert [frame.token for frame in train] == ["train/000", "train/001", "train/002"]
    assert [frame.token for frame in val] == ["val/007", "val/008"]
    image, depth = scene(7)
    np.testing.assert_array_equal(val[0].image.read(), image)
    np.testing.assert_allclose(val[0].depth.read(), depth, atol=5e-4)
    assert val[0].image.size() == image.shape[:2]
    assert val[0].max_depth_m == 10
    assert len(train[0].files) == 2
    np.testing.assert_array_equal(train[0].intrinsics, [[60, 0, 32], [0, 60, 24], [0, 0, 1]])


def test_full_scale_coding(tmp_path: Path) -> None:
    write_pairs(tmp_path / "indoor", 1, units=65535 / 20)
    note(tmp_path / "indoor", full_scale=True, max_depth=20)
    frame = rgbd_folders.read_frames(tmp_path, "train")[0]
    assert (frame.dataset, frame.token) == ("indoor", "indoor/000")
    np.testing.assert_allclose(frame.depth.read(), scene(0)[1], atol=2e-4)


def test_folders_of_the_reference(tmp_path: Path) -> None:
    for home in ("RGBD_Datasets", "Test_Datasets"):
        write_pairs(tmp_path / home / "rooms", 2, units=65535 / 20)
        note(tmp_path / home, full_scale=True, max_depth=20)
    test = tmp_path / "Test_Datasets" / "rooms"
    (test / "depth").rename(test / "gt")
    raw = np.where(np.indices((48, 64))[1] % 9 == 0, 4096, 0).astype(np.uint16)
    for index in range(2):
        write(test / "raw_1%" / f"{index:03d}.png", raw)
    holes = write(tmp_path / "Hole_Datasets" / "a" / "1.png", np.zeros((9, 9), np.uint8))
    assert rgbd_reference.is_layout(tmp_path)
    assert rgbd_reference.find_hole_maps(tmp_path) == (holes,)
    assert rgbd_reference.find_hole_maps(tmp_path / "RGBD_Datasets") == ()
    train, val, tested = (rgbd_reference.read_frames(tmp_path, split) for split in ("train", "val", "test"))
    assert [frame.token for frame in train] == ["rooms/000", "rooms/001"]
    assert [(frame.token, frame.raw) for frame in val] == [("rooms/000", None), ("rooms/001", None)]
    assert [frame.token[-6:] for frame in tested] == ["raw_0%", "raw_0%", "raw_1%", "raw_1%"]
    assert tested[0].raw is None
    np.testing.assert_allclose(val[1].depth.read(), scene(1)[1], atol=2e-4)
    np.testing.assert_allclose(tested[3].raw.read().max(), 4096 / 65535 * 20, rtol=1e-6)
    (test / "raw_1%" / "001.png").unlink()
    with pytest.raises(DataError, match="has no depth for 001"):
        rgbd_reference.read_frames(tmp_path, "test")


def test_pairs_go_by_name_and_not_by_order(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    note(tmp_path)
    (tmp_path / "depth" / "000.png").rename(tmp_path / "depth" / "aaa.png")
    with pytest.raises(DataError, match="1 of 2 images have no depth, first 000"):
        rgbd_folders.read_frames(tmp_path, "train")


def test_measured_depth_beside(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    note(tmp_path)
    raw = scene(0)[1] * (np.arange(64) % 2)
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw" / "000.npy", raw.astype(np.float32))
    with pytest.raises(DataError, match="1 of 2 images have no raw depth, first 001"):
        rgbd_folders.read_frames(tmp_path, "train")
    np.savez(tmp_path / "raw" / "001.npz", depth=raw.astype(np.float32)[None])
    frames = rgbd_folders.read_frames(tmp_path, "train")
    for frame in frames:
        np.testing.assert_array_equal(frame.raw.read(), raw.astype(np.float32))  # arrays hold metres
    assert len(frames[0].files) == 3


def test_units_must_be_known(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    with pytest.raises(DataError, match=r"rgbd.json.*units and largest depth are unknown") as caught:
        rgbd_folders.read_frames(tmp_path, "train")
    assert "256: KITTI" in str(caught.value)
    frames = rgbd_folders.read_frames(tmp_path, "train", units_per_metre=1000, max_depth_m=10)
    assert frames[0].max_depth_m == 10


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"units_per_metre": 1000}, "max_depth is None"),
        ({"max_depth": 10}, "units_per_metre is None"),
        ({"units_per_metre": -1, "max_depth": 10}, "units_per_metre is -1"),
        ({"units": 1000, "max_depth": 10}, "unknown key units"),
    ],
)
def test_notes_that_say_too_little(tmp_path: Path, record: dict, message: str) -> None:
    write_pairs(tmp_path, 1)
    note(tmp_path, **record)
    with pytest.raises(DataError, match=message):
        rgbd_folders.read_frames(tmp_path, "train")


def test_unknown_split(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 1)
    note(tmp_path)
    with pytest.raises(DataError, match="no such split") as caught:
        rgbd_folders.read_frames(tmp_path, "val")
    assert "train" in str(caught.value)


def test_depth_files_that_are_none(tmp_path: Path) -> None:
    eight = write(tmp_path / "eight.png", np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"eight.png.*expected a 16-bit"):
        DepthFile(eight, MILLIMETRES).read()
    coloured = write(tmp_path / "coloured.png", np.ones((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="3 channels"):
        DepthFile(coloured, MILLIMETRES).read()
    arrays = {
        "nan": (np.array([[1, np.nan]], np.float32), "1 of 2 depths are NaN"),
        "negative": (np.array([[1, -2]], np.float32), "down to -2"),
        "bytes": (np.ones((2, 2), np.uint8), "expected a 16-bit"),
        "colours": (np.ones((2, 2, 3), np.float32), "expected"),
    }
    for name, (values, message) in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(DataError, match=f"{name}.npy.*{message}"):
            DepthFile(tmp_path / f"{name}.npy", 1.0).read()


def write_kitti(root: Path, images: str, *, height: int = 60) -> None:
    image, depth = scene(0, (height, 80))
    coded = np.rint(depth * KITTI).astype(np.uint16)
    drive = "2011_09_26_drive_0001_sync"
    for kind in ("groundtruth", "velodyne_raw"):
        write(root / "val" / drive / "proj_depth" / kind / "image_02" / "0000000005.png", coded)
    write(root / images.format(drive=drive) / "image_02" / "data" / "0000000005.png", image)


@pytest.mark.parametrize("images", ["val/{drive}", "2011_09_26/{drive}"])
def test_kitti(tmp_path: Path, images: str) -> None:
    write_kitti(tmp_path, images)
    assert rgbd_kitti.is_layout(tmp_path)
    frame = rgbd_kitti.read_frames(tmp_path, "val", rows=40)[0]
    image, depth = scene(0, (60, 80))
    assert frame.token == "2011_09_26_drive_0001_sync/image_02/0000000005"
    np.testing.assert_array_equal(frame.image.read(), image[20:])
    np.testing.assert_allclose(frame.depth.read(), depth[20:], atol=2e-3)
    np.testing.assert_array_equal(frame.raw.read(), frame.depth.read())
    assert frame.image.size() == (40, 80)
    assert frame.intrinsics is None
    calibration = frame.image.path.parents[2] / "calib_cam_to_cam.txt"
    calibration.write_text("S_rect_02: 80 60\nP_rect_02: 70 0 40 4 0 70 30 0 0 0 1 0\n", encoding="utf-8")
    frame = rgbd_kitti.read_frames(tmp_path, "val", rows=40)[0]
    np.testing.assert_array_equal(frame.intrinsics, [[70, 0, 40.5], [0, 70, 10.5], [0, 0, 1]])
    calibration.write_text("P_rect_00: 1\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no line P_rect_02"):
        rgbd_kitti.read_frames(tmp_path, "val")
    with pytest.raises(DataError, match="splits there are: val"):
        rgbd_kitti.read_frames(tmp_path, "train")


def test_kitti_without_images(tmp_path: Path) -> None:
    write_kitti(tmp_path, "elsewhere/{drive}")
    with pytest.raises(DataError, match="no such image") as caught:
        rgbd_kitti.read_frames(tmp_path, "val")
    assert "2011_09_26" in str(caught.value)


def test_kitti_selection(tmp_path: Path) -> None:
    image, depth = scene(0, (60, 80))
    folder, stem = tmp_path / "depth_selection" / "val_selection_cropped", "drive_sync_{}_0000000005_image_02"
    write(folder / "image" / f"{stem.format('image')}.png", image)
    for kind in ("groundtruth_depth", "velodyne_raw"):
        write(folder / kind / f"{stem.format(kind)}.png", np.rint(depth * KITTI).astype(np.uint16))
    (folder / "intrinsics").mkdir()
    matrix = folder / "intrinsics" / f"{stem.format('image')}.txt"
    matrix.write_text("70 0 40 0 70 30 0 0 1\n", encoding="utf-8")
    frame = rgbd_kitti.read_frames(tmp_path, "val_selection_cropped", rows=50)[0]
    np.testing.assert_array_equal(frame.intrinsics, [[70, 0, 40.5], [0, 70, 20.5], [0, 0, 1]])
    assert frame.depth.read().shape == (50, 80)
    matrix.write_text("70 0 40", encoding="utf-8")
    with pytest.raises(DataError, match="3 numbers, expected 9"):
        read_intrinsics(matrix)


def write_labelled(path: Path, number: int) -> None:
    h5py = pytest.importorskip("h5py")
    scenes = [scene(index) for index in range(number)]
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([image.transpose(2, 1, 0) for image, _ in scenes])
        file["depths"] = np.stack([depth.T for _, depth in scenes])


def test_labelled_mat(tmp_path: Path) -> None:
    file = tmp_path / rgbd_nyu.LABELLED
    write_labelled(file, 4)
    with pytest.raises(DataError, match=r"splits.mat.*nobody knows which pictures are val"):
        rgbd_nyu.read_labelled(file, "val")
    indices = {"trainNdxs": np.array([[1], [4]]), "testNdxs": np.array([[3]])}
    scipy.io.savemat(tmp_path / rgbd_nyu.SPLITS, indices)
    assert [frame.token for frame in rgbd_nyu.read_labelled(file, "train")] == ["0000", "0003"]
    assert len(rgbd_nyu.read_labelled(file, "all")) == 4
    frame = pickle.loads(pickle.dumps(rgbd_nyu.read_labelled(rgbd_nyu.find_labelled(tmp_path), "val")[0]))
    image, depth = scene(2)
    np.testing.assert_array_equal(frame.image.read(), image)
    np.testing.assert_array_equal(frame.depth.read(), depth)
    assert frame.image.size() == depth.shape
    scipy.io.savemat(tmp_path / rgbd_nyu.SPLITS, {"testNdxs": np.array([[9]])})
    with pytest.raises(DataError, match=r"names picture 9, the .mat has 4"):
        rgbd_nyu.read_labelled(file, "val")


def test_h5_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    image, depth = scene(0)
    path = tmp_path / "val" / "official" / "00001.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth
    assert rgbd_nyu.is_h5_layout(tmp_path)
    frame = rgbd_nyu.read_h5_frames(tmp_path, "val")[0]
    np.testing.assert_array_equal(frame.image.read(), image)
    np.testing.assert_array_equal(frame.depth.read(), depth)
    assert (frame.token, frame.image.size()) == ("official/00001", depth.shape)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged or no HDF5"):
        frame.depth.read()


def test_ibims(tmp_path: Path) -> None:
    image, depth = scene(0)
    folder = tmp_path / rgbd_ibims.FOLDER
    folder.mkdir()
    masks = {name: np.ones(depth.shape, np.uint8) for name in ("mask_invalid", "mask_transp")}
    masks["mask_invalid"][:4], masks["mask_transp"][:, :4] = 0, 0
    holes = depth.astype(np.float64)
    holes[10, 10] = np.nan
    scipy.io.savemat(folder / "office_01.mat", {"data": {"rgb": image, "depth": holes, **masks}})
    (folder / rgbd_ibims.NAMES).write_text("office_01\n", encoding="utf-8")
    assert find_layout(tmp_path) == "ibims"
    frame = pickle.loads(pickle.dumps(read_frames(tmp_path, "val")[0]))
    np.testing.assert_array_equal(frame.image.read(), image)
    expected = np.where((np.indices(depth.shape) >= 4).all(0), depth, 0)
    expected[10, 10] = 0
    np.testing.assert_array_equal(frame.depth.read(), expected)
    assert (frame.token, frame.max_depth_m, frame.image.size()) == ("office_01", 50, depth.shape)
    with pytest.raises(DataError, match="no split 'train'") as caught:
        read_frames(tmp_path, "train")
    assert "evaluation" in str(caught.value)
    scipy.io.savemat(folder / "office_01.mat", {"data": {"rgb": image}})
    with pytest.raises(DataError, match=r"office_01.mat: has no depth in data; it holds rgb"):
        frame.depth.read()
    (folder / "office_01.mat").write_bytes(b"x" * 200)
    with pytest.raises(DataError, match="damaged or no MATLAB file"):
        frame.image.read()


class _Foreign:
    """An object that no reader should build."""


def test_uniformat(tmp_path: Path) -> None:
    image, depth = scene(0)
    given = np.where(np.indices(depth.shape)[1] % 9 == 0, depth, 0)
    file = tmp_path / "set" / "000.npy"
    file.parent.mkdir()
    np.save(file, {"rgb": image, "dep": given, "gt": depth[None], "K": np.eye(3)}, allow_pickle=True)
    assert find_layout(tmp_path) == "uniformat"
    frame = pickle.loads(pickle.dumps(read_frames(tmp_path, "val", max_depth_m=10)[0]))
    np.testing.assert_array_equal(frame.image.read(), image)
    np.testing.assert_array_equal(frame.depth.read(), depth)
    np.testing.assert_array_equal(frame.raw.read(), given)
    assert (frame.token, frame.image.size()) == ("set/000", depth.shape)
    with pytest.raises(DataError, match="largest depth is unknown"):
        read_frames(tmp_path, "val")
    with pytest.raises(DataError, match="no split 'train'"):
        rgbd_uniformat.read_frames(tmp_path, "train", max_depth_m=10)
    np.save(file, {"rgb": image}, allow_pickle=True)
    with pytest.raises(DataError, match=r"000.npy: has no gt; it holds rgb"):
        frame.depth.read()
    np.save(file, {"gt": _Foreign()}, allow_pickle=True)
    with pytest.raises(DataError, match=r"000.npy: refused: it asks for"):
        frame.depth.read()


def test_cameras_of_single_pictures(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    note(tmp_path)
    file = tmp_path / "intrinsics" / "001.txt"
    file.parent.mkdir()
    file.write_text("60 0 32\n0 60 24\n0 0 1\n", encoding="utf-8")
    first, second = rgbd_folders.read_frames(tmp_path, "train")
    assert first.intrinsics is None
    np.testing.assert_array_equal(second.intrinsics, [[60, 0, 32], [0, 60, 24], [0, 0, 1]])


def test_camera_of_a_drive_lies_with_its_date(tmp_path: Path) -> None:
    """The pictures beside the depths, the calibration where KITTI raw has it."""
    write_kitti(tmp_path, "val/{drive}")
    calibration = tmp_path / "2011_09_26" / "calib_cam_to_cam.txt"
    calibration.parent.mkdir()
    calibration.write_text("P_rect_02: 70 0 40 4 0 70 30 0 0 0 1 0\n", encoding="utf-8")
    frame = rgbd_kitti.read_frames(tmp_path, "val", rows=None)[0]
    expected = [[70, 0, 40.5], [0, 70, 30.5], [0, 0, 1]]
    # KITTI raw's folder of the date lies beside the splits
    np.testing.assert_array_equal(frame.intrinsics, expected)


def test_half_a_pair(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 1)
    write_pairs(tmp_path / "val", 1)
    note(tmp_path)
    shutil.rmtree(tmp_path / "val" / "depth")
    with pytest.raises(DataError, match=r"val.depth: no such folder, though there is rgb/"):
        rgbd_folders.read_frames(tmp_path, "val")


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="needs h5py") as caught:
        rgbd_nyu.read_labelled(tmp_path / rgbd_nyu.LABELLED, "train")
    assert caught.value.hint == "pip install h5py"


@pytest.mark.parametrize(
    ("folder", "image", "units", "known", "reach"),
    [
        ("nyu_dining", "rgb.png", MILLIMETRES, (0.999, 1.0), (0.72, 5.88)),
        ("nyu_bookstore_small", "rgb.jpg", MILLIMETRES, (0.62, 0.70), (0.5, 10.0)),
        ("tum_desk", "rgb.png", MILLIMETRES, (0.79, 0.83), (0.4, 9.34)),
    ],
)
def test_real_indoor_pictures(
    folder: str, image: str, units: float, known: tuple[float, float], reach: tuple[float, float]
) -> None:
    depth = DepthFile(real(folder) / "depth.png", units).read()
    assert ImageFile(real(folder) / image).read().shape[:2] == depth.shape
    assert known[0] <= (depth > 0).mean() <= known[1]
    assert reach[0] <= depth[depth > 0].min() < depth.max() <= reach[1]


def test_real_scan_is_in_metres() -> None:
    """The file's depths against the points that they were made of, projected here."""
    folder = real("kitti_000001")
    depth = DepthFile(folder / "lidar_depth.png", KITTI).read()
    assert ImageFile(folder / "image_2.png").size() == depth.shape
    assert 0.039 <= (depth > 0).mean() <= 0.044
    lines = (folder / "calib.txt").read_text(encoding="utf-8").splitlines()
    matrices = {line.split(":")[0]: np.array(line.split()[1:], float) for line in lines if ":" in line}
    points = np.fromfile(folder / "velodyne.bin", np.float32).reshape(-1, 4)[:, :3]
    cam = np.c_[points, np.ones(len(points))] @ matrices["Tr_velo_to_cam"].reshape(3, 4).T
    uvz = np.c_[cam @ matrices["R0_rect"].reshape(3, 3).T, np.ones(len(cam))] @ matrices["P2"].reshape(3, 4).T
    uvz = uvz[uvz[:, 2] > 0.5]
    rows, columns = (np.floor(uvz[:, axis] / uvz[:, 2]).astype(int) for axis in (1, 0))
    inside = (rows >= 0) & (rows < depth.shape[0]) & (columns >= 0) & (columns < depth.shape[1])
    nearest = np.full(depth.shape, np.inf)
    np.minimum.at(nearest, (rows[inside], columns[inside]), uvz[inside, 2])
    both = (depth > 0) & np.isfinite(nearest)
    assert both.sum() > 0.9 * (depth > 0).sum()
    assert np.median(depth[both] / nearest[both]) == pytest.approx(1.0, abs=0.01)


def test_real_sparse_points() -> None:
    depth = DepthFile(real("ibims_corridor_sparse") / "sparse_depth.npz", 1.0).read()
    assert (depth > 0).sum() == 2148
    assert depth[depth > 0].min() == pytest.approx(1.58, abs=0.01)
    assert depth.max() == pytest.approx(51.5, abs=0.1)


def test_nuscenes(tmp_path: Path) -> None:
    root = write_nuscenes(tmp_path)
    frames = rgbd_nuscenes.read_frames(root, "train")
    assert len(frames) == len(CAMERAS)
    assert len({frame.token for frame in frames}) == len(CAMERAS)
    for frame in frames:
        assert frame.depth.read().shape == frame.image.size()
    only = rgbd_nuscenes.read_frames(root, "val", cameras=["CAM_FRONT"])
    assert [frame.image.path.parent.name for frame in only] == ["CAM_FRONT"]
    with pytest.raises(DataError, match="nuScenes has train and val"):
        rgbd_nuscenes.read_frames(root, "test")


def test_real_nuscenes_depth() -> None:
    root = REAL.parent / "nuscenes"
    if not root.is_dir():
        pytest.skip("the real pictures are not here")
    frames = [frame for split in ("train", "val") for frame in _frames(root, split)]
    assert len(frames) == 6
    for frame in frames[::3]:
        depth = frame.depth.read()
        assert depth.shape == frame.image.size() == (900, 1600)
        assert 2500 < (depth > 0).sum() < 5000
        assert 1 < depth[depth > 0].min() < depth.max() <= 80
        assert 4 < np.median(depth[depth > 0]) < 40


def _frames(root: Path, split: str) -> list:
    try:
        return rgbd_nuscenes.read_frames(root, split)
    except DataError:
        return []
