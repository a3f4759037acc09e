"""Every world format on disk: documented fields, sizes and geometry, read back with plain json and numpy."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from omma.core.poses import in_image, invert_rigid, project_points, transform_points, unproject_points
from omma.data.formats import nuscenes, rgbd_folders, rgbd_kitti, simbev, simbev_cvt, simbev_seed
from omma.data.formats.nuscenes_bev import CLASSES, expand_bits, read_label
from omma.data.formats.nuscenes_splits import official_scenes, pon_scenes
from omma.data.formats.rgbd import read_intrinsics
from omma.data.formats.simbev_layout import CAMERAS, CLASSES_BY_COUNT, decode_depth
from omma.errors import DataError, UsageError
from omma.systems.diffbev.keyframes import draw_labels, measure_depths, read_keyframes
from omma.world.build import FORMATS, build
from omma.world.capture import Capture
from omma.world.town import build_scene
from omma.world.writers import rgbd_kitti as rgbd_kitti_writer

pytestmark = pytest.mark.e2e
SIZE = (48, 96)


def _build(layout, out, **options):
    settings = {"scenes": 1, "val_scenes": 1, "frames": 2, "seed": 4, "image_size": SIZE, **options}
    return build(layout, out, **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("worlds")
    return {layout: _build(layout, base / layout).folder for layout in FORMATS}


def _json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _image(path):
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture if picture.ndim == 2 else picture[..., ::-1]


@pytest.mark.parametrize("layout", FORMATS)
def test_marker_says_what_was_made(folders, layout):
    facts = _json(folders[layout] / "world.json")
    assert facts["format"] == layout
    assert facts["format_version"] == 1
    assert facts["seed"] == 4
    assert facts["frames"] == 2
    assert facts["image_size"] == list(SIZE)
    assert facts["splits"]["train"] == ["scene_0000"]
    assert facts["splits"]["val"] == ["scene_0001"]
    assert {"omma_version", "frame_interval_s"} <= set(facts)


def test_seed_layout_has_the_documented_fields(folders):
    home = folders["simbev-seed"] / "train" / "scene_0000" / "yaw0pitch0"
    samples = _json(home / "meta.json")
    assert [s["token"] for s in samples] == ["scene_0000_0000", "scene_0000_0001"]
    for sample in samples:
        assert [Path(name).stem.rsplit("_", 1)[0] for name in sample["images"]] == [
            name.removeprefix("CAM_").lower() for name in CAMERAS
        ]
        assert all(_image(home / name).shape == (*SIZE, 3) for name in sample["images"])
        extrinsics = np.array(sample["extrinsics"])
        assert np.array(sample["intrinsics"]).shape == (6, 3, 3)
        np.testing.assert_allclose(extrinsics[:, 1, 2], -1, atol=1e-6)  # ego to camera: up maps to -down
        label = np.load(home / sample["label"])
        assert label.shape == (200, 200)
        assert label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 1}


def test_seed_boxes_lie_on_their_labels_and_in_their_images(folders):
    """The label of a vehicle is at its box's Lift-Splat cell: axis 0 along +x, axis 1 along +y."""
    home = folders["simbev-seed"] / "val" / "scene_0001" / "yaw0pitch0"
    compared = 0
    for sample in _json(home / "meta.json"):
        label = np.load(home / sample["label"])
        for box in _json(home / sample["boxes"]):
            assert set(box) == {"id", "class", "corners_ego", "visible"}
            corners = np.array(box["corners_ego"])
            assert corners.shape == (8, 3)
            assert (corners[1::2, 2] > corners[::2, 2]).all()  # bit 0 is up
            assert 0 <= box["visible"] <= 1
            x, y = corners[:, :2].mean(0)
            if box["class"] in ("car", "truck", "bus") and max(abs(x), abs(y)) < 49:
                assert label[int((x + 50) / 0.5), int((y + 50) / 0.5)] == 1
                compared += 1
    assert compared > 5


def test_cvt_layout_has_the_documented_fields(folders):
    root = folders["simbev-cvt"]
    home = root / "SimBEV_cvt_label" / "scene_0000" / "yaw0pitch0"
    for number, sample in enumerate(_json(home / "meta.json")):
        assert sample["token"] == f"0_{number}"
        assert sample["scene"] == "scene_0000"
        assert sample["cam_channels"] == list(CAMERAS)
        assert all(_image(root / name).shape == (*SIZE, 3) for name in sample["images"])
        assert all(name.startswith("sweeps/RGB-CAM_") for name in sample["images"])
        bev = np.load(home / sample["bev"])["bev"]
        assert bev.shape == (8, 200, 200)
        visibility = _image(home / sample["visibility"])
        vehicles = bev[1:4].any(0)
        assert set(np.unique(visibility)) <= {1, 2, 3, 4, 255}
        np.testing.assert_array_equal(visibility != 255, vehicles)
        np.testing.assert_allclose(np.array(sample["pose"]) @ sample["pose_inverse"], np.eye(4), atol=1e-9)
        column, row, _ = np.array(sample["view"]) @ [12.0, 2.0, 1.0]
        assert (row, column) == (76, 96)  # 12 m ahead and 2 m to the left


def test_official_layout_has_the_documented_fields(folders):
    root = folders["simbev"]
    for number, split in enumerate(("train", "val", "test")):
        infos = _json(root / "infos" / f"simbev_infos_{split}.json")
        assert {"camera_intrinsics", "LIDAR", *CAMERAS} <= set(infos["metadata"])
        assert infos["metadata"]["camera_intrinsics"][0][2] == SIZE[1] / 2
        frames = infos["data"][f"scene_{number:04d}"]["scene_data"]
        assert [frame["frame"] for frame in frames] == [0, 1]
        for frame in frames:
            files = {k: v for k, v in frame.items() if isinstance(v, str)}
            assert len(files) == 6 * 4 + 4
            assert all(v.startswith("/dataset/simbev/") for v in files.values())
            assert all((root / v.removeprefix("/dataset/simbev/")).is_file() for v in files.values())


def _first_frame(root):
    infos = _json(root / "infos" / "simbev_infos_train.json")
    frame = infos["data"]["scene_0000"]["scene_data"][0]
    return frame, lambda key: root / frame[key].removeprefix("/dataset/simbev/")


def test_official_ground_truth_holds_masks_boxes_and_points(folders):
    frame, path = _first_frame(folders["simbev"])
    masks = np.load(path("GT_SEG"))["data"]
    assert masks.shape == (14, 400, 400)
    assert masks.dtype == bool
    assert masks[CLASSES_BY_COUNT[14].index("car"), 199:201, 199:201].all()  # the ego vehicle itself
    points = np.load(path("LIDAR"))["data"]
    assert points.ndim == 2
    assert points.shape[1] == 3
    boxes = _json(path("GT_DET"))
    assert {"id", "type", "semantic_tags", "bounding_box", "num_lidar_pts", "valid_flag"} <= set(boxes[0])
    position = np.array(frame["ego2global_translation"])[:2]
    centres = np.array([np.mean(box["bounding_box"], axis=0)[:2] for box in boxes])
    assert np.linalg.norm(centres - position, axis=1).max() < 115
    assert any(box["valid_flag"] for box in boxes)


def test_official_depth_and_instances_agree(folders):
    """The sky is at 1000 m, and the pixels of an object carry the tag of its box."""
    _, path = _first_frame(folders["simbev"])
    depth_m = decode_depth(_image(path("DPT-CAM_FRONT")))
    assert depth_m[0].max() == pytest.approx(1000)  # sky
    instances = _image(path("IST-CAM_FRONT")).astype(int)
    np.testing.assert_array_equal(instances[..., 0], _image(path("SEG-CAM_FRONT"))[..., 0])
    tags = {box["id"]: box["semantic_tags"][0] for box in _json(path("GT_DET"))}
    number = instances[..., 1] + 256 * instances[..., 2]
    seen = [k for k in np.unique(number) if k in tags]
    assert seen
    for k in seen:
        assert (instances[..., 0][number == k] == tags[k]).all()


def test_readers_take_all_three_layouts(folders):
    """The package's own readers find the same cameras and the right number of frames."""
    frames = {
        "simbev": simbev.read_frames(folders["simbev"], "train", frame_stride=1),
        "simbev-seed": simbev_seed.read_frames(folders["simbev-seed"], "train"),
        "simbev-cvt": simbev_cvt.read_frames(folders["simbev-cvt"], "train"),
    }
    for layout, found in frames.items():
        assert len(found) == 2, layout
        assert all(path.is_file() for frame in found for path in frame.files)
        np.testing.assert_allclose(found[0].ego_T_cam, frames["simbev"][0].ego_T_cam, atol=1e-6)
        np.testing.assert_allclose(found[0].intrinsics, frames["simbev"][0].intrinsics, atol=1e-9)


_REFERENCES = {
    "instance_token": "instance",
    "category_token": "category",
    "visibility_token": "visibility",
    "sensor_token": "sensor",
    "calibrated_sensor_token": "calibrated_sensor",
    "ego_pose_token": "ego_pose",
    "log_token": "log",
    "scene_token": "scene",
    "sample_token": "sample",
    "first_sample_token": "sample",
    "last_sample_token": "sample",
    "first_annotation_token": "sample_annotation",
    "last_annotation_token": "sample_annotation",
}


def _tables(root):
    return {path.stem: _json(path) for path in (root / "v1.0-trainval").glob("*.json")}


def test_nuscenes_tables_refer_to_each_other(folders):
    tables = _tables(folders["nuscenes"])
    assert set(tables) == {*_REFERENCES.values(), "sample_data", "attribute", "map"}
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(tokens[name]) == len(rows) > 0, name
        for row in rows:
            for key, table in _REFERENCES.items():
                assert row.get(key) is None or row[key] in tokens[table], (name, key)
            assert set(row.get("attribute_tokens", [])) <= tokens["attribute"]
            assert set(row.get("log_tokens", [])) <= tokens["log"]
    assert {token for row in tables["map"] for token in row["log_tokens"]} == tokens["log"]


def test_nuscenes_records_are_linked_in_time(folders):
    tables = _tables(folders["nuscenes"])
    times = {row["token"]: row["timestamp"] for row in tables["sample"]}
    for name in ("sample", "sample_data", "sample_annotation"):
        rows = {row["token"]: row for row in tables[name]}
        followed = [row for row in rows.values() if row["next"]]
        assert followed, name
        for row in followed:
            after = rows[row["next"]]
            assert after["prev"] == row["token"]
            before, then = (one.get("timestamp") or times[one["sample_token"]] for one in (row, after))
            assert 0.9e6 < then - before < 1.1e6
            for key in ("scene_token", "calibrated_sensor_token", "instance_token"):
                assert row.get(key) == after.get(key)
    for instance in tables["instance"]:
        own = [a for a in tables["sample_annotation"] if a["instance_token"] == instance["token"]]
        assert len(own) == instance["nbr_annotations"]
        assert [a["token"] for a in own if not a["prev"]] == [instance["first_annotation_token"]]
        assert [a["token"] for a in own if not a["next"]] == [instance["last_annotation_token"]]


def test_nuscenes_files_are_where_the_tables_say(folders):
    root = folders["nuscenes"]
    tables = _tables(root)
    assert len(tables["sample_data"]) == 2 * 2 * 7
    for row in tables["sample_data"]:
        if row["fileformat"] == "jpg":
            assert _image(root / row["filename"]).shape == (row["height"], row["width"], 3) == (*SIZE, 3)
        else:
            points = nuscenes.read_lidar(root / row["filename"])
            assert set(np.unique(points[:, 4])) <= set(range(32))
            assert 2 < np.linalg.norm(points[:, :3], axis=1).max() < 101
    assert {row["filename"] for row in tables["sample_data"]} == {
        path.relative_to(root).as_posix() for path in (root / "samples").rglob("*") if path.is_file()
    }
    for row in tables["map"]:
        assert _image(root / row["filename"]).ndim == 2
    for log in tables["log"]:
        assert (root / "maps" / "expansion" / f"{log['location']}.json").is_file()


def test_nuscenes_scenes_are_in_the_same_split_of_both_lists(folders):
    tables = nuscenes.Tables(folders["nuscenes"])
    names = {scene["name"] for scene in tables.scenes.values()}
    for split in ("train", "val"):
        assert len(names & pon_scenes(split)) == 1
        assert names & pon_scenes(split) == official_scenes(split, names, tables.version)


def test_nuscenes_frames_are_read_with_boxes_in_the_pictures(folders):
    """A box that is said to be seen projects into one of the cameras."""
    frames = [f for split in ("train", "val") for f in nuscenes.read_frames(folders["nuscenes"], split)]
    assert len(frames) == 4
    for frame in frames:
        middles = frame.boxes.corners[frame.boxes.visibility > 1].mean(1)
        inside = [
            in_image(*project_points(K, transform_points(invert_rigid(ego_T_cam), middles)), SIZE)
            for K, ego_T_cam in zip(frame.intrinsics, frame.ego_T_cam, strict=True)
        ]
        assert np.any(inside, axis=0).sum() > 0.7 * len(middles) > 3


def test_bev_dirs_are_what_the_preparation_makes_of_nuscenes(folders):
    """Same tokens, pictures, calibration, labels and depths as from the tables, maps and LiDAR files."""
    root, prepared = folders["nuscenes"], folders["bev-dirs"]
    tables = nuscenes.Tables(root)
    calibration, channels = _json(prepared / "calib.json"), _json(prepared / "cameras.json")
    compared = 0
    for split in ("train", "val"):
        folder = prepared / "ann_bev_dir"
        tokens = {path.stem for path in (folder / split).iterdir()}
        assert len(tokens) == 12
        for frame in read_keyframes(tables, tokens, boxes=True):
            labels = draw_labels(frame, root, style="reference", ignore="fov+occlusion")
            depths = measure_depths(frame, SIZE, min_depth=1.0, max_depth=50.0)
            for camera in frame.cameras:
                np.testing.assert_array_equal(
                    read_label(folder / split / f"{camera.token}.png"), labels[camera.token]
                )
                with np.load(folder / f"{split}_depth" / f"{camera.token}.npz") as stored:
                    np.testing.assert_array_equal(stored["depth"], depths[camera.token])
                    np.testing.assert_array_equal(stored["mask"], depths[camera.token] > 0)
                np.testing.assert_array_equal(calibration[camera.token], camera.intrinsics)
                assert channels[camera.token] == camera.channel
                compared += 1
    assert compared == len(calibration) == 24
    pictures = {row["token"]: row["filename"] for row in tables.rows("sample_data")}
    for path in (prepared / "img_dir").rglob("*.png"):
        assert path.read_bytes() == (root / pictures[path.stem]).read_bytes()


def test_bev_dirs_label_the_surfaces_and_cars(folders):
    root = folders["bev-dirs"] / "ann_bev_dir"
    labels = [read_label(path) for split in ("train", "val") for path in (root / split).iterdir()]
    masks, counted = zip(*(expand_bits(label, len(CLASSES)) for label in labels), strict=True)
    present = {name for name, mask in zip(CLASSES, np.any(masks, axis=(0, 2, 3)), strict=True) if mask}
    assert {"drivable_area", "ped_crossing", "walkway", "carpark", "car", "pedestrian"} <= present
    assert 0.1 < np.mean(counted) < 0.7
    assert _json(root / "labels.json")["ignore"] == "fov+occlusion"


def _rgbd(root, split):
    return rgbd_folders.read_frames(root, split)


def test_nyu_folders_are_read_with_true_and_measured_depth(folders):
    for split, scene in (("train", "scene_0000"), ("val", "scene_0001")):
        frames = _rgbd(folders["rgbd-nyu"], split)
        assert [f.token for f in frames] == [f"{split}/{scene}_{n:04d}" for n in (0, 1)]
        for frame in frames:
            true, raw = frame.depth.read(), frame.raw.read()
            assert frame.max_depth_m == 10
            assert frame.image.read().shape == (*SIZE, 3)
            assert true.shape == raw.shape == SIZE
            assert 0.1 < true.min() < true.max() < 10
            known = raw > 0
            assert 0.3 < known.mean() < 0.99
            assert (np.abs(raw - true)[known] < 0.01 + 0.02 * true[known] ** 2).all()


def test_nyu_split_files_name_every_pair(folders):
    root = folders["rgbd-nyu"]
    for split in ("train", "val"):
        lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2
        for line in lines:
            image, depth = line.split()
            assert (root / image).is_file()
            assert Path(depth).name == Path(image).name
            assert cv2.imread(str(root / depth), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_nyu_pixels_are_lifted_onto_one_floor(folders):
    """Stored depth, camera and poses put the lowest points of every picture at height 0 or above."""
    root = folders["rgbd-nyu"]
    intrinsics = read_intrinsics(root / "intrinsics.txt")
    rows, columns = np.indices(SIZE)
    uv = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    floors = []
    for split in ("train", "val"):
        for frame in _rgbd(root, split):
            pose = np.loadtxt(root / split / "poses" / f"{Path(frame.token).name}.txt")
            lifted = unproject_points(intrinsics, uv, frame.depth.read().ravel().astype(float))
            height = transform_points(pose, lifted)[:, 2]
            assert height.min() > -0.02
            assert height.max() < 3.0
            floors.append((np.abs(height) < 0.02).mean())
    assert max(floors) > 0.05


def test_reference_folders_hold_the_rooms_of_the_nyu_folders(folders):
    """Same pictures and depths in other units; hole masks are where the depth camera measured."""
    root, nyu = folders["rgbd-dirs"], folders["rgbd-nyu"]
    frames = _rgbd(root / "RGBD_Datasets", "train")
    assert [f.token for f in frames] == [f"rooms/scene_0000/{n:04d}" for n in (0, 1)]
    for frame, other in zip(frames, _rgbd(nyu, "train"), strict=True):
        assert frame.max_depth_m == 20
        np.testing.assert_array_equal(frame.image.read(), other.image.read())
        np.testing.assert_allclose(frame.depth.read(), other.depth.read(), atol=1e-3)
        mask = _image(root / "Hole_Datasets" / f"{frame.token}.png")
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask == 255, other.raw.read() > 0)
    home = root / "Test_Datasets" / "rooms"
    for frame in _rgbd(nyu, "val"):
        name = f"scene_0001/{frame.token[-4:]}.png"
        true, sparse, full = (_image(home / kind / name) for kind in ("gt", "raw_1%", "raw_100%"))
        np.testing.assert_allclose(full / 65535 * 20, frame.raw.read(), atol=1e-3)
        np.testing.assert_array_equal(sparse[sparse > 0], true[sparse > 0])
        assert 0.003 < (sparse > 0).mean() < 0.02
        assert _image(home / "rgb" / name).shape == (*SIZE, 3)


def _calibration(path):
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key: np.array(values.split(), float) for key, _, values in lines}


def _drives(root):
    return [drive for split in ("train", "val") for drive in sorted((root / split).iterdir())]


def test_kitti_raw_depth_is_the_scan_through_the_calibration(folders):
    """As a reader of KITTI raw projects it: P_rect_02 R_rect_00 [R T], rounded to the pixel."""
    for drive in _drives(folders["rgbd-kitti"]):
        camera, scanner = (_calibration(drive / f"calib_{k}.txt") for k in ("cam_to_cam", "velo_to_cam"))
        matrix = camera["P_rect_02"].reshape(3, 4)[:, :3] @ camera["R_rect_00"].reshape(3, 3)
        offset = camera["P_rect_02"].reshape(3, 4)[:, 3]
        for file in sorted((drive / "velodyne_points" / "data").iterdir()):
            points = np.fromfile(file, np.float32).reshape(-1, 4)
            assert 0 <= points[:, 3].min() <= points[:, 3].max() <= 1
            xyz = points[:, :3] @ scanner["R"].reshape(3, 3).T + scanner["T"]
            uvw = xyz[xyz[:, 2] > 0.5] @ matrix.T + offset
            column, row = np.rint(uvw[:, 0] / uvw[:, 2]), np.rint(uvw[:, 1] / uvw[:, 2])
            inside = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0])
            expected = np.full(SIZE, np.inf)
            np.minimum.at(expected, (row[inside].astype(int), column[inside].astype(int)), uvw[inside, 2])
            expected[np.isinf(expected)] = 0
            stored = _image(drive / "proj_depth/velodyne_raw/image_02" / f"{file.stem}.png")
            assert stored.dtype == np.uint16
            assert (np.abs(stored / 256 - expected) < 0.01).mean() > 0.995
            assert (stored > 0).mean() > 0.1


def test_kitti_folders_are_read_with_true_and_measured_depth(folders):
    for split, drive in (("train", "2011_09_26_drive_0001_sync"), ("val", "2011_09_26_drive_0002_sync")):
        frames = rgbd_kitti.read_frames(folders["rgbd-kitti"], split)
        assert [f.token for f in frames] == [f"{drive}/image_02/{n:010d}" for n in (5, 6)]
        for frame in frames:
            true, raw = frame.depth.read(), frame.raw.read()
            assert frame.image.read().shape == (*SIZE, 3)
            assert true.shape == raw.shape == SIZE
            assert 2 < true[true > 0].min() < true.max() < 100
            both = (true > 0) & (raw > 0)
            near = np.abs(true - raw)[both] < 0.05 * true[both]
            assert near.mean() > 0.85
            assert true[: SIZE[0] // 6].sum() == 0  # the scanner does not look up


def test_kitti_ground_truth_is_dense_and_lies_on_what_the_camera_sees(tmp_path):
    """At most a fiftieth off the rendered depth and nothing in the sky, while raw depth looks past edges."""
    capture = Capture(build_scene(5, 0), 5, "train", 1, 1.0, (188, 621))
    drive = tmp_path / "train" / rgbd_kitti_writer.write_frame(tmp_path, capture)
    seen_m = capture.picture(rgbd_kitti_writer.kitti_camera(capture), 0).depth_m
    true, raw = (
        _image(drive / "proj_depth" / kind / "image_02" / "0000000006.png") / 256
        for kind in ("groundtruth", "velodyne_raw")
    )
    assert (true > 0).sum() > 3 * (raw > 0).sum() > 0.05 * raw.size
    assert (np.abs(true - seen_m)[true > 0] < 0.02 * seen_m[true > 0] + 0.005).all()
    past = (raw > 1.1 * seen_m) & (raw > 0)
    assert 0.001 < past.sum() / (raw > 0).sum() < 0.1


def _bytes(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [("simbev-cvt", ".jpg"), ("rgbd-nyu", ".png"), ("coco", ".jpg"), ("quic360", ".jpg")],
)
def test_workers_change_no_byte(tmp_path, layout, suffix):
    """Two processes write what one writes, and another seed writes something else."""
    options = {"scenes": 2, "val_scenes": 1, "frames": 1}
    one = _bytes(_build(layout, tmp_path / "one", workers=1, **options).folder)
    two = _bytes(_build(layout, tmp_path / "two", workers=2, **options).folder)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    other = _bytes(_build(layout, tmp_path / "other", **{**options, "seed": 5}).folder)
    images = [name for name in one if name.endswith(suffix)]
    assert images
    assert all(one[name] != other[name] for name in images)


def test_earlier_frames_do_not_depend_on_how_many_follow(tmp_path):
    short = _bytes(_build("simbev-seed", tmp_path / "short", frames=1, val_scenes=0).folder)
    long = _bytes(_build("simbev-seed", tmp_path / "long", frames=2, val_scenes=0).folder)
    files = [name for name in short if "0000." in name]
    assert len(files) == 8
    assert all(short[name] == long[name] for name in files)


def test_used_folder_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine", encoding="utf-8")
    for force in (False, True):
        with pytest.raises(DataError, match="not empty"):
            _build("simbev-seed", tmp_path / "own", force=force)
    assert (tmp_path / "own" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_force_replaces_a_world_and_nothing_is_left_beside_it(tmp_path):
    out = tmp_path / "world"
    _build("simbev-seed", out, frames=1, val_scenes=0)
    with pytest.raises(DataError, match="--force"):
        _build("simbev-seed", out, frames=1, val_scenes=0)
    _build("simbev-seed", out, frames=1, val_scenes=0, seed=8, force=True)
    assert _json(out / "world.json")["seed"] == 8
    assert [p.name for p in tmp_path.iterdir()] == ["world"]


def test_failed_build_leaves_nothing(tmp_path):
    def fail(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _build("simbev-seed", tmp_path / "world", frames=1, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_missing_ray_caster_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    with pytest.raises(DataError, match="embreex"):
        _build("simbev-seed", tmp_path / "world")
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_frames(tmp_path):
    seen = []
    summary = _build("simbev-seed", tmp_path / "world", frames=2, progress=seen.append)
    assert seen == [2, 4]
    assert "2 train, 2 val frames at 48x96" in str(summary)


def test_unknown_format_lists_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="simbev-seed"):
        _build("simbew", tmp_path / "world")
