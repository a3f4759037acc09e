"""The world as nuScenes: maps against the plan, boxes and points against the scene, labels against both."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from shapely import STRtree

from omma.core.poses import invert_rigid, transform_points
from omma.data.formats.nuscenes import CAMERAS, LIDAR, boxes_in_ego, count_points
from omma.data.formats.nuscenes_bev import (
    CLASSES,
    GRID,
    LabelView,
    expand_bits,
    read_footprints,
    render_label,
)
from omma.data.formats.nuscenes_depth import points_in_camera, project_depth
from omma.data.formats.nuscenes_maps import LOCATIONS, read_layers
from omma.data.formats.nuscenes_splits import common_scenes
from omma.errors import UsageError
from omma.world.build import build
from omma.world.capture import Capture
from omma.world.streets import U_RANGE_M
from omma.world.town import build_scene
from omma.world.traffic import TRAVEL_M
from omma.world.writers import nuscenes_maps
from omma.world.writers.nuscenes_rig import (
    LIDAR_MODEL,
    MIDDLE_M,
    MOUNTS,
    TILE_M,
    annotate,
    cameras,
    global_T_ego,
    global_T_scene,
    timestamp_us,
)

SIZE = (72, 128)
LAYERS = ("drivable_area", "ped_crossing", "walkway", "carpark_area")


@pytest.fixture(scope="module")
def scene():
    return build_scene(4, 0)


@pytest.fixture(scope="module")
def capture(scene):
    return Capture(scene, 4, "train", 1, 1.0, SIZE)


@pytest.fixture(scope="module")
def sweep(capture):
    return capture.lidar(MOUNTS[LIDAR].ego_T_sensor, LIDAR_MODEL)


@pytest.fixture(scope="module")
def annotations(capture, sweep):
    return annotate(capture, sweep)


@pytest.fixture(scope="module")
def areas(scene):
    """Layer -> its pieces as polygons in the scene frame."""
    scene_T_global = invert_rigid(global_T_scene(scene))
    return {
        layer: [
            shapely.Polygon(piece @ scene_T_global[:2, :2].T + scene_T_global[:2, 3])
            for pieces in groups
            for piece in pieces
        ]
        for layer, groups in nuscenes_maps.areas(scene).items()
    }


def _window():
    """Where the pieces of an area must be complete."""
    x, y = MIDDLE_M
    return shapely.box(x - 110, y - 72, x + 110, y + 72)


def _blocks(scene):
    return [(shapely.Polygon(curb), lawn) for curb, lawn in scene.plan.outlines]


def test_pieces_are_convex(areas):
    assert all(areas[layer] for layer in LAYERS)
    for polygons in areas.values():
        assert all(p.is_valid and p.convex_hull.area - p.area < 0.05 for p in polygons)


def test_drivable_pieces_are_all_that_is_no_block(scene, areas):
    streets = _window() - shapely.union_all([curb for curb, _ in _blocks(scene)])
    drawn = shapely.union_all(areas["drivable_area"]) & _window()
    assert streets.area > 3000
    assert streets.symmetric_difference(drawn).area < 0.01 * streets.area


def test_walkways_are_the_blocks_without_their_lawn(scene, areas):
    paved = [curb if lawn is None else curb - shapely.Polygon(lawn) for curb, lawn in _blocks(scene)]
    truth = shapely.union_all(paved) & _window()
    drawn = shapely.union_all(areas["walkway"]) & _window()
    assert truth.symmetric_difference(drawn).area < 0.015 * truth.area


def test_crossings_and_car_parks_lie_on_the_streets(areas):
    streets = shapely.union_all(areas["drivable_area"]).buffer(0.1)
    for layer in ("ped_crossing", "carpark_area"):
        assert all((p - streets).area < 0.05 for p in areas[layer] if p.within(_window()))


def test_the_cameras_stay_above_the_map(scene):
    """What the ego vehicle's cameras can reach on its whole way lies in the window of complete areas."""
    way = shapely.LineString([scene.ego.path(t)[:2, 3] for t in np.linspace(0, 60, 30)])
    assert way.length < TRAVEL_M + 5
    assert way.buffer(np.hypot(50, 25) + 1.7).within(_window())
    assert U_RANGE_M[0] < MIDDLE_M[0] - 110


def test_scenes_of_a_location_have_tiles_of_their_own(scene):
    boxes = {}
    for number in (0, 4, 8, 3):
        pieces = nuscenes_maps.areas(replace(scene, number=number))
        every = np.concatenate([p.reshape(-1, 2) for groups in pieces.values() for p in groups])
        boxes[number] = shapely.box(*every.min(0), *every.max(0))
        assert every.min() > 0
        assert every[:, 0].max() < TILE_M
    assert not boxes[0].intersects(boxes[4])
    assert not boxes[4].intersects(boxes[8])


def test_map_file_gives_back_the_pieces(scene, tmp_path):
    made = nuscenes_maps.areas(scene)
    masks = nuscenes_maps.write_maps(tmp_path, {0: made, 5: nuscenes_maps.areas(replace(scene, number=5))})
    assert list(masks) == [LOCATIONS[0], LOCATIONS[1]]
    layers = read_layers(tmp_path, LOCATIONS[0])
    for layer in LAYERS:
        expected = [shapely.Polygon(piece) for pieces in made[layer] for piece in pieces]
        assert len(layers[layer]) == len(expected)
        assert all(a.equals(b) for a, b in zip(layers[layer].geometries, expected, strict=True))


def test_mask_is_white_on_streets_and_walkways_with_north_up(scene, tmp_path):
    made = nuscenes_maps.areas(replace(scene, number=5))
    token = nuscenes_maps.write_maps(tmp_path, {5: made})[LOCATIONS[1]]
    mask = cv2.imread(str(tmp_path / "maps" / f"{token}.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (6600, 3300)  # the location's first tile is empty
    assert not mask[3300:].any()
    assert set(np.unique(mask)) == {0, 255}
    for pieces in (*made["drivable_area"], *made["walkway"]):
        x, y = pieces.mean(1).T
        assert (mask[6600 - 1 - np.floor(10 * y).astype(int), np.floor(10 * x).astype(int)] == 255).all()


def test_sensors_measure_while_the_ego_vehicle_drives_on(capture):
    times = {channel: timestamp_us(capture, channel) for channel in MOUNTS}
    assert all(times[channel] < times[LIDAR] for channel in CAMERAS)
    assert len(set(times.values())) == 7
    front, lidar = (global_T_ego(capture, channel) for channel in ("CAM_FRONT", LIDAR))
    np.testing.assert_allclose(lidar, global_T_scene(capture.scene) @ capture.snapshot.ego.scene_T_actor)
    ahead = invert_rigid(front) @ lidar[:, 3]
    speed = ahead[0] / (times[LIDAR] - times["CAM_FRONT"]) * 1e6
    assert speed == pytest.approx(np.linalg.norm(capture.snapshot.ego.velocity), rel=0.02)
    assert 3 < speed < 12


def test_lidar_has_rings_from_below_to_above(sweep):
    slope = np.degrees(np.arctan2(sweep.xyz[:, 2], np.hypot(*sweep.xyz[:, :2].T)))
    for ring in (0, 10, 31):
        assert slope[sweep.ring == ring] == pytest.approx(-30.67 + 41.34 / 31 * ring, abs=0.01)
    assert len(sweep.xyz) > 40000
    assert (sweep.brightness >= 0).all()
    assert sweep.brightness.max() <= 1


def test_boxes_hold_the_points_measured_on_them(capture, sweep, annotations):
    boxes = boxes_in_ego([{**a, "visibility_token": "1"} for a in annotations], global_T_ego(capture, LIDAR))
    inside = count_points(transform_points(MOUNTS[LIDAR].ego_T_sensor, sweep.xyz), boxes)
    counted = np.array([a["num_lidar_pts"] for a in annotations])
    many = counted > 30
    assert many.sum() > 5
    assert (inside[many] >= 0.9 * counted[many]).all()
    assert (inside[many] <= 1.3 * counted[many] + 30).all()


def test_riders_belong_to_their_vehicles(capture, annotations):
    states = {a.instance: a for a in capture.snapshot.actors}
    cycles = [a for a in annotations if a["category"] in ("vehicle.bicycle", "vehicle.motorcycle")]
    assert cycles
    assert all(states[a["instance"]].class_name != "rider" for a in annotations)
    for cycle in cycles:
        assert cycle["attribute"] == "cycle.with_rider"
        assert cycle["size"][2] > 1.5  # as high as the rider's head


def test_attributes_tell_who_moves(capture, annotations):
    states = {a.instance: a for a in capture.snapshot.actors}
    for found in annotations:
        speed = np.linalg.norm(states[found["instance"]].velocity)
        if found["attribute"] in ("vehicle.moving", "pedestrian.moving"):
            assert speed > 0.2
        elif found["attribute"] in ("vehicle.parked", "vehicle.stopped", "pedestrian.standing"):
            assert speed <= 0.2
    kinds = {a["attribute"] for a in annotations}
    assert {"vehicle.moving", "vehicle.parked", "pedestrian.moving"} <= kinds


@pytest.mark.parametrize("index", [0, 1, 4])
def test_lidar_depth_is_what_the_camera_sees(capture, sweep, index):
    """LiDAR points brought into a picture through both poses lie on the surfaces rendered there."""
    channel, camera = CAMERAS[index], cameras(capture)[index]
    poses = [global_T_ego(capture, name) for name in (LIDAR, channel)]
    points = points_in_camera(sweep.xyz, MOUNTS[LIDAR].ego_T_sensor, poses, MOUNTS[channel].ego_T_sensor)
    depth = project_depth(points, camera.intrinsics, SIZE, SIZE)
    seen = capture.picture(camera, index).depth_m
    known = depth > 0
    assert known.mean() > 0.02
    error = np.abs(depth[known] - seen[known]) / depth[known]
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.8) < 0.1


def _truth(capture, camera):
    """Drivable cells and cells of cars straight from the scene: (2, Z, X) at the cells' corners."""
    forward = camera.scene_T_cam[:2, 2] / np.linalg.norm(camera.scene_T_cam[:2, 2])
    right = np.array([forward[1], -forward[0]])
    x, z = GRID.corners()
    spots = camera.scene_T_cam[:2, 3] + x[..., None] * right + z[..., None] * forward
    covered = [shapely.contains_xy(curb, *np.moveaxis(spots, -1, 0)) for curb, _ in _blocks(capture.scene)]
    feet = [shapely.Polygon(a.footprint) for a in capture.snapshot.actors if a.class_name == "car"]
    # labels round corners to cells and include the outline: on average half a cell more on every side
    feet = [foot.buffer(GRID.cell_m / 2, join_style="mitre") for foot in feet]
    cars = [shapely.contains_xy(foot, *np.moveaxis(spots, -1, 0)) for foot in feet]
    return np.stack([~np.any(covered, axis=0), np.any(cars, axis=0)])


def _label(capture, sweep, annotations, index):
    """The label as the preparation of labels draws it from boxes, maps and points."""
    channel, camera = CAMERAS[index], cameras(capture)[index]
    pieces = nuscenes_maps.areas(capture.scene)
    layers = {
        layer: STRtree([shapely.Polygon(p) for found in groups for p in found])
        for layer, groups in pieces.items()
    }
    poses = [global_T_ego(capture, name) for name in (LIDAR, channel)]
    points = points_in_camera(sweep.xyz, MOUNTS[LIDAR].ego_T_sensor, poses, MOUNTS[channel].ego_T_sensor)
    view = LabelView(poses[1] @ MOUNTS[channel].ego_T_sensor, camera.intrinsics, SIZE[1])
    return render_label(view, layers, read_footprints(annotations), points)


def test_labels_show_the_world_from_above_and_not_its_mirror_image(capture, sweep, annotations):
    both = {False: np.zeros((2, 2)), True: np.zeros((2, 2))}
    for index in range(len(CAMERAS)):
        masks, counted = expand_bits(_label(capture, sweep, annotations, index), len(CLASSES))
        truth = _truth(capture, cameras(capture)[index])
        drawn = masks[[CLASSES.index("drivable_area"), CLASSES.index("car")]]
        assert counted.sum() > 500
        for mirrored, totals in both.items():
            seen = truth[..., ::-1] if mirrored else truth
            totals[0] += (drawn & seen & counted).sum((1, 2))
            totals[1] += ((drawn | seen) & counted).sum((1, 2))
    iou = {mirrored: totals[0] / totals[1] for mirrored, totals in both.items()}
    assert (iou[False] > (0.95, 0.88)).all()
    assert (iou[True] < (0.7, 0.3)).all()


def test_more_scenes_than_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match="32"):
        build("nuscenes", tmp_path / "world", scenes=1, val_scenes=33, frames=1)
    with pytest.raises(UsageError, match=str(len(common_scenes("train")))):
        build("nuscenes", tmp_path / "world", scenes=600, val_scenes=1, frames=1)
    assert list(tmp_path.iterdir()) == []
