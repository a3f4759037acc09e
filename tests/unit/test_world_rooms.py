"""Rooms of the procedural world: what stands where, what a camera sees, where the depth camera fails."""

from dataclasses import replace

import numpy as np
import pytest

from omma.core.poses import invert_rigid, project_points, transform_points, unproject_points
from omma.world.finishes import Pattern, finish
from omma.world.handheld import RoomCapture, handheld_intrinsics
from omma.world.indoors import IndoorRenderer
from omma.world.mesh import Material, box, join
from omma.world.rooms import Lamp, build_room
from omma.world.sensors import PinholeCamera
from omma.world.shell import build_shell, wall_pose
from omma.world.structured_light import BASELINE_M, FARTHEST_M, Hole, measure

SIZE = (96, 128)
RED = (0.6, 0.03, 0.03)
WHITE = (0.7, 0.7, 0.7)
NO_WINDOW = np.zeros((0, 4, 3))
# x ahead becomes camera z, y left becomes -x, z up becomes -y
AHEAD = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])


@pytest.fixture(scope="module")
def rooms():
    return [build_room(2, number) for number in range(6)]


@pytest.fixture(scope="module")
def captures(rooms):
    return [RoomCapture(room, 2, "train", 1, 1.0, SIZE) for room in rooms]


def _hall(*things, length_m=4.0, paint=WHITE):
    """A bare hall with its far wall at x = length, a lamp above and things in it."""
    size = (length_m, 4.0, 3.0)
    walls = box(size, np.array(size) / 2, paint)
    mesh = join([walls, *things])
    return replace(
        build_room(0, 0),
        size=size,
        solid=mesh,
        clear=mesh.none(),
        windows=NO_WINDOW,
        lamps=(Lamp((0.3, 2.0, 2.7), (2.0, 2.0, 2.0)),),
        sun=(np.array([0, 0, 1.0]), 0.0),
        occupants=(),
    )


def _seen(room, x_m=0.0):
    """Renderer, shot and camera that looks along x from the middle of the near wall."""
    scene_T_cam = np.eye(4)
    scene_T_cam[:3, :3], scene_T_cam[:3, 3] = AHEAD, (x_m + 0.01, 2.0, 1.5)
    camera = PinholeCamera(handheld_intrinsics(SIZE), SIZE, scene_T_cam)
    renderer = IndoorRenderer(room, 0.0)
    return renderer, renderer.shoot(camera, np.random.default_rng(0)), camera


def _measured(room, x_m=0.0):
    renderer, shot, camera = _seen(room, x_m)
    return measure(renderer, shot, camera, np.random.default_rng(1)), shot, camera


def _has(measured, hole):
    return (measured.holes & int(hole)) > 0


def test_rooms_are_furnished_and_everything_stands_inside(rooms):
    for room in rooms:
        assert len(room.footprints) == len(room.heights) >= 3
        assert (room.footprints[:, :2] >= 0).all()
        assert (room.footprints[:, 2:] <= np.array(room.size[:2])).all()
        low, high = room.solid.bounds()
        assert (low > -0.25).all()  # a window is set into its wall
        assert (high < np.array(room.size) + 0.25).all()
    assert any(room.occupants for room in rooms)
    assert len({room.size for room in rooms}) == len(rooms)


def test_the_same_numbers_give_the_same_room(rooms):
    again = build_room(2, 3)
    np.testing.assert_array_equal(again.solid.corners, rooms[3].solid.corners)
    np.testing.assert_array_equal(again.solid.albedo, rooms[3].solid.albedo)
    assert build_room(3, 3).size != again.size


def test_clearance_is_negative_inside_of_furniture(rooms):
    room = rooms[0]
    x0, y0, x1, y1 = room.footprints[0]
    assert room.clearance_m(np.array([(x0 + x1) / 2, (y0 + y1) / 2])) < 0
    assert room.clearance_m(np.array([-0.1, 1.0])) == pytest.approx(-0.1)


@pytest.mark.parametrize("wall", range(4))
def test_wall_poses_look_into_the_room(wall):
    size = (5.0, 4.0, 2.5)
    pose = wall_pose(size, wall, 1.5, 0.4)
    ahead = pose[:3, 3] + pose[:3, 0]
    assert (ahead[:2] > 0).all()
    assert (ahead[:2] < size[:2]).all()
    edge = pose[:3, 3] - 0.4 * pose[:3, 0]
    assert np.isclose(edge[wall % 2], (0, 0, 5.0, 4.0)[wall])
    assert np.isclose(edge[1 - wall % 2], 1.5)


def test_windows_are_holes_in_the_walls_that_face_inwards():
    for seed in range(5):
        shell = build_shell(np.random.default_rng(seed))
        for corners, wall in zip(shell.windows, shell.window_walls, strict=True):
            facing = np.cross(corners[1] - corners[0], corners[3] - corners[0])
            np.testing.assert_allclose(facing[:2] / np.linalg.norm(facing), shell.inward(wall), atol=1e-9)
            assert corners[:, 2].max() < shell.size[2]


def test_lifted_pixels_fill_the_room_and_do_not_leave_it(captures):
    """Depth is along the optical axis: as a range it would put the picture's corners behind the walls."""
    for capture in captures:
        camera, shot = capture.camera, capture.shot
        uv = camera.centres().T.astype(float)
        xyz = unproject_points(camera.intrinsics, uv, shot.depth_m.ravel().astype(float))
        xyz = transform_points(camera.scene_T_cam, xyz)
        np.testing.assert_allclose(xyz, shot.surface.position.T, atol=2e-3)
        assert (xyz > -0.2).all()
        assert (xyz < np.array(capture.scene.size) + 0.2).all()
        room = np.array(capture.scene.size)
        on_the_rim = (np.minimum(np.abs(xyz), np.abs(xyz - room)) < 3e-3).any(1)
        assert on_the_rim.mean() > 0.1
        assert (shot.depth_m > 0.1).all()


def test_a_box_is_seen_where_its_corners_project():
    """Colour and depth have the box's outline to a pixel, and its near face has its distance."""
    centre, size = np.array([2.25, 2.2, 1.4]), np.array([0.5, 0.8, 0.6])
    _, shot, camera = _seen(_hall(box(size, centre, RED)))
    front = np.array([[2.0, centre[1] + a * 0.4, centre[2] + b * 0.3] for a in (1, -1) for b in (1, -1)])
    uv, depth_m = project_points(camera.intrinsics, transform_points(invert_rigid(camera.scene_T_cam), front))
    red = shot.rgb[..., 0] > 2.0 * shot.rgb[..., 1]
    near = shot.depth_m < 2.0
    for mask in (red, near):
        rows, columns = np.nonzero(mask)
        np.testing.assert_allclose([columns.min(), rows.min()], uv.min(0), atol=1.01)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], uv.max(0), atol=1.01)
    assert (red != near).mean() < 0.02
    np.testing.assert_allclose(shot.depth_m[near], depth_m[0], atol=1e-3)


def test_shade_of_the_projector_is_left_of_near_things_and_as_wide_as_the_parallax():
    measured, shot, camera = _measured(_hall(box((0.1, 0.5, 3.0), (1.06, 2.0, 1.5), RED)))
    row = SIZE[0] // 2
    left = np.flatnonzero(shot.depth_m[row] < 1.5).min()
    shade = np.flatnonzero(_has(measured, Hole.SHADOW)[row])
    width = camera.intrinsics[0, 0] * BASELINE_M * (1 / 1.0 - 1 / 3.99)
    assert len(shade) == pytest.approx(width, abs=1.5)
    assert shade.max() == left - 1


def test_holes_are_where_depth_is_missing_and_nowhere_else(captures):
    for capture in captures:
        measured = capture.measured()
        np.testing.assert_array_equal(measured.depth_m == 0, measured.holes != 0)
        kept = measured.holes == 0
        assert 0.3 < kept.mean() < 0.99
        true = capture.shot.depth_m[kept]
        assert (np.abs(measured.depth_m[kept] - true) < 0.01 + 0.02 * true**2).all()
        panes = np.reshape(capture.shot.surface.material == Material.GLASS, SIZE)
        assert _has(measured, Hole.GLASS)[panes].all()


def test_error_grows_with_the_square_of_depth():
    error = {}
    for x_m in (0.0, 2.0):
        measured, shot, _ = _measured(_hall(), x_m)
        middle = np.s_[40:56, 54:74]
        kept = measured.holes[middle] == 0
        assert kept.mean() > 0.9
        error[x_m] = np.std((measured.depth_m - shot.depth_m)[middle][kept])
    assert error[0.0] / error[2.0] == pytest.approx((3.99 / 1.99) ** 2, rel=0.35)


def test_depths_come_in_steps_of_an_eighth_of_a_pixel(captures):
    depth_m = captures[0].measured().depth_m
    eighths = 580.0 * BASELINE_M / depth_m[depth_m > 0] * 8
    np.testing.assert_allclose(eighths, np.rint(eighths), atol=2e-3)


@pytest.mark.parametrize(
    ("colour", "material", "hole"),
    [((0.004, 0.004, 0.004), Material.MATTE, Hole.WEAK), (WHITE, Material.GLASS, Hole.GLASS)],
)
def test_dark_and_glassy_boards_give_no_depth(colour, material, hole):
    board = box((0.05, 1.2, 1.2), (3.2, 2.0, 1.5), colour, material)
    measured, shot, _ = _measured(_hall(board))
    on_board = np.reshape(np.abs(shot.surface.position[0] - 3.175) < 2e-3, SIZE)
    assert on_board.sum() > 200
    assert _has(measured, hole)[on_board].mean() > 0.8
    plain, _, _ = _measured(_hall(box((0.05, 1.2, 1.2), (3.2, 2.0, 1.5), WHITE)))
    assert (plain.holes[on_board] == 0).mean() > 0.8


def test_what_is_too_near_or_too_far_gives_no_depth():
    measured, shot, _ = _measured(_hall(box((0.1, 0.4, 0.4), (0.4, 2.0, 1.5), WHITE), length_m=9.0))
    outside = (shot.depth_m < 0.5) | (shot.depth_m > FARTHEST_M)
    np.testing.assert_array_equal(_has(measured, Hole.RANGE), outside)
    assert outside.any()


def test_sun_through_a_window_outshines_the_pattern():
    room = replace(_hall(), sun=(np.array([0.0, 0, 1]), 9.0))
    roofless = box((4.0, 4.0, 0.1), (2, 2, -0.05), WHITE)
    wall = box((0.1, 4.0, 1.5), (4.05, 2, 0.75), WHITE)
    measured, shot, _ = _measured(replace(room, solid=join([roofless, wall])))
    on_floor = np.reshape(np.abs(shot.surface.position[2]) < 1e-3, SIZE) & (shot.depth_m > 0)
    assert on_floor.any()
    assert _has(measured, Hole.SUN)[on_floor].all()


def test_a_lamp_lights_its_side_and_things_cast_shade():
    """A board under the lamp keeps its light from the middle of the far wall."""
    dark, board = (0.15, 0.15, 0.15), box((0.1, 0.3, 0.6), (1.2, 2.0, 2.2), WHITE)
    shots = [_seen(hall)[1] for hall in (_hall(paint=dark), _hall(board, paint=dark))]
    side, middle = ([s.rgb[60:70, c].mean() for s in shots] for c in (slice(5, 15), slice(60, 68)))
    assert abs(side[0] - middle[0]) < 40
    assert middle[1] < 0.8 * side[1]


def test_a_frame_does_not_depend_on_those_before_it(rooms):
    first = RoomCapture(rooms[1], 2, "train", 4, 4.0, (48, 64))
    for frame in (0, 2):
        _ = RoomCapture(rooms[1], 2, "train", frame, float(frame), (48, 64)).shot
    again = RoomCapture(build_room(2, 1), 2, "train", 4, 4.0, (48, 64))
    np.testing.assert_array_equal(first.shot.rgb, again.shot.rgb)
    np.testing.assert_array_equal(first.measured().depth_m, again.measured().depth_m)


def test_people_walk_between_frames():
    walker = next(w for n in range(20) for w in build_room(0, n).occupants if w.stride > 0.5)
    before, after = walker.mesh(0.0), walker.mesh(0.5)
    assert np.abs(before.corners - after.corners).max() > 0.1
    assert before.bounds()[0, 2] == pytest.approx(0.0, abs=0.1)


def test_tiles_have_darker_joints_that_vanish_far_away():
    side = 0.33
    texture = np.float32([[0.001, side / 2], [side / 2, side / 2], [Pattern.TILES] * 2])
    near, far = (np.full((3, 2), 0.5, np.float32) for _ in range(2))
    finish(near, texture, np.full(2, 0.001, np.float32))
    finish(far, texture, np.full(2, 0.5, np.float32))
    assert near[0, 0] < 0.7 * near[0, 1]
    assert abs(far[0, 0] - far[0, 1]) < 0.1
