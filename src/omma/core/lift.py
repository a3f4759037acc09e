"""Lift and splat: each pixel's features, weighted by its depth distribution, summed into the cells they hit.

LSS (Philion and Fidler, arXiv 2008.05711) defines the sum; the lifted features (pixels x depths x channels)
are never held here. Forward is one weighted embedding bag over the cells, backward one over the pixels.
Users: lss, diffbev.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SUM = 0  # mode number of ATen's embedding bag


@dataclass(frozen=True)
class SplatPlan:
    """Which depth of which pixel feeds which cell; follows from the calibration alone.

    A pixel p = (b, n, v, u), a kept point is a pixel and a depth inside the grid, K of them.

    Args:
        depth_shape: (B, N, D, h, w).
        grid_size: cells (X, Y, Z).
        points: kept points in pixel order, as p * D + d, int64 (K,).
        cells: their cells, ((b X + x) Y + y) Z + z, int64 (K,).
        pixel_offsets: first kept point of each pixel, and K, int64 (P + 1,).
        points_by_cell: kept points in cell order, int64 (K,).
        cell_offsets: first point of each cell in that order, and K, int64 (B X Y Z + 1,).
    """

    depth_shape: tuple[int, int, int, int, int]
    grid_size: tuple[int, int, int]
    points: Tensor
    cells: Tensor
    pixel_offsets: Tensor
    points_by_cell: Tensor
    cell_offsets: Tensor

    @cached_property
    def pixels(self) -> Tensor:
        """Pixel of each kept point in pixel order, int64 (K,)."""
        return self.points // self.depth_shape[2]

    @cached_property
    def pixels_by_cell(self) -> Tensor:
        """Pixel of each kept point in cell order, int64 (K,)."""
        return self.points_by_cell // self.depth_shape[2]

    @cached_property
    def filled_cells(self) -> Tensor:
        """Cells that any point feeds, int64."""
        return self.cell_offsets.diff().nonzero()[:, 0]

    @cached_property
    def cell_of_point(self) -> Tensor:
        """Cell of every point, -1 = dropped, int64 (P * D,)."""
        num_points = (len(self.pixel_offsets) - 1) * self.depth_shape[2]
        return self.cells.new_full((num_points,), -1).index_copy_(0, self.points, self.cells)


def plan_splat(cell_ids: Tensor, grid_size: tuple[int, int, int]) -> SplatPlan:
    """Sort the points of `cell_ids` by pixel and by cell.

    Args:
        cell_ids: cell of every point, (B, N, D, h, w), -1 = dropped (see `geometry.frustum_cells`).
        grid_size: cells (X, Y, Z).
    """
    B, N, D, h, w = cell_ids.shape
    num_cells = B * grid_size[0] * grid_size[1] * grid_size[2]
    by_pixel = cell_ids.permute(0, 1, 3, 4, 2).reshape(-1, D).contiguous()
    kept = by_pixel >= 0
    points = kept.view(-1).nonzero()[:, 0]
    cells = by_pixel.view(-1)[points]
    order = torch.sort(cells, stable=True).indices
    return SplatPlan(
        depth_shape=(B, N, D, h, w),
        grid_size=grid_size,
        points=points,
        cells=cells.long(),
        pixel_offsets=_offsets(kept.sum(1)),
        points_by_cell=points[order],
        cell_offsets=_offsets(torch.bincount(cells, minlength=num_cells)),
    )


def _offsets(counts: Tensor) -> Tensor:
    return F.pad(counts.cumsum(0), (1, 0))


class PlanCache:
    """Plans of the calibrations seen last: a fixed rig without image augmentation needs one for all steps.

    Args:
        max_plans: plans kept; the one used longest ago goes first.
    """

    def __init__(self, max_plans: int = 4) -> None:
        self._max_plans = max_plans
        self._plans: OrderedDict[tuple[Any, ...], SplatPlan] = OrderedDict()

    def get(self, calibration: Sequence[Tensor], build: Callable[[], SplatPlan]) -> SplatPlan:
        """The plan of these calibration values, from `build` when they are new.

        Args:
            calibration: the tensors a plan follows from, of one device and type; their values are the key.
            build: makes the plan.
        """
        values = torch.cat([t.detach().reshape(-1) for t in calibration])
        key = (values.device, *(tuple(t.shape) for t in calibration), values.cpu().numpy().tobytes())
        plan = self._plans.pop(key, None) or build()
        self._plans[key] = plan
        if len(self._plans) > self._max_plans:
            self._plans.popitem(last=False)
        return plan


class DualBag(torch.autograd.Function):
    """The splat as two weighted embedding bags; saves the depths and the feature table, nothing lifted."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, table: Tensor, plan: SplatPlan) -> Tensor:
        """Cell sums (B X Y Z, C) of depths (P, D) and features (P, C)."""
        ctx.save_for_backward(depth, table)
        ctx.plan = plan
        return F.embedding_bag(
            plan.pixels_by_cell,
            table.detach(),
            plan.cell_offsets,
            mode="sum",
            per_sample_weights=depth.detach().reshape(-1)[plan.points_by_cell],
            include_last_offset=True,
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of depths and features from those of the cells (B X Y Z, C)."""
        depth, table = ctx.saved_tensors
        plan, grad = ctx.plan, grad.contiguous()
        grad_depth = grad_table = None
        if ctx.needs_input_grad[0]:
            products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                table, grad, plan.cells, plan.pixel_offsets, plan.pixels, _SUM
            )
            grad_depth = torch.zeros_like(depth).view(-1).index_copy_(0, plan.points, products).view_as(depth)
        if ctx.needs_input_grad[1]:
            grad_table = F.embedding_bag(
                plan.cells,
                grad,
                plan.pixel_offsets,
                mode="sum",
                per_sample_weights=depth.reshape(-1)[plan.points],
                include_last_offset=True,
            )
        return grad_depth, grad_table, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def lift_splat(depth: Tensor, context: Tensor, plan: SplatPlan) -> Tensor:
    """Sum depth[d] * context over the points of every cell; float32 (or float64) whatever autocast says.

    Args:
        depth: weight of every depth bin, (B, N, D, h, w).
        context: features of every pixel, (B, N, C, h, w).
        plan: of `plan_splat`, on the same device.

    Returns:
        (B, Z C, X, Y) in channels-last memory, the channels of height bin 0 first.
    """
    B, N, D, h, w = plan.depth_shape
    X, Y, _ = plan.grid_size
    with torch.autocast(depth.device.type, enabled=False):
        weights = _by_pixel(depth).view(B * N * h * w, D)
        table = _by_pixel(context).view(B * N * h * w, -1)
        sums = _splat_function(depth.device.type).apply(weights, table, plan)
    return sums.view(B, X, Y, -1).permute(0, 3, 1, 2)


def lift_splat_export(
    depth: Tensor, context: Tensor, cell_ids: Tensor, grid_size: tuple[int, int, int]
) -> Tensor:
    """`lift_splat` with static shapes and standard operators, for export; holds the lifted features.

    Args:
        depth: (B, N, D, h, w).
        context: (B, N, C, h, w).
        cell_ids: (B, N, D, h, w), -1 = dropped: those points go to one more cell that is cut off.
        grid_size: cells (X, Y, Z).

    Returns:
        (B, Z C, X, Y), float32.
    """
    B, C = context.shape[0], context.shape[2]
    X, Y, Z = grid_size
    num_cells = B * X * Y * Z
    rows = torch.where(cell_ids < 0, num_cells, cell_ids).long().reshape(-1)
    lifted = _full_precision(depth)[..., None] * _full_precision(context).permute(0, 1, 3, 4, 2)[:, :, None]
    sums = lifted.new_zeros(num_cells + 1, C).index_add(0, rows, lifted.reshape(-1, C))
    return sums[:num_cells].view(B, X, Y, Z * C).permute(0, 3, 1, 2)


def _full_precision(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _by_pixel(maps: Tensor) -> Tensor:
    """(B, N, channels, h, w) in full precision as contiguous (B, N, h, w, channels)."""
    return _full_precision(maps).permute(0, 1, 3, 4, 2).contiguous()


@lru_cache
def _splat_function(device_type: str) -> Any:
    """The autograd function for a device: Triton kernels on a GPU where Triton is installed."""
    if device_type == "cuda" and importlib.util.find_spec("triton"):
        from omma.core.lift_triton import TritonSplat

        return TritonSplat
    return DualBag
