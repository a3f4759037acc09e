"""The splat of `lift` as two Triton kernels, for GPUs. Sums run in a fixed order: results repeat bit by bit.

Forward: one program a filled cell adds up its points. Backward: one program a pixel gathers the gradients of
the cells its depths fall in; no sorting and no atomic additions. Users: lift.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from omma.core.lift import SplatPlan

POINTS_PER_STEP = 8
DEPTHS_PER_STEP = 16


@triton.jit  # type: ignore[untyped-decorator]
def sum_cells(
    depth: tl.tensor,
    table: tl.tensor,
    points_by_cell: tl.tensor,
    cell_offsets: tl.tensor,
    filled_cells: tl.tensor,
    sums: tl.tensor,
    D: tl.tensor,
    C: tl.tensor,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """sums[cell] = sum of depth[point] * table[pixel of point] over the cell's points."""
    cell = tl.load(filled_cells + tl.program_id(0))
    start = tl.load(cell_offsets + cell)
    stop = tl.load(cell_offsets + cell + 1)
    lane = tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], dtype=sums.dtype.element_ty)
    for first in range(start, stop, BLOCK_P):
        place = first + tl.arange(0, BLOCK_P)
        point = tl.load(points_by_cell + place, mask=place < stop, other=0)
        weight = tl.load(depth + point, mask=place < stop, other=0.0)
        here = (place < stop)[:, None] & (lane < C)[None, :]
        rows = tl.load(table + (point // D)[:, None] * C + lane[None, :], mask=here, other=0.0)
        total += tl.sum(weight[:, None] * rows, axis=0)
    tl.store(sums + cell * C + lane, total, mask=lane < C)


@triton.jit  # type: ignore[untyped-decorator]
def gather_gradients(
    depth: tl.tensor,
    table: tl.tensor,
    cell_of_point: tl.tensor,
    grad: tl.tensor,
    grad_depth: tl.tensor,
    grad_table: tl.tensor,
    D: tl.tensor,
    C: tl.tensor,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Gradients of one pixel's depths and features from those of the cells its points feed."""
    pixel = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK_C)
    features = tl.load(table + pixel * C + lane, mask=lane < C, other=0.0)
    total = tl.zeros([BLOCK_C], dtype=grad_table.dtype.element_ty)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        cell = tl.load(cell_of_point + pixel * D + d, mask=d < D, other=-1)
        weight = tl.load(depth + pixel * D + d, mask=cell >= 0, other=0.0)
        here = (cell >= 0)[:, None] & (lane < C)[None, :]
        rows = tl.load(grad + cell[:, None] * C + lane[None, :], mask=here, other=0.0)
        total += tl.sum(weight[:, None] * rows, axis=0)
        tl.store(grad_depth + pixel * D + d, tl.sum(rows * features[None, :], axis=1), mask=d < D)
    tl.store(grad_table + pixel * C + lane, total, mask=lane < C)


class TritonSplat(torch.autograd.Function):
    """`lift.DualBag` by Triton kernels; saves the depths and the feature table, nothing lifted."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, table: Tensor, plan: SplatPlan) -> Tensor:
        """Cell sums (B X Y Z, C) of depths (P, D) and features (P, C)."""
        depth, table = depth.contiguous(), table.contiguous()
        ctx.save_for_backward(depth, table)
        ctx.plan = plan
        (_, D), C = depth.shape, table.shape[1]
        sums = table.new_zeros(len(plan.cell_offsets) - 1, C)
        with torch.cuda.device_of(depth):
            sum_cells[(len(plan.filled_cells),)](
                depth,
                table,
                plan.points_by_cell,
                plan.cell_offsets,
                plan.filled_cells,
                sums,
                D,
                C,
                BLOCK_P=POINTS_PER_STEP,
                BLOCK_C=triton.next_power_of_2(C),
            )
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of depths and features from those of the cells (B X Y Z, C)."""
        depth, table = ctx.saved_tensors
        (P, D), C = depth.shape, table.shape[1]
        grad_depth, grad_table = torch.empty_like(depth), torch.empty_like(table)
        with torch.cuda.device_of(depth):
            gather_gradients[(P,)](
                depth,
                table,
                ctx.plan.cell_of_point,
                grad.contiguous(),
                grad_depth,
                grad_table,
                D,
                C,
                BLOCK_D=DEPTHS_PER_STEP,
                BLOCK_C=triton.next_power_of_2(C),
            )
        return grad_depth, grad_table, None
