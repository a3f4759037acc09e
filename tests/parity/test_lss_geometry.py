"""Frustum, cells and splat against the reference's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fill import load_arrays
from torch import Tensor

from omma.core.geometry import (
    cell_ids,
    feature_pixels,
    frustum,
    frustum_cells,
    frustum_points,
    pixel_rays,
)
from omma.core.grid import BevGrid, depth_bins
from omma.core.lift import lift_splat, lift_splat_export, plan_splat
from omma.core.poses import in_image, invert_rigid, project_points, transform_points, unproject_points

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "lss"
GRID = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))


def test_gen_dx_bx() -> None:
    """Sizes, first centres and counts of eleven grids; two of them lose a cell where counts are truncated."""
    case = load_arrays(CASES / "gen_dx_bx.npz")
    for bounds, dx, bx, nx in zip(case["bounds"], case["dx"], case["bx"], case["nx_if_rounded"], strict=True):
        grid = BevGrid(*(tuple(axis) for axis in bounds.tolist()))
        np.testing.assert_array_equal(np.float32(grid.dx), dx)
        np.testing.assert_array_equal(np.float32(grid.bx), bx)
        assert grid.nx == tuple(nx)
    assert [len(depth_bins(*bounds)) for bounds in case["dbounds"].tolist()] == case["D"].tolist()


@pytest.mark.parametrize("rig", ["level", "aug"])
def test_geometry(rig: str) -> None:
    case = load_arrays(CASES / "geometry.npz")
    image_size = tuple(case[f"{rig}_final_dim"].tolist())
    pixels = feature_pixels(image_size, (image_size[0] // 16, image_size[1] // 16))
    np.testing.assert_array_equal(pixels.numpy(), case[f"{rig}_frustum_xy"])
    depths = torch.from_numpy(depth_bins(4, 45, 1))
    np.testing.assert_array_equal(depths.numpy(), case[f"{rig}_frustum_d"])
    assert frustum(pixels, depths).shape == (41, *pixels.shape[:2], 3)

    names = ("rots", "intrins", "post_rots", "post_trans")
    rays = pixel_rays(pixels, *(torch.from_numpy(case[f"{rig}_{name}"]) for name in names))
    trans = torch.from_numpy(case[f"{rig}_trans"])
    stride = int(case[f"{rig}_depth_stride"])
    points = frustum_points(rays, trans, depths)
    np.testing.assert_allclose(points[:, :, ::stride].numpy(), case[f"{rig}_geom"], rtol=0, atol=2e-5)

    cells = frustum_cells(rays, trans, depths, GRID)
    assert torch.equal(cells, cell_ids(points, GRID))
    kept = case[f"{rig}_kept"]
    assert (cells.numpy() >= 0).tolist() == kept.tolist()
    floor = frustum_cells(rays, trans, depths, GRID, "floor").numpy() >= 0
    np.testing.assert_array_equal(floor, case[f"{rig}_kept_if_floor"])
    index = case[f"{rig}_voxel_index"].astype(np.int64)
    batch = np.arange(len(index)).reshape(-1, 1, 1, 1, 1)
    expected = (batch * 200 + index[..., 0]) * 200 + index[..., 1]
    shown = kept[:, :, ::stride]
    np.testing.assert_array_equal(cells.numpy()[:, :, ::stride][shown], expected[shown])


def _one_hot_lift(x: Tensor) -> tuple[Tensor, Tensor]:
    """Depths and contexts whose product is any given lifted tensor: one camera for every depth of x."""
    B, N, D, h, w, C = x.shape
    depth = torch.eye(D).view(1, 1, D, D, 1, 1).expand(B, N, D, D, h, w)
    return depth.reshape(B, N * D, D, h, w), x.permute(0, 1, 2, 5, 3, 4).reshape(B, N * D, C, h, w)


@pytest.mark.parametrize("form", ["dual_bag", "export"])
def test_voxel_pooling(form: str) -> None:
    """Sums and gradients with points on cell edges, two height bins, for any lifted features."""
    case = load_arrays(CASES / "voxel_pooling.npz")
    grid = BevGrid((-8, 8, 0.5), (-6, 6, 0.5), (-2, 2, 2))
    assert grid.nx == tuple(case["nx"])
    ids = cell_ids(torch.from_numpy(case["geom"]), grid)
    x = torch.from_numpy(case["x"].astype(np.float32)).requires_grad_()
    depth, context = _one_hot_lift(x)
    ids = ids.repeat_interleave(ids.shape[2], dim=1)
    if form == "dual_bag":
        out = lift_splat(depth, context, plan_splat(ids, grid.nx))
    else:
        out = lift_splat_export(depth, context, ids, grid.nx)
    np.testing.assert_allclose(out.detach().numpy(), case["out"], rtol=0, atol=2e-5)
    out.backward(torch.from_numpy(case["grad_out"].astype(np.float32)))
    np.testing.assert_allclose(x.grad.numpy(), case["grad_x"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(x.grad.numpy(), case["grad_x_autograd"], rtol=0, atol=2e-5)


def test_voxel_pooling_edge_points() -> None:
    case = load_arrays(CASES / "voxel_pooling.npz")
    grid = BevGrid((-8, 8, 0.5), (-6, 6, 0.5), (-2, 2, 2))
    ids = cell_ids(torch.from_numpy(case["edge_points"])[None], grid)[0].numpy()
    index, size = case["edge_index"], np.array(grid.nx)
    inside = ((index >= 0) & (index < size)).all(1)
    expected = (index[:, 0] * size[1] + index[:, 1]) * size[2] + index[:, 2]
    np.testing.assert_array_equal(ids, np.where(inside, expected, -1))


@pytest.mark.parametrize("camera", range(6))
def test_projection(camera: int) -> None:
    """Pixels to 1e-3 where the point is not next to the camera plane, masks exactly, and back to ego."""
    case = load_arrays(CASES / "projection.npz")
    K, ego_T_cam = case["K"].astype(np.float64), case["cam2ego"][camera].astype(np.float64)
    xyz_cam = transform_points(invert_rigid(ego_T_cam), case["points_ego"].T.astype(np.float64))
    uv, depth_m = project_points(K, xyz_cam)
    expected = case["uvd"][camera].T
    np.testing.assert_allclose(depth_m, expected[:, 2], atol=1e-5)
    inside = in_image(uv, depth_m, (900, 1600))
    np.testing.assert_array_equal(inside, case["in_image"][camera])
    np.testing.assert_allclose(uv[inside], expected[inside, :2], atol=1e-3)
    back = transform_points(ego_T_cam, unproject_points(K, expected[:, :2], expected[:, 2]))
    np.testing.assert_allclose(back, case["cam_to_ego_of_uvd"][camera].T, atol=1e-4)
