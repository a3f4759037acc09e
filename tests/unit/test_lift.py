"""The splat: sums, gradients, precision, plans, export and the GPU kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omma.core.lift import DualBag, PlanCache, SplatPlan, lift_splat, lift_splat_export, plan_splat

GRID = (4, 6, 2)


def random_case(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Depths, contexts and cell ids of B2 N3 D5 (2, 3) C7; a third of the points lies outside the grid."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, 3, 5, 2, 3, generator=generator, dtype=dtype)
    context = torch.randn(2, 3, 7, 2, 3, generator=generator, dtype=dtype)
    ids = torch.randint(0, 48, (2, 3, 5, 2, 3), generator=generator)
    ids += 48 * torch.arange(2).view(2, 1, 1, 1, 1)
    return depth, context, torch.where(torch.rand(ids.shape, generator=generator) < 1 / 3, -1, ids)


def test_sums_by_hand() -> None:
    """Two pixels, two depths: weighted features meet in one cell, one point is dropped."""
    depth = torch.tensor([[0.25, 0.5], [0.75, 0.5]]).view(1, 1, 2, 1, 2)  # [d][pixel]
    context = torch.tensor([[1.0, 10.0], [2.0, 20.0]]).view(1, 1, 2, 1, 2)  # [channel][pixel]
    ids = torch.tensor([[0, 1], [1, -1]]).view(1, 1, 2, 1, 2)
    out = lift_splat(depth, context, plan_splat(ids, (1, 2, 1)))
    assert out.shape == (1, 2, 1, 2)
    assert out[0, :, 0, 0].tolist() == [0.25, 0.5]
    assert out[0, :, 0, 1].tolist() == [0.75 * 1 + 0.5 * 10, 0.75 * 2 + 0.5 * 20]


def test_height_bins_are_joined_z_first_along_channels() -> None:
    depth, context = torch.ones(1, 1, 1, 1, 1), torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1)
    ids = torch.tensor([(2 * 6 + 4) * 2 + 1]).view(1, 1, 1, 1, 1)  # x 2, y 4, z 1
    out = lift_splat(depth, context, plan_splat(ids, GRID))
    assert out[0, :, 2, 4].tolist() == [0, 0, 0, 1, 2, 3]
    assert out.sum() == 6


def test_close_to_a_float64_index_add() -> None:
    """Value within 1e-6 of the exact sum, gradients too; the export form likewise."""
    depth, context, ids = random_case()
    exact = [t.double().requires_grad_() for t in (depth, context)]
    expected = lift_splat_export(*exact, ids, GRID)
    weights = torch.randn(expected.shape)
    grads = torch.autograd.grad(expected, exact, weights.double())
    for splat in (
        lambda d, c: lift_splat(d, c, plan_splat(ids, GRID)),
        lambda d, c: lift_splat_export(d, c, ids, GRID),
    ):
        inputs = [t.clone().requires_grad_() for t in (depth, context)]
        out = splat(*inputs)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6)
        for ours, exact_grad in zip(torch.autograd.grad(out, inputs, weights), grads, strict=True):
            torch.testing.assert_close(ours.double(), exact_grad, rtol=1e-6, atol=2e-6)


def test_gradcheck_in_float64() -> None:
    depth, context, ids = random_case(torch.float64)
    plan = plan_splat(ids, GRID)
    inputs = (depth.requires_grad_(), context.requires_grad_())
    assert torch.autograd.gradcheck(lambda d, c: lift_splat(d, c, plan), inputs)


def test_gradient_of_only_one_input() -> None:
    depth, context, ids = random_case()
    plan = plan_splat(ids, GRID)
    both = [t.clone().requires_grad_() for t in (depth, context)]
    lift_splat(*both, plan).square().sum().backward()
    depth.requires_grad_()
    lift_splat(depth, context, plan).square().sum().backward()
    assert torch.equal(depth.grad, both[0].grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_cast_at_the_border(dtype: torch.dtype) -> None:
    """The sum of rounded inputs is exact float32, also under autocast; gradients come back rounded."""
    depth, context, ids = random_case()
    plan = plan_splat(ids, GRID)
    rounded = [t.to(dtype).requires_grad_() for t in (depth, context)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = lift_splat(*rounded, plan)
    assert out.dtype == torch.float32
    assert torch.equal(out, lift_splat(*(t.float() for t in rounded), plan))
    out.sum().backward()
    assert [t.grad.dtype for t in rounded] == [dtype, dtype]


def test_result_is_channels_last_without_a_copy() -> None:
    out = lift_splat(*random_case()[:2], plan_splat(random_case()[2], GRID))
    assert out.shape == (2, 14, 4, 6)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_nothing_in_the_grid() -> None:
    depth, context, ids = random_case()
    depth.requires_grad_()
    out = lift_splat(depth, context, plan_splat(torch.full_like(ids, -1), GRID))
    out.sum().backward()
    assert not out.any()
    assert not depth.grad.any()


def test_dropped_points_get_no_gradient() -> None:
    depth, context, ids = random_case()
    depth.requires_grad_()
    lift_splat(depth, context, plan_splat(ids, GRID)).sum().backward()
    assert not depth.grad[ids < 0].any()
    assert depth.grad[ids >= 0].all()


def test_only_depth_and_features_are_saved() -> None:
    depth, context, ids = random_case()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        lift_splat(depth.requires_grad_(), context.requires_grad_(), plan_splat(ids, GRID))
    assert sum(t.numel() for t in saved) == depth.numel() + context.numel()


class TestPlanCache:
    @staticmethod
    def build() -> SplatPlan:
        return plan_splat(random_case()[2], GRID)

    def test_equal_values_share_a_plan(self) -> None:
        cache, trans = PlanCache(), torch.rand(2, 3, 3)
        assert cache.get([trans], self.build) is cache.get([trans.clone()], self.build)

    def test_other_values_or_shapes_do_not(self) -> None:
        cache, trans = PlanCache(), torch.rand(2, 3, 3)
        first = cache.get([trans, trans], self.build)
        assert cache.get([trans + 1e-6, trans], self.build) is not first
        assert cache.get([trans.view(2, 9), trans], self.build) is not first

    def test_the_one_used_longest_ago_goes(self) -> None:
        cache = PlanCache(max_plans=2)
        keys = [torch.full((1,), float(value)) for value in range(3)]
        plans = [cache.get([key], self.build) for key in keys[:2]]
        assert cache.get([keys[0]], self.build) is plans[0]
        cache.get([keys[2]], self.build)
        assert cache.get([keys[0]], self.build) is plans[0]
        assert cache.get([keys[1]], self.build) is not plans[1]


class Splat(nn.Module):
    def forward(self, depth: Tensor, context: Tensor, ids: Tensor) -> Tensor:
        return lift_splat_export(depth, context, ids, GRID)


def test_onnx_of_the_export_form() -> None:
    """onnxruntime gives what torch gives."""
    import onnxruntime

    case = random_case()
    program = torch.onnx.export(Splat().eval(), case, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [node.name for node in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, case, strict=True)}
    np.testing.assert_allclose(session.run(None, feeds)[0], Splat()(*case).numpy(), atol=1e-6)


TRITON_AGAINST_DUAL_BAG = """
import torch
from omma.core.lift import DualBag, plan_splat
from omma.core.lift_triton import TritonSplat
generator = torch.Generator().manual_seed(0)
ids = torch.randint(0, 60, (2, 3, 41, 2, 3), generator=generator) + 60 * torch.arange(2).view(2, 1, 1, 1, 1)
plan = plan_splat(torch.where(torch.rand(ids.shape, generator=generator) < 0.3, -1, ids), (6, 5, 2))
depth = torch.rand(36, 41, generator=generator).requires_grad_()
table = torch.randn(36, 65, generator=generator).requires_grad_()
grad = torch.randn(120, 65, generator=generator)
ours, other = TritonSplat.apply(depth, table, plan), DualBag.apply(depth, table, plan)
def difference(a, b):
    return float((a - b).abs().max() / b.abs().max())
assert difference(ours, other) < 5e-7, difference(ours, other)
pairs = zip(*(torch.autograd.grad(out, (depth, table), grad) for out in (ours, other)))
for a, b in pairs:
    assert difference(a, b) < 1e-6, difference(a, b)
"""

TRITON_COMPILES = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from omma.core.lift_triton import gather_gradients, sum_cells
INDICES = {"points_by_cell", "cell_offsets", "filled_cells", "cell_of_point"}
for kernel, block in ((sum_cells, "BLOCK_P"), (gather_gradients, "BLOCK_D")):
    names = [name for name in kernel.arg_names if name not in (block, "BLOCK_C", "D", "C")]
    signature = {name: "*i64" if name in INDICES else "*fp32" for name in names}
    signature |= {"D": "i32", "C": "i32", block: "constexpr", "BLOCK_C": "constexpr"}
    compiled = triton.compile(
        ASTSource(kernel, signature, {block: 8, "BLOCK_C": 64}), target=GPUTarget("cuda", 90, 32)
    )
    assert len(compiled.asm["cubin"]) > 1000
"""

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no CUDA: this torch build comes without Triton"
)


def run_script(script: str, **env: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    assert result.returncode == 0, result.stderr


@needs_triton
def test_triton_kernels_in_the_interpreter_agree_with_the_dual_bag() -> None:
    """Odd sizes: 65 channels, 41 depths, a third of the points dropped, empty cells, two height bins."""
    run_script(TRITON_AGAINST_DUAL_BAG, TRITON_INTERPRET="1")


@needs_triton
def test_triton_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """Down to a binary for compute capability 9.0, which needs no GPU."""
    run_script(TRITON_COMPILES, TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_gpu_agrees_with_cpu_and_repeats_itself() -> None:
    depth, context, ids = random_case()
    expected = lift_splat(depth, context, plan_splat(ids, GRID))
    on_gpu = [t.cuda() for t in (depth, context, ids)]
    first, second = (lift_splat(*on_gpu[:2], plan_splat(on_gpu[2], GRID)) for _ in range(2))
    torch.testing.assert_close(first.cpu(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(first, second)


def test_dual_bag_is_what_a_cpu_uses() -> None:
    depth, context, ids = random_case()
    out = lift_splat(depth.requires_grad_(), context, plan_splat(ids, GRID))
    functions = {out.grad_fn}
    while functions and not any(type(f).__name__.startswith(DualBag.__name__) for f in functions):
        functions = {parent for f in functions if f for parent, _ in f.next_functions}
    assert functions
