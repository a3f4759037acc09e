"""Depth losses on maps small enough to do by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.depth_losses import (
    absolute_loss,
    berhu_loss,
    dual_head_losses,
    gradient_loss,
    mean_and_deviation,
    relative_error_loss,
    relative_losses,
    scale_and_shift,
    silog_loss,
    split_depth,
    square_loss,
    ssi_loss,
    standardize,
    trimmed_loss,
)


def maps(*, seed: int = 0, size: tuple[int, int] = (32, 40)) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and mask of two samples."""
    generator = torch.Generator().manual_seed(seed)
    pred, gt = (0.2 + torch.rand(2, 1, *size, generator=generator) for _ in range(2))
    return pred, gt, torch.rand(2, 1, *size, generator=generator) > 0.3


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


ALL = {
    "absolute": absolute_loss,
    "relative": lambda p, g, m: relative_losses(p, g, m)[0],
    "relative gradient": lambda p, g, m: relative_losses(p, g, m)[1],
    "gradient": gradient_loss,
    "eroded": lambda p, g, m: gradient_loss(p, g, m, edge_mask="erode"),
    "differences": lambda p, g, m: gradient_loss(p, g, m, operator="difference", averaging="per_image"),
    "silog": silog_loss,
    "ssi": ssi_loss,
    "trimmed": trimmed_loss,
    "berhu": berhu_loss,
    "square": square_loss,
    "relative error": relative_error_loss,
    "dual": lambda p, g, m: sum(dual_head_losses(p, p, g, m, max_depth=2.0)),
}


@pytest.mark.parametrize("name", ALL)
class TestAll:
    def test_no_known_pixel_is_no_loss(self, name: str) -> None:
        pred, gt, mask = maps()
        pred.requires_grad_()
        loss = ALL[name](pred, gt, torch.zeros_like(mask))
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert not pred.grad.any()

    def test_what_is_unknown_may_be_anything(self, name: str) -> None:
        pred, gt, mask = maps()
        expected = ALL[name](pred, gt, mask)
        spoilt = torch.where(mask, pred, torch.nan).requires_grad_()
        loss = ALL[name](spoilt, torch.where(mask, gt, torch.inf), mask)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        assert spoilt.grad.isfinite().all()
        assert not spoilt.grad[~mask].any()

    def test_half_precision_is_computed_in_float32(self, name: str) -> None:
        pred, gt, mask = maps()
        half = pred.half()
        loss = ALL[name](half, gt, mask)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, ALL[name](half.float(), gt, mask))


class TestStandardization:
    def test_by_hand(self) -> None:
        depth, mask = row(1.0, 3.0, 8.0, 100.0), row(1, 1, 1, 0)
        mean, deviation = mean_and_deviation(depth, mask)
        assert float(mean) == 4.0
        assert float(deviation) == pytest.approx((3 + 1 + 4) / 3 + 1e-6)
        assert standardize(depth, mask)[0, 0, 0, 3] == pytest.approx(96 / (8 / 3), rel=1e-5)

    def test_scale_and_shift_of_the_prediction_do_not_matter(self) -> None:
        pred, gt, mask = maps()
        ours, other = relative_losses(pred, gt, mask), relative_losses(3 * pred + 7, gt, mask)
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)

    def test_gradients_flow_through_mean_and_deviation(self) -> None:
        pred, gt, mask = (values[:, :, :6, :6] for values in maps())
        pred, gt = pred.double().requires_grad_(), gt.double()
        assert torch.autograd.gradcheck(lambda p: relative_losses(p, gt, mask, scales=2), (pred,))


def standard(depth: Tensor, mask: Tensor) -> Tensor:
    """As the paper has it, step by step, with what autograd makes of it."""
    count = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (depth * mask).sum((1, 2, 3), keepdim=True) / count
    deviation = ((depth - mean).abs() * mask).sum((1, 2, 3), keepdim=True) / count
    return (depth - mean) / (deviation + 1e-6)


def step_by_step(pred: Tensor, gt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`relative_losses`, with interpolation and convolutions."""
    residual = (standard(pred, mask) - standard(gt, mask)) * mask
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=pred.dtype).expand(1, 1, 3, 3)
    gradient = residual.new_zeros(())
    for scale in range(4):
        coarse = F.interpolate(residual, [residual.shape[-2] >> scale, residual.shape[-1] >> scale])
        for operator in (kernel, kernel.transpose(2, 3)):
            gradient = gradient + F.conv2d(coarse, operator).abs().sum()
    return residual.abs().sum() / (mask.sum() + 1e-6), gradient / (mask.sum() + 1e-6)


LAYOUTS = {
    "contiguous": lambda values: values.contiguous(),
    "channels_last": lambda values: values.contiguous(memory_format=torch.channels_last),
    "transposed": lambda values: values.transpose(2, 3).contiguous().transpose(2, 3),
    "cut out": lambda values: F.pad(values, (1, 2, 3, 4))[..., 3:-4, 1:-2],
}


class TestAgainstStepByStep:
    """Derivatives written out, against autograd's in float64."""

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("size", [(64, 64), (50, 91)])
    @pytest.mark.parametrize("share", [1.0, 0.6, 0.02])
    def test_gradients_in_float32(self, size: tuple[int, int], share: float, layout: str) -> None:
        generator = torch.Generator().manual_seed(3)
        pred, gt, chance = (torch.rand(3, 1, *size, generator=generator) for _ in range(3))
        mask = chance <= share
        mask[1] &= share == 1.0
        exact = pred.double().requires_grad_()
        expected = step_by_step(exact, gt.double(), mask.double())
        leaf = LAYOUTS[layout](pred).requires_grad_()
        losses = relative_losses(leaf, LAYOUTS[layout](gt), LAYOUTS[layout](mask))
        for loss, wanted in zip(losses, expected, strict=True):
            torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
            (slope,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            (right,) = torch.autograd.grad(wanted, exact, retain_graph=True)
            assert (slope - right).norm() < 1e-5 * right.norm()

    def test_both_losses_together_and_each_image_for_itself(self) -> None:
        pred, gt, mask = (values[..., :13, :14] for values in maps())
        pred, gt = pred.double().requires_grad_(), gt.double()
        for averaging in ("pooled", "per_image"):

            def total(p: Tensor, averaging: str = averaging) -> Tensor:
                relative, gradient = relative_losses(p, gt, mask, averaging=averaging)
                return relative + 0.5 * gradient + 2 * absolute_loss(p, gt, mask, averaging=averaging)

            assert torch.autograd.gradcheck(total, (pred,))

    def test_a_truth_with_a_gradient(self) -> None:
        pred, gt, mask = (values[..., :12, :12] for values in maps())
        pred, gt = pred.double(), gt.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda g: sum(relative_losses(pred, g, mask)), (gt,))
        assert torch.autograd.gradcheck(lambda g: absolute_loss(pred, g, mask), (gt,))

    def test_a_perfect_prediction_has_no_gradient(self) -> None:
        _, gt, mask = maps()
        pred = gt.clone().requires_grad_()
        loss = sum(relative_losses(pred, gt, mask)) + absolute_loss(pred, gt, mask)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert not pred.grad.any()


class TestAveraging:
    def test_pixels_or_images(self) -> None:
        pred, gt = torch.zeros(3, 1, 1, 4), torch.ones(3, 1, 1, 4)
        gt[1] = 3.0
        mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).view(3, 1, 1, 4)
        assert float(absolute_loss(pred, gt, mask)) == pytest.approx(7 / 5)
        assert float(absolute_loss(pred, gt, mask, averaging="per_image")) == pytest.approx((1 + 3) / 2)


class TestGradient:
    def test_against_convolutions(self) -> None:
        pred, gt, mask = maps(size=(30, 44))
        residual = (pred - gt) * mask
        kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(1, 1, 3, 3)
        expected = 0.0
        for scale in range(4):
            coarse = F.interpolate(residual, [residual.shape[-2] >> scale, residual.shape[-1] >> scale])
            for operator in (kernel, kernel.transpose(2, 3)):
                expected += F.conv2d(coarse, operator).abs().sum() / mask.sum()
        torch.testing.assert_close(gradient_loss(pred, gt, mask), expected)
        mean = gradient_loss(pred, gt, mask, mean_scales=True)
        torch.testing.assert_close(mean, expected / 4)

    def test_scales_too_small_for_the_operator_are_left_out(self) -> None:
        pred, gt, mask = maps(size=(6, 9))
        two = gradient_loss(pred, gt, mask, scales=2)
        torch.testing.assert_close(gradient_loss(pred, gt, mask, scales=4), two)
        small = (values[..., :2, :2] for values in (pred, gt, mask))
        assert float(gradient_loss(*small)) == 0.0

    def test_a_ramp_costs_its_slope_only_where_it_is_known(self) -> None:
        gt = torch.zeros(1, 1, 8, 8)
        pred = torch.arange(8.0).expand_as(gt)
        known = torch.zeros_like(gt, dtype=torch.bool)
        known[..., 2:6, 2:6] = True
        eroded = gradient_loss(pred, gt, known, scales=1, edge_mask="erode")
        assert float(eroded) == pytest.approx(2 * 2 * 8 / 16)  # 2 x 2 centres, 8 a ramp of slope 1
        assert float(gradient_loss(pred, gt, known, scales=1)) > 3 * float(eroded)
        alone = torch.zeros_like(known)
        alone[..., 4, 4] = True
        assert float(gradient_loss(pred, gt, alone, edge_mask="erode")) == 0.0
        pairs = gradient_loss(pred, gt, known, scales=1, operator="difference", edge_mask="erode")
        assert float(pairs) == pytest.approx(4 * 3 / 16)


class TestLogAndInverse:
    def test_a_common_factor(self) -> None:
        _, gt, mask = maps()
        factor = math.log(1.1)
        assert float(silog_loss(1.1 * gt, gt, mask)) == pytest.approx(factor * math.sqrt(0.15), rel=1e-4)
        assert float(silog_loss(1.1 * gt, gt, mask, variance_focus=1.0)) == pytest.approx(0.0, abs=1e-3)

    def test_perfect_predictions_have_finite_gradients(self) -> None:
        _, gt, mask = maps()
        pred = gt.clone().requires_grad_()
        loss = silog_loss(pred, gt, mask)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert pred.grad.isfinite().all()

    def test_ssi_counts_the_mean_error_for_less(self) -> None:
        _, gt, mask = maps()
        assert float(ssi_loss(gt + 0.5, gt, mask)) == pytest.approx(0.85 * 0.25, rel=1e-4)
        assert float(ssi_loss(gt + 0.5, gt, mask, alpha=0.0)) == pytest.approx(0.0, abs=1e-5)


class TestTrimmed:
    def test_outliers_are_left_out(self) -> None:
        _, gt, _ = maps()
        mask = torch.ones_like(gt, dtype=torch.bool)
        assert float(trimmed_loss(0.5 * gt - 3, gt, mask)) == pytest.approx(0.0, abs=1e-5)
        spoilt = gt.clone()
        spoilt[..., 0, :4] += 0.5
        kept_all = float(trimmed_loss(spoilt, gt, mask, trim=0.0))
        assert float(trimmed_loss(spoilt, gt, mask)) < 0.8 * kept_all

    def test_images_with_few_pixels_do_not_count(self) -> None:
        pred, gt, mask = maps()
        few = mask.clone()
        few[1] = False
        few[1, 0, 0, :50] = True
        alone = trimmed_loss(pred[:1], gt[:1], mask[:1])
        torch.testing.assert_close(trimmed_loss(pred, gt, few), alone)

    def test_least_squares(self) -> None:
        pred, _, mask = maps()
        scale, shift = scale_and_shift(pred, torch.where(mask, 2 * pred - 1, 9.0), mask)
        torch.testing.assert_close(scale.flatten(), torch.full((2,), 2.0))
        torch.testing.assert_close(shift.flatten(), torch.full((2,), -1.0))


class TestBerhuAndDual:
    def test_squares_and_shares_by_hand(self) -> None:
        pred, gt, known = row(1.0, 5.0, 9.0), row(2.0, 4.0, 0.0), row(1, 1, 0)
        assert float(square_loss(pred, gt, known)) == pytest.approx((1 + 1) / 2)
        assert float(relative_error_loss(pred, gt, known)) == pytest.approx((1 / 2 + 1 / 4) / 2)

    def test_berhu_by_hand(self) -> None:
        pred, gt = row(0.0, 0.0, 0.0), row(1.0, 2.0, 10.0)
        everything = torch.ones_like(gt)
        assert float(berhu_loss(pred, gt, everything)) == pytest.approx((1 + 2 + 10 + 100) / 4)

    def test_parts_of_a_depth(self) -> None:
        integer, fractional = split_depth(row(7.25), 15.0)
        assert (float(integer), float(fractional)) == pytest.approx((7 / 15, 0.25))
        integer, fractional = split_depth(row(7.25 / 15), 1.0, step=1 / 15)
        assert (float(integer), float(fractional)) == pytest.approx((7 / 15, 0.25), rel=1e-4)

    def test_the_right_heads_cost_nothing(self) -> None:
        gt = row(7.25, 0.5)
        heads = split_depth(gt, 15.0)
        terms = dual_head_losses(*heads, gt, gt > 0, max_depth=15.0)
        assert [float(term) for term in terms] == pytest.approx([0.0, 0.0, 0.0], abs=1e-5)
