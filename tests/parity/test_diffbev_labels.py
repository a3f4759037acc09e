"""Labels and depth of a synthetic nuScenes sample against the reference, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fill import load_arrays
from shapely import Polygon, STRtree

from omma.core.poses import pose, rotation_from_quaternion
from omma.data.formats.nuscenes_bev import (
    LabelView,
    draw_footprints,
    draw_layers,
    encode_bits,
    encode_png,
    expand_bits,
    occluded_cells,
    read_footprints,
    read_label,
    render_label,
    visible_cells,
)
from omma.data.formats.nuscenes_depth import points_in_camera, project_depth

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "diffbev"


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    return load_arrays(CASES / "nuscenes_bev_label.npz")


def _view(case: dict[str, np.ndarray]) -> LabelView:
    rig, poses = (_table(case, name) for name in ("calibrated_sensor", "ego_pose"))
    global_T_cam = _pose(poses["ec"]) @ _pose(rig["cc"])
    return LabelView(global_T_cam, np.array(rig["cc"]["camera_intrinsic"]), 1600)


def _table(case: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    return {record["token"]: record for record in json.loads(str(case["tables_json"]))[name]}


def _pose(record: dict[str, Any]) -> np.ndarray:
    return pose(rotation_from_quaternion(record["rotation"]), record["translation"])


def _layers(case: dict[str, np.ndarray]) -> dict[str, STRtree]:
    return {
        name: STRtree([Polygon(one["exterior"], one["holes"]) for one in polygons])
        for name, polygons in json.loads(str(case["map_layers_json"])).items()
    }


def _footprints(case: dict[str, np.ndarray]) -> list[Any]:
    category = {record["token"]: record["name"] for record in _table(case, "category").values()}
    kind = {token: category[record["category_token"]] for token, record in _table(case, "instance").items()}
    annotations = _table(case, "sample_annotation").values()
    return read_footprints([{**one, "category": kind[one["instance_token"]]} for one in annotations])


def _points(case: dict[str, np.ndarray]) -> np.ndarray:
    rig, poses = (_table(case, name) for name in ("calibrated_sensor", "ego_pose"))
    at_times = (_pose(poses["el"]), _pose(poses["ec"]))
    return points_in_camera(case["lidar_points"], _pose(rig["cl"]), at_times, _pose(rig["cc"]))


def test_poses_and_points(case: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(_view(case).global_T_cam, case["cam_to_global"], atol=1e-9)
    every = round(len(case["lidar_points"]) / len(case["camera_points_slice"]))
    np.testing.assert_allclose(_points(case)[::every], case["camera_points_slice"], atol=1e-6)


def test_each_part_of_the_label(case: dict[str, np.ndarray]) -> None:
    view = _view(case)
    np.testing.assert_array_equal(draw_layers(view, _layers(case), style="reference"), case["map_masks"])
    objects, uncounted = draw_footprints(view, _footprints(case))
    np.testing.assert_array_equal([*objects, uncounted], case["object_masks"])
    np.testing.assert_array_equal(visible_cells(view), case["visible"])
    np.testing.assert_array_equal(occluded_cells(_points(case)), case["occluded"])


def test_label_and_its_png(case: dict[str, np.ndarray], tmp_path: Path) -> None:
    label = render_label(_view(case), _layers(case), _footprints(case), _points(case))
    np.testing.assert_array_equal(label, case["label"])
    (tmp_path / "reference.png").write_bytes(case["png_bytes"].tobytes())
    (tmp_path / "own.png").write_bytes(encode_png(label))
    for name in ("reference.png", "own.png"):
        np.testing.assert_array_equal(read_label(tmp_path / name), case["label"].astype(np.int16))


def test_bits_go_both_ways(case: dict[str, np.ndarray]) -> None:
    masks, counted = expand_bits(case["label"].astype(np.int16), 14)
    np.testing.assert_array_equal(masks, np.concatenate([case["map_masks"], case["object_masks"][:-1]]))
    np.testing.assert_array_equal(~counted, case["ignored"])
    np.testing.assert_array_equal(encode_bits(masks, ~counted), case["label"])


def test_field_of_view_alone(case: dict[str, np.ndarray]) -> None:
    label = render_label(_view(case), _layers(case), _footprints(case), None, ignore="fov")
    _, counted = expand_bits(label, 14)
    np.testing.assert_array_equal(~counted, ~case["visible"] | case["object_masks"][-1])


def test_exact_style_keeps_what_a_hole_would_wipe(case: dict[str, np.ndarray]) -> None:
    """Convex polygons come out alike; the drivable area with a hole does not lose its neighbour."""
    view, layers = _view(case), _layers(case)
    exact = draw_layers(view, layers, style="exact")
    changed = (exact ^ case["map_masks"]).sum((1, 2))
    assert changed[1:].max() <= 2, "cells on an edge, where OpenCV's two fillers round differently"
    assert changed[0] > 50
    assert (case["map_masks"] & ~exact)[0].sum() <= 2


def test_depth() -> None:
    """Pixels of the devkit's projection; the same mask but for points on a pixel's border."""
    case = load_arrays(CASES / "nuscenes_depth_gt.npz")
    rig = {
        name: pose(rotation_from_quaternion(case[f"{name}_q"]), case[f"{name}_t"])
        for name in ("lidar_to_ego", "ego_lidar", "ego_cam", "cam_to_ego")
    }
    points = points_in_camera(
        case["lidar_points"], rig["lidar_to_ego"], (rig["ego_lidar"], rig["ego_cam"]), rig["cam_to_ego"]
    )
    width, height = case["image_wh"].tolist()
    depth = project_depth(points, case["intrinsic"], (height, width), (600, 800))
    known = depth > 0
    assert (known ^ (case["mask"] > 0)).sum() <= 0.005 * case["mask"].sum()
    both = known & (case["mask"] > 0)
    assert both.sum() > 1000
    np.testing.assert_allclose(depth[both], case["depth"][both], atol=1e-3)
