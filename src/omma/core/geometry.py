"""Where the pixels of a camera feature map lie in the ego frame (LSS, arXiv 2008.05711, section 3.1).

Frames are named to_T_from. Ego: x forward, y left, z up. Camera: x right, y down, z forward. Metres, pixels.
Shapes: B batch, N cameras, D depths, (h, w) feature map. Everything is float32 whatever autocast says.
Users: lss, diffbev.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from omma.core.grid import BevGrid

PixelGrid = Literal["ends", "centres"]
Rounding = Literal["trunc", "floor"]


def inverse_3x3(matrix: Tensor) -> Tensor:
    """Inverse of (..., 3, 3) matrices by cofactors: exports to ONNX and needs no solver on the device."""
    a, b, c = matrix.unbind(-2)
    cofactors = torch.stack(
        [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1
    )
    determinant = (a * torch.linalg.cross(b, c)).sum(-1)
    return cofactors / determinant[..., None, None]


def feature_pixels(
    image_size: tuple[int, int], feature_size: tuple[int, int], pixels: PixelGrid = "ends"
) -> Tensor:
    """The network-input pixel (u, v) that each feature-map position stands for.

    Args:
        image_size: (height, width) of the network input.
        feature_size: (h, w) of the feature map.
        pixels: "ends" spreads the positions from the first to the last pixel (the reference's rule, up to
            half a stride off at the borders); "centres" takes the middle of each position's block of pixels.

    Returns:
        float32 (h, w, 2).
    """
    axes = [_positions(size, cells, pixels) for size, cells in zip(image_size, feature_size, strict=True)]
    v, u = torch.meshgrid(axes[0], axes[1], indexing="ij")
    return torch.stack([u, v], dim=-1)


def _positions(size: int, cells: int, pixels: PixelGrid) -> Tensor:
    if pixels == "ends":
        return torch.linspace(0, size - 1, cells)
    stride = size / cells
    return (torch.arange(cells) + 0.5) * stride - 0.5


def frustum(pixels_uv: Tensor, depths_m: Tensor) -> Tensor:
    """Pixel and depth (u, v, d) of each frustum point, (D, h, w, 3), from pixels (h, w, 2), depths (D,)."""
    h, w, _ = pixels_uv.shape
    num_depths = depths_m.numel()
    uv = pixels_uv[None].expand(num_depths, h, w, 2)
    return torch.cat([uv, depths_m[:, None, None, None].expand(num_depths, h, w, 1)], dim=-1)


def pixel_rays(
    pixels_uv: Tensor, rots: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
) -> Tensor:
    """Ego-frame step per metre of depth for every feature position: point = ray * depth + camera position.

    The image augmentation leaves depth alone, so one 3 x 3 product a pixel replaces one a depth bin:
    ray = R K^-1 H (u, v, 1) with H the inverse of (uv' = A uv + b).

    Args:
        pixels_uv: pixels of the augmented image, (h, w, 2).
        rots: ego_R_cam, (B, N, 3, 3).
        intrins: pinhole matrices of the stored images, (B, N, 3, 3).
        post_rots: image augmentation A in the upper left of the unit matrix, (B, N, 3, 3).
        post_trans: image augmentation (b, 0), (B, N, 3).

    Returns:
        float32 (B, N, h, w, 3).
    """
    with torch.autocast(rots.device.type, enabled=False):
        undo = inverse_3x3(post_rots.float())
        shift = -(undo @ post_trans.float()[..., None])
        last = torch.cat([torch.zeros_like(shift[..., :2, :]), torch.ones_like(shift[..., :1, :])], dim=-2)
        undo_affine = torch.cat([undo[..., :2], shift + last], dim=-1)
        ego_from_pixel = rots.float() @ inverse_3x3(intrins.float()) @ undo_affine
        uv1 = torch.cat([pixels_uv, torch.ones_like(pixels_uv[..., :1])], dim=-1).float()
        return torch.einsum("bnij,hwj->bnhwi", ego_from_pixel, uv1)


def frustum_points(rays: Tensor, trans: Tensor, depths_m: Tensor) -> Tensor:
    """Ego-frame points of every pixel and depth: ray * depth + camera position.

    Args:
        rays: of `pixel_rays`, (B, N, h, w, 3).
        trans: camera positions in the ego frame, (B, N, 3).
        depths_m: (D,).

    Returns:
        float32 (B, N, D, h, w, 3).
    """
    return torch.stack(list(_point_axes(rays, trans, depths_m)), dim=-1).permute(0, 1, 4, 2, 3, 5)


def frustum_cells(
    rays: Tensor,
    trans: Tensor,
    depths_m: Tensor,
    grid: BevGrid,
    rounding: Rounding = "trunc",
) -> Tensor:
    """The cell that every pixel and depth falls in: `cell_ids` of `frustum_points`, not holding the points.

    Args:
        rays: of `pixel_rays`, (B, N, h, w, 3).
        trans: camera positions in the ego frame, (B, N, 3).
        depths_m: (D,).
        grid: cells along the ego axes.
        rounding: as for `cell_ids`.

    Returns:
        int32 (B, N, D, h, w), -1 outside the grid, stored pixel by pixel: as the splat reads it.
    """
    cells = _cells(_point_axes(rays, trans, depths_m), grid, rounding)
    return cells.permute(0, 1, 4, 2, 3)


def cell_ids(points: Tensor, grid: BevGrid, rounding: Rounding = "trunc") -> Tensor:
    """The grid cell that every point falls in, -1 outside the grid.

    Args:
        points: (B, ..., 3), axes in the grid's order x, y, z.
        grid: the cells.
        rounding: "trunc" rounds toward zero as the reference does, so a strip of one cell below each lower
            edge falls into cell 0; "floor" keeps to the grid.

    Returns:
        int32 (B, ...): ((b X + x) Y + y) Z + z.
    """
    return _cells(points.unbind(-1), grid, rounding)


def _point_axes(rays: Tensor, trans: Tensor, depths_m: Tensor) -> Iterator[Tensor]:
    for axis in range(3):
        yield rays[..., axis, None] * depths_m + trans.float()[:, :, None, None, None, axis]


def _cells(axes: Iterable[Tensor], grid: BevGrid, rounding: Rounding) -> Tensor:
    (x, x_inside), (y, y_inside), (z, z_inside) = (
        _axis_index(coordinate, grid.bx[axis], grid.dx[axis], grid.nx[axis], rounding)
        for axis, coordinate in enumerate(axes)
    )
    X, Y, Z = grid.nx
    batch = torch.arange(x.shape[0], dtype=torch.int32, device=x.device).view(-1, *[1] * (x.dim() - 1))
    cell = ((batch * X + x) * Y + y) * Z + z
    return torch.where(x_inside & y_inside & z_inside, cell, -1)


def _axis_index(
    coordinate: Tensor, first_centre: float, step: float, cells: int, rounding: Rounding
) -> tuple[Tensor, Tensor]:
    lower = float(np.float32(first_centre) - np.float32(step) / 2)  # in float32, as the reference has it
    scaled = (coordinate - lower) / step
    index = (scaled.trunc() if rounding == "trunc" else scaled.floor()).int()
    return index, (index >= 0) & (index < cells)
