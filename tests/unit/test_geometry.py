"""Poses, projection, image changes, grids and frustums against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omma.core.geometry import (
    cell_ids,
    feature_pixels,
    frustum_cells,
    frustum_points,
    inverse_3x3,
    pixel_rays,
)
from omma.core.grid import BevGrid, depth_bins, distance_rings
from omma.core.poses import (
    image_augmentation_matrix,
    in_image,
    invert_rigid,
    pose,
    project_points,
    rotation_from_quaternion,
    transform_points,
    unproject_points,
)
from omma.errors import ConfigError

FRONT = [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]  # ego_R_cam of a camera that looks ahead
K = np.array([[953.4, 0.0, 800.0], [0.0, 953.4, 450.0], [0.0, 0.0, 1.0]])


def test_quaternion_of_a_front_camera() -> None:
    """(0.5, -0.5, 0.5, -0.5) in the order w, x, y, z is SimBEV's front camera; scale does not matter."""
    np.testing.assert_allclose(rotation_from_quaternion([0.5, -0.5, 0.5, -0.5]), FRONT, atol=1e-12)
    turned = rotation_from_quaternion(3.0 * np.array([math.cos(0.4), 0, 0, math.sin(0.4)]))
    np.testing.assert_allclose(turned[0], [math.cos(0.8), -math.sin(0.8), 0], atol=1e-12)


def test_quaternions_in_a_stack() -> None:
    stack = np.random.default_rng(0).standard_normal((2, 3, 4))
    rotations = rotation_from_quaternion(stack)
    np.testing.assert_allclose(rotations[1, 2], rotation_from_quaternion(stack[1, 2]))
    np.testing.assert_allclose(
        rotations @ np.swapaxes(rotations, -1, -2), np.broadcast_to(np.eye(3), (2, 3, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)


def test_invert_rigid_and_points() -> None:
    """A camera 1.6 m up and 0.6 m ahead sees the ego origin below and behind itself."""
    ego_T_cam = pose(FRONT, [0.6, 0.0, 1.6])
    cam_T_ego = invert_rigid(ego_T_cam)
    np.testing.assert_allclose(cam_T_ego @ ego_T_cam, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(transform_points(cam_T_ego, np.zeros(3)), [0, 1.6, -0.6], atol=1e-12)
    np.testing.assert_allclose(transform_points(ego_T_cam, np.array([[0.0, 0, 10]])), [[10.6, 0, 1.6]])


def test_projection_round_trip_and_points_behind() -> None:
    xyz = np.random.default_rng(0).uniform([-5, -3, 2], [5, 3, 40], (50, 3))
    uv, depth_m = project_points(K, xyz)
    np.testing.assert_allclose(unproject_points(K, uv, depth_m), xyz)
    ahead, behind = np.array([0.0, 0, 5]), np.array([0.0, 0, -5])
    assert in_image(*project_points(K, ahead), (900, 1600))
    assert not in_image(*project_points(K, behind), (900, 1600))
    assert not in_image(*project_points(K, np.zeros(3)), (900, 1600))


def test_image_change_by_hand() -> None:
    """1600x900 halved unequally, cropped at (10, 20), mirrored: pixel (100, 60) lands where it should."""
    A, b = image_augmentation_matrix((0.5, 0.25), (10, 20, 410, 220), flip=True)
    np.testing.assert_allclose(A @ [100.0, 60.0] + b, [400 - (50 - 10), 15 - 20])


def test_image_rotation_is_counter_clockwise_about_the_centre() -> None:
    A, b = image_augmentation_matrix((1, 1), (0, 0, 100, 50), rotate_deg=90)
    np.testing.assert_allclose(A @ [50.0, 25.0] + b, [50, 25])
    np.testing.assert_allclose(A @ [60.0, 25.0] + b, [50, 15])  # right of the centre goes up


def test_inverse_3x3() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.eye(3) + 0.3 * torch.randn(4, 5, 3, 3, generator=generator)
    torch.testing.assert_close(inverse_3x3(matrices), torch.linalg.inv(matrices), rtol=1e-4, atol=1e-5)


class TestGrid:
    def test_sizes_and_centres(self) -> None:
        grid = BevGrid((-50, 50, 0.5), (-10, 10, 1), (-10, 10, 20))
        assert (grid.nx, grid.dx, grid.bx) == ((200, 20, 1), (0.5, 1, 20), (-49.75, -9.5, 0))
        assert grid.centres("x")[[0, -1]].tolist() == [-49.75, 49.75]
        assert grid.centres("y")[0] == -9.5
        assert grid.radius().shape == (200, 20)
        assert grid.radius()[100, 10] == pytest.approx(math.hypot(0.25, 0.5))

    def test_a_cell_is_not_lost_to_rounding(self) -> None:
        assert BevGrid((-76.8, 76.8, 0.1), (-51.2, 80, 0.1), (0, 1, 1)).nx[:2] == (1536, 1312)

    @pytest.mark.parametrize("bounds", [(-50, 50, 0.3), (0, 10, 0), (10, 0, 1), (0, float("inf"), 1)])
    def test_bad_bounds_name_the_axis(self, bounds: tuple[float, float, float]) -> None:
        with pytest.raises(ConfigError, match="grid axis y"):
            BevGrid((0, 8, 1), bounds, (0, 1, 1))

    def test_depth_bins(self) -> None:
        assert depth_bins(4, 45, 1).tolist() == list(range(4, 45))
        assert len(depth_bins(1, 60, 0.1)) == 590
        assert depth_bins(1, 2.05, 0.5).tolist() == [1, 1.5, 2]
        with pytest.raises(ConfigError, match="depth"):
            depth_bins(0, 10, 1)

    def test_rings_have_their_near_end(self) -> None:
        radius = np.array([[0.0, 19.9, 20.0], [34.9, 35.0, 50.0]])
        assert distance_rings(radius, ((0, 20), (20, 35), (35, 50))).tolist() == [[0, 0, 1], [1, 2, -1]]


class TestFrustum:
    def test_pixels_from_edge_to_edge_or_at_centres(self) -> None:
        ends = feature_pixels((128, 352), (8, 22))
        assert ends[0, 0].tolist() == [0, 0]
        assert ends[-1, -1].tolist() == [351, 127]
        assert feature_pixels((128, 352), (8, 22), "centres")[1, 2].tolist() == [39.5, 23.5]

    def test_a_box_ahead_left_lands_in_its_cell_from_two_cameras(self) -> None:
        """The pixel of ego point (12, 2, 0.5), lifted at its depth, is in cell (124, 104) at 0.5 m."""
        grid, point = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20)), np.array([12.0, 2.0, 0.5])
        yaw = math.radians(55)
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
        for rotation, position in ((np.array(FRONT), [0.6, 0, 1.6]), (turn @ FRONT, [0.4, 0.4, 1.6])):
            uv, depth_m = project_points(K, transform_points(invert_rigid(pose(rotation, position)), point))
            A, b = image_augmentation_matrix((0.22, 0.24), (5, 7, 357, 135), flip=True, rotate_deg=4.0)
            post_rot, post_tran = np.eye(3), np.append(b, 0.0)
            post_rot[:2, :2] = A
            pixels = torch.tensor(A @ uv + b).float().view(1, 1, 2)
            rig = (
                torch.tensor(np.asarray(m)).float()[None, None] for m in (rotation, K, post_rot, post_tran)
            )
            rays = pixel_rays(pixels, *rig)
            trans, depths = torch.tensor(position)[None, None], torch.tensor([float(depth_m)])
            xyz_ego = frustum_points(rays, trans, depths).flatten()
            np.testing.assert_allclose(xyz_ego.numpy(), point, atol=2e-4)
            assert int(frustum_cells(rays, trans, depths, grid)) == 124 * 200 + 104

    def test_geometry_stays_float32_under_autocast(self) -> None:
        pixels = feature_pixels((128, 352), (8, 22))
        rig = [
            torch.tensor(m, dtype=torch.float32)[None, None]
            for m in (FRONT, K.tolist(), np.eye(3).tolist(), [0.0] * 3)
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = pixel_rays(pixels, *rig)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, pixel_rays(pixels, *rig))

    def test_truncation_widens_the_lower_edge_and_floor_does_not(self) -> None:
        grid = BevGrid((0, 4, 1), (0, 4, 1), (-10, 10, 20))
        points = torch.tensor([[[-0.5, 0.5, 0.0], [0.5, 0.5, -29.0], [-1.0, 0.5, 0.0], [3.99, 3.99, 9.9]]])
        assert cell_ids(points, grid).tolist() == [[0, 0, -1, 15]]
        assert cell_ids(points, grid, "floor").tolist() == [[-1, -1, -1, 15]]

    @given(st.integers(0, 2**32 - 1))
    @settings(deadline=None, max_examples=30)
    def test_rays_equal_the_reference_order_of_steps(self, seed: int) -> None:
        """Undo the augmentation, back-project, rotate, shift: point by point in float64."""
        generator = np.random.default_rng(seed)
        rotation = rotation_from_quaternion(generator.standard_normal(4))
        A, b = image_augmentation_matrix(
            tuple(generator.uniform(0.2, 1.2, 2)), (3, 5, 99, 69), True, generator.uniform(-20, 20)
        )
        trans, depths = generator.uniform(-2, 2, 3), depth_bins(4, 12, 1)
        pixels = feature_pixels((64, 96), (4, 6))
        post_rot = np.eye(3)
        post_rot[:2, :2] = A
        rig = [
            torch.tensor(np.asarray(m)).float()[None, None] for m in (rotation, K, post_rot, np.append(b, 0))
        ]
        points = frustum_points(
            pixel_rays(pixels, *rig), torch.tensor(trans).float()[None, None], torch.tensor(depths)
        )
        uv = (pixels.numpy().astype(np.float64) - b) @ np.linalg.inv(A).T
        for index, depth_m in enumerate(depths):
            xyz = unproject_points(K, uv, np.full(uv.shape[:2], depth_m)) @ rotation.T + trans
            np.testing.assert_allclose(points[0, 0, index].numpy(), xyz, atol=1e-4)
