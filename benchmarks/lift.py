"""Lift and splat: ours against forms that hold the lifted features. Times, and memory above the inputs.

    python benchmarks/lift.py [--rig level|tilted] [--batch 4] [--threads 2] [--repeats 9] [--json FILE]

Six cameras, 41 depths, 8 x 22 features of 64 channels, 200 x 200 cells. Every form starts from what it needs
each step: points for the plain ones, calibration for "rebuilt", nothing for "cached". The last column is the
largest difference from a float64 sum. "NCHW" and "channels-last" name the incoming gradient's layout (the
network's is channels-last). CPU memory is summed from the allocations that torch.profiler records.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import Steps, Timing, header, interleaved, peak_mib, print_header, print_table, write_json
from torch import Tensor

from omma.core.geometry import cell_ids, feature_pixels, frustum_cells, frustum_points, pixel_rays
from omma.core.grid import BevGrid, depth_bins
from omma.core.lift import lift_splat, lift_splat_export, plan_splat

GRID = BevGrid((-50, 50, 0.5), (-50, 50, 0.5), (-10, 10, 20))
IMAGE_SIZE, FEATURE_SIZE, CHANNELS = (128, 352), (8, 22), 64
CAMERAS = {
    55: (0.4, 0.4),
    0: (0.6, 0.0),
    -55: (0.4, -0.4),
    110: (0.0, 0.4),
    180: (-1.0, 0.0),
    -110: (0.0, -0.4),
}
TARGET_SPEED, TARGET_MEMORY = 10.0, 0.1


def rig(batch: int, tilted: bool) -> tuple[Tensor, list[Tensor]]:
    """trans (B, 6, 3) and [rots, intrins, post_rots, post_trans] of SimBEV's cameras, 1600x900 to 352x128."""
    generator = torch.Generator().manual_seed(0)
    rots, trans = [], []
    for yaw_deg, (x, y) in CAMERAS.items():
        cos, sin = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
        rots.append([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]])
        trans.append([x, y, 1.6])
    K = torch.tensor([[953.4, 0.0, 800.0], [0.0, 953.4, 450.0], [0.0, 0.0, 1.0]])
    post_rots, post_trans = torch.diag(torch.tensor([0.22, 0.1825, 1.0])), torch.tensor([0.0, -36.0, 0.0])
    shape = (batch, len(rots))
    post_rots, post_trans = post_rots.repeat(*shape, 1, 1), post_trans.repeat(*shape, 1)
    if tilted:
        angle = torch.rand(shape, generator=generator) * 0.2 - 0.1
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).view(*shape, 2, 2)
        post_rots[..., :2, :2] = turn @ post_rots[..., :2, :2]
        post_trans[..., :2] += torch.rand((*shape, 2), generator=generator) * 20
    calibration = [torch.tensor(rots).expand(*shape, 3, 3), K.expand(*shape, 3, 3), post_rots, post_trans]
    return torch.tensor(trans).expand(*shape, 3), calibration


def plain_lift(depth: Tensor, context: Tensor) -> Tensor:
    """All lifted features, (B, N, D, h, w, C)."""
    return depth[..., None] * context.permute(0, 1, 3, 4, 2)[:, :, None]


class RunningSumDifference(torch.autograd.Function):
    """Sum of each run of equal cells, from one running sum over all sorted points."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, cells: Tensor) -> Tensor:
        last = last_of_run(cells)
        ctx.save_for_backward(last)
        return run_sums(rows, last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (last,) = ctx.saved_tensors
        run = torch.cumsum(last, 0) - last.long()  # the run each point belongs to
        return grad[run], None


def last_of_run(cells: Tensor) -> Tensor:
    return torch.cat([cells[1:] != cells[:-1], cells.new_ones(1, dtype=torch.bool)])


def run_sums(rows: Tensor, last: Tensor) -> Tensor:
    totals = rows.cumsum(0)[last]
    return torch.cat([totals[:1], totals[1:] - totals[:-1]])


def running_sum_splat(depth: Tensor, context: Tensor, points: Tensor, own_backward: bool) -> Tensor:
    """Hold, sort, add up along the sorted list, take differences, write into the grid."""
    rows = plain_lift(depth, context).reshape(-1, context.shape[2])
    cells = cell_ids(points, GRID).reshape(-1).long()
    kept = cells >= 0
    rows, cells = rows[kept], cells[kept]
    order = cells.argsort()
    rows, cells = rows[order], cells[order]
    last = last_of_run(cells)
    sums = RunningSumDifference.apply(rows, cells) if own_backward else run_sums(rows, last)
    X, Y, _ = GRID.nx
    grid = sums.new_zeros(len(depth) * X * Y, sums.shape[1])
    grid = grid.index_copy(0, cells[last], sums)
    return grid.view(len(depth), X, Y, -1).permute(0, 3, 1, 2).contiguous()


def index_add_splat(depth: Tensor, context: Tensor, points: Tensor) -> Tensor:
    return lift_splat_export(depth, context, cell_ids(points, GRID), GRID.nx)


class Bench:
    """Inputs, and the forms under test as functions of nothing."""

    def __init__(self, batch: int, tilted: bool, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.trans, calibration = rig(batch, tilted)
        self.trans, self.calibration = self.trans.to(device), [m.to(device) for m in calibration]
        self.pixels = feature_pixels(IMAGE_SIZE, FEATURE_SIZE).to(device)
        self.depths = torch.from_numpy(depth_bins(4, 45, 1)).to(device)
        shape = (batch, len(CAMERAS), *FEATURE_SIZE)
        depth = torch.randn(*shape, len(self.depths), generator=generator).softmax(-1)
        context = torch.randn(*shape, CHANNELS, generator=generator)
        self.depth, self.context = (
            t.permute(0, 1, 4, 2, 3).to(device).requires_grad_() for t in (depth, context)
        )
        self.grad = torch.randn(batch, CHANNELS, *GRID.nx[:2], generator=generator).to(device)
        self.grad_last = self.grad.contiguous(memory_format=torch.channels_last)
        self.points = frustum_points(self.rays(), self.trans, self.depths).contiguous()
        self.plan = plan_splat(self.cells(), GRID.nx)

    def rays(self) -> Tensor:
        return pixel_rays(self.pixels, *self.calibration)

    def cells(self) -> Tensor:
        return frustum_cells(self.rays(), self.trans, self.depths, GRID)

    def forms(self) -> dict[str, tuple[Callable[[], Tensor], Tensor]]:
        """Name -> (forward, incoming gradient)."""
        d, c = self.depth, self.context
        cached = lambda: lift_splat(d, c, self.plan)  # noqa: E731
        rebuilt = lambda: lift_splat(d, c, plan_splat(self.cells(), GRID.nx))  # noqa: E731
        return {
            "held, running sum, own backward": (
                lambda: running_sum_splat(d, c, self.points, True),
                self.grad,
            ),
            "held, running sum, autograd": (lambda: running_sum_splat(d, c, self.points, False), self.grad),
            "held, index_add": (lambda: index_add_splat(d, c, self.points), self.grad),
            "ours, plan cached, NCHW": (cached, self.grad),
            "ours, plan rebuilt, NCHW": (rebuilt, self.grad),
            "ours, plan cached, channels-last": (cached, self.grad_last),
            "ours, plan rebuilt, channels-last": (rebuilt, self.grad_last),
        }

    def steps(self, forward: Callable[[], Tensor], grad: Tensor) -> list[Callable[[], Any]]:
        out: list[Tensor] = []
        return [
            lambda: out.append(forward()),
            lambda: torch.autograd.grad(out.pop(), (self.depth, self.context), grad),
        ]

    def errors(self) -> dict[str, float]:
        """Largest difference of each form's output from a float64 sum."""
        with torch.no_grad():
            exact = lift_splat_export(self.depth.double(), self.context.double(), self.cells(), GRID.nx)
            return {
                name: float((forward() - exact).abs().max()) for name, (forward, _) in self.forms().items()
            }


def prepare(bench: Bench, name: str) -> Steps:
    return lambda: bench.steps(*bench.forms()[name])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rig", choices=["level", "tilted"], default="level")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    bench = Bench(options.batch, options.rig == "tilted", options.device)
    state = header(options.device)
    state |= {"batch": options.batch, "rig": options.rig, "filled_cells": len(bench.plan.filled_cells)}
    state |= {"points": bench.depth.numel(), "kept": len(bench.plan.points)}
    print_header("lift and splat, forward and backward to depth and context", state)
    forms, errors = bench.forms(), bench.errors()
    times = interleaved({name: prepare(bench, name) for name in forms}, options.repeats, options.device)
    memory = {name: peak_mib(bench.steps(*form), options.device) for name, form in forms.items()}
    report(times, memory, errors, bench.grad.numel() * 4 / 2**20, options.json, state)


def report(
    times: dict[str, Timing],
    memory: dict[str, list[float]],
    errors: dict[str, float],
    output_mib: float,
    path: Path | None,
    state: dict[str, Any],
) -> None:
    first = next(iter(times.values()))
    rows: list[list[Any]] = []
    for name, timing in times.items():
        speed = sum(first.wall_ms) / sum(timing.wall_ms), sum(first.cpu_ms) / sum(timing.cpu_ms)
        beyond = memory[name][0] - output_mib
        rows.append(
            [name, *timing.wall_ms, sum(timing.wall_ms), *speed, beyond, memory[name][1], errors[name] * 1e6]
        )
    columns = [
        "form",
        "fwd ms",
        "bwd ms",
        "total ms",
        "speed-up",
        "in CPU time",
        "fwd MiB beyond output",
        "peak MiB",
    ]
    columns.append("error 1e-6")
    print_table(columns, rows)
    print(f"output: {output_mib:.1f} MiB")
    by_name = {row[0]: row for row in rows}
    share = by_name["ours, plan cached, NCHW"][6] / rows[0][6]
    print("targets, plan cached:")
    for layout in ("channels-last", "NCHW"):
        row = by_name[f"ours, plan cached, {layout}"]
        print(f"  speed-up {row[4]:.1f}, in CPU time {row[5]:.1f} (>= {TARGET_SPEED:g}), gradient {layout}")
    print(f"  forward memory beyond the output, share of the first row: {share:.3f} (<= {TARGET_MEMORY:g})")
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    write_json(path, {"machine": state, "output_mib": output_mib, "rows": table, "memory_share": share})


if __name__ == "__main__":
    main()
