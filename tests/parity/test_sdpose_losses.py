"""Losses of SDPose against the reference's values; masked distillation against its written definition."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import load_arrays
from test_sdpose_network import gaussians
from torch import Tensor

from omma.core.heatmap_losses import joints_mse
from omma.core.token_losses import (
    entropy_token_loss,
    entropy_weights,
    important_keep,
    norm_scores,
    num_kept,
    peak_scores,
    token_loss,
)
from omma.systems.sdpose.config import Distillation
from omma.systems.sdpose.losses import CycleLoss
from omma.systems.sdpose.model import Cycle

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "sdpose"
Arrays = dict[str, np.ndarray]
RATIOS = (0.0, 0.2, 0.3, 0.5, 0.9)
ENTROPY = ("default", "v35_vis", "v35_kpt", "exp5_kpt", "batchnorm_lw1", "nodetach_lw1")


def arrays_of(name: str) -> Arrays:
    return load_arrays(CASES / f"{name}.npz")


def leaf(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).requires_grad_()


def same(found: Tensor | float, expected: np.ndarray, rtol: float = 1e-6, atol: float = 0.0) -> None:
    found = found.detach().numpy() if isinstance(found, Tensor) else found
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_joints() -> None:
    arrays = arrays_of("loss_joints_mse")
    pred, target, weight = (torch.from_numpy(arrays[key]) for key in ("pred", "target", "target_weight"))
    pred.requires_grad_()
    loss = joints_mse(pred, target, weight)
    loss.backward()
    same(loss, arrays["loss_weighted"])
    same(2.5 * loss, arrays["loss_weighted_lw2.5"])
    same(pred.grad, arrays["grad_weighted"], atol=1e-9)
    same(joints_mse(pred, target), arrays["loss_unweighted"])
    pred.grad = None
    nothing = joints_mse(pred, target, torch.zeros_like(weight))
    nothing.backward()
    same(nothing, arrays["loss_all_zero_weight"])
    same(pred.grad.abs().max(), arrays["grad_all_zero_weight_absmax"])


def test_tokens_with_gradients_into_both_cycles() -> None:
    arrays = arrays_of("loss_token_distil")
    first, second = leaf(arrays["first"]), leaf(arrays["second"])
    loss = arrays["loss_weight"].item() * token_loss(first, second, detach_teacher=False)
    loss.backward()
    same(loss, arrays["loss"])
    same(first.grad, arrays["grad_first"], atol=1e-12)
    same(second.grad, arrays["grad_second"], atol=1e-12)


def test_three_cycles() -> None:
    """Every term and the gradient into every output; the second cycle has two neighbours."""
    arrays = arrays_of("loss_head_three_cycles")
    target = gaussians(arrays["centers_xy"], 64, 48)
    draws = np.random.default_rng(arrays["seed"].item())
    draws.random(3 * target.shape[0] * target.shape[1])  # centres and weights, which are stored
    cycles = []
    for index in range(3):
        heatmaps = (0.6 + 0.1 * index) * target + 0.05 * draws.standard_normal(target.shape)
        heatmaps[0, : 5 - index] = np.roll(heatmaps[0, : 5 - index], 9, axis=-1)
        heatmaps = heatmaps.astype(np.float16)
        assert zlib.crc32(heatmaps.tobytes()) == arrays[f"pred_{index}_crc32"]
        keypoints, visual = (draws.standard_normal((2, tokens, 12)).astype(np.float32) for tokens in (17, 20))
        cycles.append(Cycle(leaf(keypoints), leaf(visual), leaf(heatmaps.astype(np.float32)), None))
    weight = torch.from_numpy(arrays["target_weight"])
    terms = CycleLoss(Distillation(detach_teacher=False))(cycles, torch.from_numpy(target), weight)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    for name, value in {**terms, "loss": loss}.items():
        same(value, arrays[name])
    for index, cycle in enumerate(cycles):
        same(cycle.heatmaps.grad.norm(), arrays[f"gradnorm_pred_{index}"])
        same(cycle.keypoints.grad.norm(), arrays[f"gradnorm_kpt_token_{index}"])
        same(cycle.visual.grad.norm(), arrays[f"gradnorm_vis_token_{index}"])


class TestMasked:
    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("kind", ["vis", "kpt", "one"])
    def test_importance(self, kind: str, ratio: float) -> None:
        arrays = arrays_of("loss_masked_token_spec")
        stem = f"{kind}.importance.ratio{ratio}"
        scores = torch.from_numpy(arrays[f"{kind}.importance"])
        keep = important_keep(scores, ratio)
        assert num_kept(scores.shape[1], ratio) == arrays[f"{stem}.n_keep"]
        np.testing.assert_array_equal(keep, arrays[f"{stem}.keep_index"])
        student = leaf(arrays[f"{kind}.student"])
        loss = token_loss(student, torch.from_numpy(arrays[f"{kind}.teacher"]), keep=keep)
        loss.backward()
        same(loss, arrays[f"{stem}.loss_unweighted"])
        same(student.grad.norm(), arrays[f"{stem}.gradnorm_student_unweighted"])

    def test_scores(self) -> None:
        arrays = arrays_of("loss_masked_token_spec")
        peaks = peak_scores(torch.from_numpy(arrays["teacher_heatmap"]))
        same(peaks, arrays["kpt_importance_from_peak"])
        same(norm_scores(torch.from_numpy(arrays["vis.teacher"])), arrays["norm_importance"])


@pytest.mark.parametrize("case", ENTROPY)
def test_entropy(case: str) -> None:
    arrays = arrays_of("loss_entropy_token")
    settings: dict[str, Any] = json.loads(str(arrays["json_configs"]))[case]
    scale = settings.get("loss_weight", 1e-5) * settings.get("loss_scale", 1.0)
    weights = entropy_weights(
        torch.from_numpy(arrays["teacher_heatmap"]),
        settings.get("weight_min", 0.5),
        settings.get("weight_max", 2.0),
        over="sample" if settings.get("normalize_per_instance", True) else "batch",
    )
    same(weights[..., None], arrays[f"{case}.weights"], rtol=0, atol=1e-5)  # they stretch small differences
    visible = torch.from_numpy(arrays["target_weight"])[..., 0]
    options = {
        "floor": settings.get("visibility_floor", 0.0),
        "detach_teacher": settings.get("detach_teacher", True),
    }
    for kind in ("kpt", "vis"):
        student, teacher = leaf(arrays[f"{kind}_student"]), leaf(arrays[f"{kind}_teacher"])
        stem = f"{case}.{kind}"
        loss = scale * entropy_token_loss(student, teacher, weights, visible=visible, **options)
        loss.backward()
        same(loss, arrays[f"{stem}.loss"], rtol=5e-6)
        same(student.grad.norm(), arrays[f"{stem}.gradnorm_student"], rtol=1e-5)
        moved = 0.0 if teacher.grad is None else teacher.grad.norm()
        same(moved, arrays[f"{stem}.gradnorm_teacher"], rtol=1e-5)
        unlabelled = scale * entropy_token_loss(student, teacher, weights, **options)
        same(unlabelled, arrays[f"{stem}.no_weight.loss"], rtol=5e-6)
        for name, other in {"no_heatmap": (1.0, visible), "all_invisible": (weights, 0 * visible)}.items():
            joint_weights = torch.as_tensor(other[0]).expand_as(weights)
            loss = scale * entropy_token_loss(student, teacher, joint_weights, visible=other[1], **options)
            same(loss, arrays[f"{stem}.{name}.loss"], rtol=5e-6)
