"""The pieces of the procedural world: solids, people, street plan, ground, rays, polygon fill."""

import sys
from pathlib import Path

import numpy as np
import pytest

from omma.errors import DataError
from omma.world.assets import people, scenery, vehicles
from omma.world.bev import fill_polygons
from omma.world.cast import MISS, Caster, accelerate
from omma.world.daylight import random_daylight
from omma.world.ground import LINE, ROAD, SIDEWALK, TERRAIN, Ground
from omma.world.materials import facade
from omma.world.mesh import Material, box, join, loft, place, ring, rod
from omma.world.streets import plan_streets
from omma.world.traffic import TRAVEL_M, travelled

GREY = (0.5, 0.5, 0.5)
RASTER = Path(__file__).parents[1] / "parity" / "lss" / "simbev_raster.npz"


def _outwards(mesh):
    """Whether triangles wind and shade away from the middle of a convex mesh."""
    across = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
    away = mesh.corners.mean(1) - mesh.corners.mean((0, 1))
    return ((across * away).sum(1) > 0).all() and ((mesh.normals.mean(1) * away).sum(1) > 0).all()


@pytest.mark.parametrize(
    "mesh",
    [
        box((1, 2, 3), (4, 5, 6), GREY, yaw=0.4),
        rod((0, 0, 0), (1, 2, 3), 0.3, GREY),
        loft([[(x, -1, 0), (x, 1, 0), (x, 1, 1), (x, -1, 1)] for x in (0, 2)], GREY, Material.PAINT),
        scenery.building((10, 8, 12), GREY, 0),
    ],
    ids=["box", "rod", "loft", "building"],
)
def test_solids_face_outwards(mesh):
    assert _outwards(mesh) or len(mesh) > 50  # a building's roof edge is no convex body
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1, atol=1e-5)


def test_box_has_the_size_and_place_asked_for():
    low, high = box((1, 2, 3), (4, 5, 6), GREY).bounds()
    np.testing.assert_allclose([low, high], [[3.5, 4, 4.5], [4.5, 6, 7.5]], atol=1e-6)


def test_ring_stands_on_the_ground():
    low, high = ring((0.5, 0, 0.34), 0.34, 0.03, GREY).bounds()
    assert low[2] == pytest.approx(0, abs=0.01)
    assert high[2] == pytest.approx(0.68, abs=0.01)


@pytest.mark.parametrize(
    "build", [vehicles.motorcycle, vehicles.bicycle, lambda: vehicles.truck(1), lambda: vehicles.bus(1)]
)
def test_vehicles_stand_on_the_ground_around_their_origin(build):
    low, high = build().bounds()
    assert low[2] == pytest.approx(0, abs=0.01)
    assert abs(low[0] + high[0]) < 0.3
    assert low[1] == pytest.approx(-high[1], abs=0.02)


@pytest.mark.parametrize("style", sorted(vehicles.CAR_STYLES))
def test_cars_have_the_size_of_their_style(style):
    size = np.ptp(vehicles.car(style, 0).bounds(), axis=0)
    np.testing.assert_allclose(size, vehicles.CAR_STYLES[style].size, rtol=0.12)


def test_paint_colours_the_body_alone():
    red = (0.4, 0.0, 0.0)
    car = vehicles.car("suv", 1)
    painted = car.painted(red)
    body = car.material == Material.PAINT
    np.testing.assert_allclose(painted.albedo[body], np.tile(np.float32(red), (body.sum(), 1)))
    np.testing.assert_array_equal(painted.albedo[~body], car.albedo[~body])


@pytest.mark.parametrize("phase", [0.0, 1.0, 2.5, 4.0])
def test_walking_joints_keep_the_lengths_of_the_limbs(phase):
    joints = people.walking_joints(1.8, phase)
    for start, end, share in ((11, 13, 0.245), (12, 14, 0.245), (13, 15, 0.24), (14, 16, 0.24)):
        assert np.linalg.norm(joints[start] - joints[end]) == pytest.approx(1.8 * share, rel=1e-4)
    assert joints[5, 1] > 0 > joints[6, 1]  # the left shoulder is on the left
    assert joints[0, 0] > joints[3, 0]  # the nose is ahead of the ears
    assert 0 < joints[15:, 2].min() < 0.15


def test_walking_alternates_the_legs():
    first, second = people.walking_joints(1.8, np.pi / 2), people.walking_joints(1.8, 3 * np.pi / 2)
    assert first[13, 0] > first[14, 0]
    assert second[13, 0] < second[14, 0]


def test_joints_are_inside_the_body_from_every_side():
    """A ray from far away towards each joint ends within a hand's breadth before it."""
    look = people.random_look(np.random.default_rng(0))
    joints = people.walking_joints(look.height_m, 1.0)
    caster = Caster(accelerate(people.person(look, joints).corners), 10**6, np.zeros((0, 3, 3), np.float32))
    for way in ([1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0.6, 0.6, -0.52]):
        direction = np.float32(way) / np.float32(np.linalg.norm(way))
        origins = (joints - 5 * direction).T
        hits = caster.cast(origins, np.tile(direction[:, None], (1, 17)))
        assert (hits.face != MISS).all()
        assert (hits.distance < 5.05).all()


def test_riders_hands_reach_the_handlebar():
    grip = np.array([0.4, 0.25, 1.05])
    joints = people.riding_joints(1.75, np.array([-0.22, 0, 1.04]), grip, np.array([0, 0.13, 0.26]))
    np.testing.assert_allclose(joints[9], grip, atol=0.06)
    np.testing.assert_allclose(joints[10], grip * [1, -1, 1], atol=0.06)


@pytest.fixture(scope="module")
def plan():
    return plan_streets(np.random.default_rng(4))


def test_main_street_is_road_and_its_borders_are_sidewalk(plan):
    ground = Ground(plan, (40.0, 0.0))
    street = plan.main
    start, end = max(plan.stretches(street), key=lambda s: (s[1] - s[0]) * (-40 < s[0] < 60))
    middle = (start + end) / 2

    def kind(aside):
        xy = plan.bend.xy(street.uv([middle], [aside])).astype(np.float32)
        return ground.kinds(ground.coverage(xy, np.full(1, 0.02, np.float32)))[0]

    assert kind(1.2) == ROAD
    assert kind(0.2) == LINE
    assert kind(0.0) == ROAD
    assert kind(-street.lanes * street.lane_m) == LINE
    assert kind(street.half_m + 1.5) == SIDEWALK
    assert kind(-street.half_m - 1.5) == SIDEWALK
    assert kind(street.half_m + 12) in (TERRAIN, SIDEWALK)


def test_lanes_keep_clear_of_junctions(plan):
    for street in plan.streets:
        for start, end in plan.stretches(street):
            for crossing in plan.crossings(street):
                assert not start - crossing.half_m < crossing.offset_m < end + crossing.half_m


def test_streets_bend_without_folding(plan):
    """The map from street coordinates keeps its sense everywhere in the planned range."""
    u, v = np.meshgrid(np.linspace(-140, 240, 60), np.linspace(-125, 125, 40))
    uv, step = np.stack([u, v], -1), 0.1
    along_u = plan.bend.xy(uv + np.array([step, 0])) - plan.bend.xy(uv)
    along_v = plan.bend.xy(uv + np.array([0, step])) - plan.bend.xy(uv)
    area = (along_u[..., 0] * along_v[..., 1] - along_u[..., 1] * along_v[..., 0]) / step**2
    assert area.min() > 0.7
    assert plan.bend.yaw([10.0, 0.0], 0, -1) == pytest.approx(plan.bend.yaw([10.0, 0.0], 0) + np.pi, abs=6.4)


def test_traffic_slows_down_within_its_reach():
    assert travelled(0, 10) == 0
    assert travelled(1, 10) == pytest.approx(10, rel=0.02)
    assert travelled(1000, 10) <= TRAVEL_M


def test_polygon_fill_matches_the_worked_example():
    """A box 4 m by 2 m ahead on the left: rows and columns as in SimBEV at 0.4 m and at 0.5 m."""
    polygon = np.array([[10.0, 1], [14, 1], [14, 3], [10, 3]])
    for cells, cell_m, rows, columns in ((360, 0.4, (145, 155), (172, 177)), (200, 0.5, (72, 80), (94, 98))):
        mask = np.zeros((cells, cells), np.uint8)
        fill_polygons(mask, [polygon], cell_m)
        filled = np.argwhere(mask)
        assert (filled.min(0) == (rows[0], columns[0])).all()
        assert (filled.max(0) == (rows[1], columns[1])).all()
        assert mask.sum() == (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1)


@pytest.mark.parametrize("case", ["ahead_left", "rotated_pose", "behind_right"])
def test_polygon_fill_matches_simbev(case):
    golden = np.load(RASTER)
    cells, cell_m = golden[f"{case}_dim_res"]
    mask = np.zeros((int(cells), int(cells)), np.uint8)
    fill_polygons(mask, [golden[f"{case}_polygon_ego"]], cell_m)
    expected = np.unpackbits(golden[f"{case}_mask"], axis=-1)[:, : int(cells)]
    np.testing.assert_array_equal(mask, expected)


def test_rays_meet_the_nearer_of_resting_and_moving_triangles():
    wall, block = box((1, 9, 9), (10.5, 0, 0), GREY), box((1, 2, 2), (4.5, 0, 0), GREY)
    caster = Caster(accelerate(wall.corners), len(wall), block.corners)
    origins = np.zeros((3, 3), np.float32)
    ways = np.float32([[1, 0.6, -1], [0, 0.8, 0], [0, 0, 0]])
    hits = caster.cast(origins, ways)
    assert hits.distance[0] == pytest.approx(4)
    assert hits.face[0] >= len(wall)
    assert np.isinf(hits.distance[2])
    assert hits.face[2] == MISS
    np.testing.assert_array_equal(caster.blocked(origins, ways), [True, False, False])
    skipped = caster.cast(origins, ways, np.array([False, False, False]))
    assert skipped.distance[0] == pytest.approx(10)


def test_missing_ray_caster_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    with pytest.raises(DataError, match="embreex") as caught:
        accelerate(box((1, 1, 1), (0, 0, 0), GREY).corners)
    assert "pip install" in str(caught.value)


def test_windows_are_darker_than_walls_and_average_out_far_away():
    bays = np.float32([[0.5, 0.02, 0.5], [1.5, 1.5, 1.5], [1, 1, 1]])
    wall = np.full((3, 3), 0.6, np.float32)
    near, mirror = facade(bays, wall, np.full(3, 0.01, np.float32))
    assert near[0, 0] < 0.45
    assert near[0, 1] == pytest.approx(0.6, rel=0.1)
    assert mirror[0] > 1
    assert mirror[1] == 0
    far, _ = facade(bays, wall, np.full(3, 2.0, np.float32))
    assert abs(far[0, 0] - far[0, 1]) < 0.15


def test_sky_is_brighter_towards_the_sun():
    daylight = random_daylight(np.random.default_rng(1))
    towards = np.stack([daylight.sun_direction, daylight.sun_direction * np.float32([-1, -1, 1])], 1)
    sky = daylight.sky(towards)
    assert (sky[:, 0] > sky[:, 1]).all()


def test_join_keeps_order_and_place_moves():
    first, second = box((1, 1, 1), (0, 0, 0), GREY), box((1, 1, 1), (5, 0, 0), (0.1, 0.2, 0.3))
    both = join([first, second]).moved(place(1, 2, 3, np.pi / 2))
    assert len(both) == 24
    np.testing.assert_allclose(both.bounds(), [[0.5, 1.5, 2.5], [1.5, 7.5, 3.5]], atol=1e-5)
    np.testing.assert_allclose(both.albedo[-1], [0.1, 0.2, 0.3], atol=1e-6)
