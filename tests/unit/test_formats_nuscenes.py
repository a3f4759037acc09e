"""nuScenes tables: a small set written here, and the real keyframe where it is present."""

from __future__ import annotations

import json
from pathlib import Path

import lss_files as files
import numpy as np
import pytest

from omma.core.poses import invert_rigid, pose, project_points, rotation_from_quaternion, transform_points
from omma.data.formats import nuscenes
from omma.data.formats.nuscenes import CAMERAS, LIDAR, Tables
from omma.errors import ConfigError, DataError

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "nuscenes"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="data folder not present")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return files.write_nuscenes(tmp_path)


def test_official_validation_list_has_150_scenes() -> None:
    scenes = nuscenes.val_scenes("v1.0-trainval")
    assert len(scenes) == 150
    assert {"scene-0003", "scene-0921", "scene-1073"} <= scenes
    assert not {"scene-0001", "scene-0061", "scene-0918", "scene-1074"} & scenes
    assert nuscenes.val_scenes("v1.0-mini") == {"scene-0103", "scene-0916"}


def test_frames_of_a_split(root: Path) -> None:
    frame = nuscenes.read_frames(root, "train")[0]
    assert (frame.token, frame.scene, frame.cameras) == ("sample0", "scene-0061", CAMERAS)
    assert frame.images[0] == "samples/CAM_FRONT_LEFT/sample0.jpg"
    assert all(path.is_file() for path in frame.files)
    np.testing.assert_allclose(frame.ego_T_cam[1], files.ego_T_cam("CAM_FRONT"), atol=1e-9)
    assert [frame.token for frame in nuscenes.read_frames(root, "val")] == ["sample1"]


def test_boxes_are_in_the_ego_frame_of_the_lidar(root: Path) -> None:
    boxes = nuscenes.read_frames(root, "train")[0].boxes
    assert boxes is not None
    assert boxes.classes == ("vehicle.car", "human.pedestrian.adult")
    assert boxes.visibility.tolist() == [1, 0]
    low, high = boxes.corners[0].min(0), boxes.corners[0].max(0)
    np.testing.assert_allclose([low, high], [[10, 1, 0], [14, 3, 1.5]], atol=1e-9)
    assert boxes.of_classes(["pedestrian"]).classes == ("human.pedestrian.adult",)


def test_samples_are_sorted_by_scene_token_and_time(tmp_path: Path) -> None:
    root = files.write_nuscenes(tmp_path, ("scene-0001", "scene-0002", "scene-0004"))
    assert [frame.token for frame in nuscenes.read_frames(root, "train")] == ["sample2", "sample1", "sample0"]
    assert len(nuscenes.read_frames(root, "train", frame_stride=2)) == 2
    chosen = nuscenes.read_frames(root, "val", scenes=["scene-0002"])
    assert [frame.scene for frame in chosen] == ["scene-0002"]
    with pytest.raises(DataError, match="has no scene scene-0099"):
        nuscenes.read_frames(root, "val", scenes=["scene-0099"])


def test_points_in_boxes_are_counted(root: Path) -> None:
    frame = nuscenes.read_frames(root, "train")[0]
    points = nuscenes.read_points(frame)
    assert points is not None
    assert frame.boxes is not None
    assert nuscenes.count_points(points, frame.boxes).tolist() == [1, 0]


def test_problems_are_named(root: Path) -> None:
    with pytest.raises(DataError, match="nuScenes has train and val"):
        nuscenes.read_frames(root, "test")
    with pytest.raises(DataError, match=r"v1\.0-trainval: no such tables"):
        Tables(root, "v1.0-trainval")
    with pytest.raises(ConfigError, match=r"targets\.vehicle names van, which is no nuScenes category"):
        nuscenes.check_targets({"vehicle": ["car", "van"]}, Tables(root).categories)
    nuscenes.check_targets({"vehicle": ["truck", "vehicle"], "own": ["van"]}, ["vehicle.van"])
    sweeps = root / "v1.0-mini/sample_data.json"
    kept = [row for row in json.loads(sweeps.read_text()) if "CAM_BACK/" not in row["filename"]]
    files.write_json(sweeps, kept)
    with pytest.raises(DataError, match="sample sample0: has no keyframe of CAM_BACK"):
        nuscenes.read_frames(root, "train")
    (root / "v1.0-mini/scene.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"scene\.json: holds dict"):
        nuscenes.read_frames(root, "train")


def test_two_versions_need_a_choice(root: Path) -> None:
    files.write_json(root / "v1.0-trainval/sample.json", [])
    with pytest.raises(DataError, match=r"has v1\.0-mini, v1\.0-trainval"):
        Tables(root)
    assert Tables(root, "v1.0-mini").version == "v1.0-mini"


def test_a_truncated_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pcd.bin").write_bytes(b"\0" * 39)
    with pytest.raises(DataError, match=r"a\.pcd\.bin: 39 bytes"):
        nuscenes.read_lidar(tmp_path / "a.pcd.bin")


@needs_real
def test_real_point_counts_equal_the_published_ones() -> None:
    frame = nuscenes.read_frames(REAL, "train")[0]
    points = nuscenes.read_points(frame)
    assert points is not None
    assert points.shape == (34688, 3)
    assert set(Tables(REAL).categories) == set(nuscenes.CATEGORIES)
    published = [row["num_lidar_pts"] for row in Tables(REAL).annotations[frame.token]]
    assert frame.boxes is not None
    assert nuscenes.count_points(points, frame.boxes).tolist() == published
    assert len(published) == 68


@needs_real
def test_real_boxes_seen_by_each_camera() -> None:
    """Through both ego poses a box counts where a corner over 1 m away is in the image and none behind."""
    frame = nuscenes.read_frames(REAL, "train")[0]
    sweeps = Tables(REAL).keyframes[frame.token]
    assert frame.boxes is not None
    seen = []
    for index, name in enumerate(CAMERAS):
        record = sweeps[name]["ego_pose"]
        global_T_ego = pose(rotation_from_quaternion(record["rotation"]), record["translation"])
        at_lidar = sweeps[LIDAR]["ego_pose"]["translation"]
        np.testing.assert_allclose(frame.global_T_ego[:3, 3], at_lidar)
        cam_T_ego = invert_rigid(global_T_ego @ frame.ego_T_cam[index]) @ frame.global_T_ego
        uv, depth_m = project_points(
            frame.intrinsics[index], transform_points(cam_T_ego, frame.boxes.corners)
        )
        inside = (uv > 0).all(-1) & (uv < [1600, 900]).all(-1) & (depth_m > 1)
        seen.append(int((inside.any(-1) & (depth_m > 0.1).all(-1)).sum()))
    assert seen == [2, 47, 18, 2, 10, 5]
