"""What holds for any depths, features and cells."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omma.core.lift import lift_splat, plan_splat


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]:
    """Depths (B, N, D, h, w), contexts, cell ids with dropped points, grid size; all in float64."""
    B, N, D, h, w, C = (draw(st.integers(1, limit)) for limit in (2, 3, 5, 3, 3, 4))
    grid = tuple(draw(st.integers(1, 4)) for _ in range(3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    cells = grid[0] * grid[1] * grid[2]
    ids = torch.randint(-1, cells, (B, N, D, h, w), generator=generator)
    first = cells * torch.arange(B).view(B, 1, 1, 1, 1)
    depth = torch.rand(B, N, D, h, w, generator=generator, dtype=torch.float64)
    context = torch.randn(B, N, C, h, w, generator=generator, dtype=torch.float64)
    return depth, context, torch.where(ids < 0, -1, ids + first), grid


@given(cases())
@settings(deadline=None, max_examples=50)
def test_sum_is_conserved(case: tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]) -> None:
    """Every kept point's feature arrives exactly once, in its own batch element."""
    depth, context, ids, grid = case
    C = context.shape[2]
    out = lift_splat(depth, context, plan_splat(ids, grid))
    arrived = out.unflatten(1, (grid[2], C)).sum((1, 3, 4))
    sent = torch.einsum("bnduv,bncuv->bc", depth * (ids >= 0), context)
    torch.testing.assert_close(arrived, sent)


@given(cases(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_order_of_cameras_and_depths_is_irrelevant(
    case: tuple[Tensor, Tensor, Tensor, tuple[int, int, int]], random: object
) -> None:
    depth, context, ids, grid = case
    cameras, depths = list(range(depth.shape[1])), list(range(depth.shape[2]))
    random.shuffle(cameras)  # type: ignore[attr-defined]
    random.shuffle(depths)  # type: ignore[attr-defined]
    out = lift_splat(depth, context, plan_splat(ids, grid))
    shuffled = lift_splat(
        depth[:, cameras][:, :, depths], context[:, cameras], plan_splat(ids[:, cameras][:, :, depths], grid)
    )
    torch.testing.assert_close(shuffled, out)


@given(cases(), st.floats(-3, 3))
@settings(deadline=None, max_examples=50)
def test_linear_in_both_inputs(
    case: tuple[Tensor, Tensor, Tensor, tuple[int, int, int]], factor: float
) -> None:
    depth, context, ids, grid = case
    plan = plan_splat(ids, grid)
    out = lift_splat(depth, context, plan)
    torch.testing.assert_close(lift_splat(factor * depth, context, plan), factor * out)
    torch.testing.assert_close(lift_splat(depth, factor * context, plan), factor * out)
