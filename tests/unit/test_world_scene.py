"""Geometry of the procedural world: what is rendered, measured and labelled lies where the boxes say."""

import cv2
import numpy as np
import pytest

from omma.core.poses import invert_rigid, project_points, transform_points
from omma.data.formats.simbev_layout import CLASSES_BY_COUNT, flip_bev
from omma.world.bev import bev_masks, visibility_map
from omma.world.capture import Capture
from omma.world.scene import CLASS_INDEX
from omma.world.shadows import MoverShadows
from omma.world.town import build_scene
from omma.world.writers.rig import rig_cameras

SIZE = (112, 240)
VEHICLES = ("car", "truck", "bus")


@pytest.fixture(scope="module")
def capture():
    return Capture(build_scene(5, 0), 5, "train", 1, 1.0, SIZE)


@pytest.fixture(scope="module")
def views(capture):
    """Cameras of the rig with their pictures."""
    cameras = rig_cameras(capture)
    return [(camera, capture.picture(camera, k)) for k, camera in enumerate(cameras)]


def _projected(camera, xyz):
    return project_points(camera.intrinsics, transform_points(invert_rigid(camera.scene_T_cam), xyz))


def _hull_mask(uv, margin_px):
    hull = cv2.convexHull(np.float32(uv) - 0.5)  # OpenCV's pixel (0, 0) is centred on 0
    mask = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(mask, [np.rint(hull * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return cv2.dilate(mask, np.ones((2 * margin_px + 1,) * 2, np.uint8)).astype(bool)


def _in_front(capture, views):
    """(actor, camera, picture, projected corners) for boxes wholly in front of a camera."""
    for camera, picture in views:
        for actor in capture.snapshot.actors:
            uv, depth_m = _projected(camera, actor.corners)
            if depth_m.min() > 0.3:
                yield actor, camera, picture, uv


def test_instance_pixels_lie_within_the_projected_boxes(capture, views):
    compared = 0
    for actor, _, picture, uv in _in_front(capture, views):
        pixels = picture.instance == actor.instance
        if pixels.any():
            assert not (pixels & ~_hull_mask(uv, 1)).any(), actor.kind
            compared += 1
    assert compared > 15


def test_unhidden_vehicles_fill_their_projected_boxes(capture, views):
    """The rectangle around the pixels is the one around the box, up to the round corners of a car."""
    shares = capture.visible_shares([camera for camera, _ in views])
    overlaps = []
    for actor, _, picture, uv in _in_front(capture, views):
        inside = (uv > 2).all() and (uv < np.array(SIZE[::-1]) - 2).all()
        rows, columns = np.nonzero(picture.instance == actor.instance)
        if actor.class_name in VEHICLES and inside and shares[actor.instance] > 0.95 and len(rows) > 150:
            low, high = uv.min(0), uv.max(0)
            own_low = np.array([columns.min(), rows.min()])
            own_high = np.array([columns.max(), rows.max()]) + 1
            shared = np.prod(np.minimum(high, own_high) - np.maximum(low, own_low))
            overlaps.append(shared / (np.prod(high - low) + np.prod(own_high - own_low) - shared))
    assert len(overlaps) >= 2
    assert min(overlaps) > 0.7


def test_depth_of_the_road_follows_from_the_camera_height(capture, views):
    """A level camera 1.6 m up sees the road at depth f * 1.6 / (row - cy)."""
    compared = 0
    for camera, picture in views:
        focal, cy = camera.intrinsics[1, 1], camera.intrinsics[1, 2]
        rows, _ = np.nonzero(picture.class_index == CLASS_INDEX["road"])
        depth_m = picture.depth_m[picture.class_index == CLASS_INDEX["road"]]
        expected = focal * 1.6 / (rows + 0.5 - cy)
        np.testing.assert_allclose(depth_m, expected, rtol=2e-3)
        compared += len(rows)
    assert compared > 5000


def test_lifted_pixels_of_an_object_lie_in_its_box(capture, views):
    """Depth, intrinsics and pose together take every vehicle pixel into the vehicle's own box."""
    for camera, picture in views:
        rows, columns = np.nonzero(picture.instance)
        uv1 = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        xyz_cam = (np.linalg.inv(camera.intrinsics) @ uv1 * picture.depth_m[rows, columns]).T
        xyz = transform_points(camera.scene_T_cam, xyz_cam)
        for actor in capture.snapshot.actors:
            own = picture.instance[rows, columns] == actor.instance
            local = transform_points(invert_rigid(actor.scene_T_actor), xyz[own])
            box = transform_points(invert_rigid(actor.scene_T_actor), actor.corners)
            assert (local > box.min(0) - 0.02).all()
            assert (local < box.max(0) + 0.02).all()


def test_leaving_out_rays_that_meet_no_mover_changes_nothing(capture):
    """Neither the mask of pixels nor the map of shadows hides a moving actor."""
    boxes = [a.corners for a in capture.snapshot.actors if not a.rests]
    for camera in rig_cameras(capture)[:3]:
        origin, directions = camera.scene_T_cam[:3, 3], camera.rays(camera.centres())[0]
        mask = camera.covered(boxes).ravel()
        some = capture.renderer.see(origin, directions, 0.01, mask)
        every = capture.renderer.see(origin, directions, 0.01)
        assert 0 < mask.sum() < mask.size
        np.testing.assert_array_equal(some.rgb, every.rgb)
        np.testing.assert_array_equal(some.instance, every.instance)


def test_shadow_map_holds_every_shadow_of_a_mover(capture):
    movers = [a for a in capture.snapshot.actors if not a.rests]
    sun = capture.scene.daylight.sun_direction
    here = capture.snapshot.ego.scene_T_actor[:2, 3]
    shadows = MoverShadows(movers, sun, here)
    rng = np.random.default_rng(0)
    spots = np.concatenate(
        [rng.uniform(here - 40, here + 40, (20000, 2)), rng.uniform(0.1, 2, (20000, 1))], 1
    )
    position = np.float32(spots.T)
    ways = np.broadcast_to(sun[:, None], position.shape)
    nothing = np.zeros(position.shape[1], bool)
    caster = capture.snapshot.caster
    by_movers = caster.blocked(position, ways) & ~caster.blocked(position, ways, nothing)
    assert by_movers.sum() > 20
    assert shadows.possible(position)[by_movers].all()


def test_lidar_points_of_an_object_lie_in_its_box(capture):
    ego_T_lidar = np.eye(4)
    ego_T_lidar[2, 3] = 1.8
    sweep = capture.lidar(ego_T_lidar)
    xyz = transform_points(capture.snapshot.ego.scene_T_actor @ ego_T_lidar, sweep.xyz.astype(float))
    assert len(xyz) > 20000
    hit = 0
    for actor in capture.snapshot.actors:
        own = sweep.instance == actor.instance
        local = transform_points(invert_rigid(actor.scene_T_actor), xyz[own])
        box = transform_points(invert_rigid(actor.scene_T_actor), actor.corners)
        assert (local > box.min(0) - 0.06).all()  # six deviations of the range noise
        assert (local < box.max(0) + 0.06).all()
        hit += own.any()
    assert hit > 20


def test_road_points_of_the_lidar_lie_1_8_m_below_it(capture):
    ego_T_lidar = np.eye(4)
    ego_T_lidar[2, 3] = 1.8
    xyz = capture.lidar(ego_T_lidar).xyz
    ahead = xyz[(np.abs(xyz[:, 1]) < 1) & (xyz[:, 0] > 3) & (xyz[:, 0] < 8)]
    assert len(ahead) > 20
    assert abs(np.median(ahead[:, 2]) + 1.8) < 0.02


def test_visible_joints_lie_in_the_silhouette(capture):
    """Where the depth at a joint is the person's own, the joint's pixel belongs to the person."""
    camera = rig_cameras(capture)[0]
    seen, inside = 0, 0
    for actor in capture.snapshot.actors:
        if actor.joints is None or actor.class_name != "pedestrian":
            continue
        close = _looking_at(camera, actor)
        picture = capture.picture(close, 0)
        pixels = cv2.dilate((picture.instance == actor.instance).astype(np.uint8), np.ones((3, 3), np.uint8))
        uv, depth_m = _projected(close, actor.joints)
        for (u, v), joint_m in zip(uv, depth_m, strict=True):
            if not (0 <= u < SIZE[1] and 0 <= v < SIZE[0]):
                continue
            free = picture.depth_m[int(v), int(u)] > joint_m - 0.25  # nothing stands before it
            seen += bool(free)
            inside += bool(free and pixels[int(v), int(u)])
    assert seen > 100
    assert inside == seen


def _looking_at(camera, actor):
    """The camera moved to 4 m from a person, looking at the middle of the body."""
    from omma.world.sensors import PinholeCamera

    middle = actor.corners.mean(0)
    forward = -actor.scene_T_actor[:3, :3] @ np.array([0.8, 0.6, 0.0])
    right, down = np.cross(forward, [0, 0, 1.0]), np.array([0, 0, -1.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, down, forward], 1)
    pose[:3, 3] = middle - 4.0 * forward
    return PinholeCamera(camera.intrinsics, camera.image_size, pose)


def test_boxes_cover_their_cells_in_both_orientations(capture):
    """Rows run along -x, columns along -y; turned by 180 degrees a box is at its Lift-Splat cells."""
    masks = bev_masks(capture.snapshot, CLASSES_BY_COUNT[8], 200, 0.5)
    for actor in capture.actors_within(45):
        if actor.class_name not in CLASSES_BY_COUNT[8]:
            continue
        mask = masks[CLASSES_BY_COUNT[8].index(actor.class_name)]
        x, y = capture.corners_ego(actor)[:, :2].mean(0)
        assert mask[int((50 - x) / 0.5), int((50 - y) / 0.5)]
        assert flip_bev(mask)[int((x + 50) / 0.5), int((y + 50) / 0.5)]


def test_ego_vehicle_is_a_car_in_the_middle_unless_left_out(capture):
    with_ego = bev_masks(capture.snapshot, ["car"], 200, 0.5)[0]
    without = bev_masks(capture.snapshot, ["car"], 200, 0.5, with_ego=False)[0]
    assert with_ego[96:104, 99:101].all()
    assert not without[98:102, 98:102].any()
    assert (with_ego & ~without).sum() < 80


def test_masks_overlap_and_the_ego_stands_on_the_road(capture):
    classes = CLASSES_BY_COUNT[14]
    masks = dict(zip(classes, bev_masks(capture.snapshot, classes, 400, 0.4), strict=True))
    assert masks["road"][200, 200]
    assert (masks["car"] & masks["road"]).sum() > 0.5 * masks["car"].sum()
    assert (masks["road_line"] & masks["road"]).sum() > 0.9 * masks["road_line"].sum()
    assert (masks["sidewalk"] & masks["road"]).sum() < 0.05 * masks["sidewalk"].sum()


def test_visibility_of_a_box_in_view_and_of_one_behind_a_wall(capture):
    """A vehicle with many pixels is visible; one without a single pixel is not."""
    cameras = rig_cameras(capture)
    shares = capture.visible_shares(cameras)
    pictures = [capture.picture(camera, 0) for camera in cameras]
    counts = {
        a.instance: sum((p.instance == a.instance).sum() for p in pictures) for a in capture.actors_within(50)
    }
    assert all(shares[k] > 0.2 for k, n in counts.items() if n > 600)
    assert all(shares[k] < 0.5 for k, n in counts.items() if n == 0)


def test_visibility_map_shows_the_better_level_where_boxes_meet(capture):
    near = [a for a in capture.actors_within(40) if a.class_name in VEHICLES]
    levels = {a.instance: 1 + k % 4 for k, a in enumerate(near)}
    found = visibility_map(capture.snapshot, levels, 200, 0.5, 255)
    assert set(np.unique(found)) == {*levels.values(), 255}
    x, y = capture.corners_ego(near[3])[:, :2].mean(0)
    assert found[int((50 - x) / 0.5), int((50 - y) / 0.5)] == 4


def test_moving_actors_follow_their_velocity(capture):
    """Position half a second later is where the velocity points, and lanes keep their traffic apart."""
    later = {a.instance: a for a in capture.scene.at(1.1).actors}
    moving = [a for a in capture.snapshot.actors if np.linalg.norm(a.velocity) > 2 and a.instance in later]
    assert len(moving) > 5
    for actor in moving:
        step = later[actor.instance].scene_T_actor[:3, 3] - actor.scene_T_actor[:3, 3]
        np.testing.assert_allclose(step / 0.1, actor.velocity, atol=0.35)


def test_scene_is_a_pure_function_of_seed_and_number():
    first, again, other = build_scene(3, 1), build_scene(3, 1), build_scene(3, 2)
    np.testing.assert_array_equal(first.at(2.0).meshes[1].corners, again.at(2.0).meshes[1].corners)
    assert len(first.actors) != len(other.actors) or first.plan.bend != other.plan.bend


def test_vehicles_do_not_run_into_each_other():
    """Footprints of vehicles near the ego share no ground, now and seconds later."""
    for number in range(3):
        scene = build_scene(9, number)
        for time_s in (0.0, 4.0):
            snapshot = scene.at(time_s)
            here = snapshot.ego.scene_T_actor[:2, 3]
            boxes = [a for a in (*snapshot.actors, snapshot.ego) if a.class_name in VEHICLES]
            near = [np.float32(a.footprint) for a in boxes if np.linalg.norm(a.footprint.mean(0) - here) < 60]
            shared = [cv2.intersectConvexConvex(a, b)[0] for k, a in enumerate(near) for b in near[:k]]
            assert len(near) > 5
            assert max(shared) < 0.3, (number, time_s)
