"""Losses over label maps against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from omma.core.losses import binary_cross_entropy, focal_loss

Loss = Callable[..., torch.Tensor]


def maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 5, 4)
    return torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) > 0.8).float()


def test_positive_weight_by_hand() -> None:
    logits = torch.zeros(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    expected = (2.13 + 1) / 2 * math.log(2)
    assert float(binary_cross_entropy(logits, target, pos_weight=2.13)) == pytest.approx(expected)


def test_gradient_is_that_of_the_spec() -> None:
    """(s(z) (1 + (p - 1) y) - p y) / count."""
    logits, target = maps()
    logits.requires_grad_()
    binary_cross_entropy(logits, target, pos_weight=2.13).backward()
    expected = (logits.sigmoid() * (1 + 1.13 * target) - 2.13 * target) / target.numel()
    torch.testing.assert_close(logits.grad, expected.detach())


@pytest.mark.parametrize("loss", [binary_cross_entropy, focal_loss])
def test_masked_cells_do_not_count(loss: Loss) -> None:
    logits, target = maps()
    mask = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    kept = [torch.stack([m[:, c][mask[:, 0]] for c in range(3)])[None, :, :, None] for m in (logits, target)]
    assert float(loss(logits, target, mask=mask)) == pytest.approx(float(loss(*kept)))


@pytest.mark.parametrize("loss", [binary_cross_entropy, focal_loss])
def test_an_empty_mask_gives_zero_with_a_gradient(loss: Loss) -> None:
    logits, target = maps()
    logits.requires_grad_()
    value = loss(logits, target, mask=torch.zeros(2, 1, 5, 4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [binary_cross_entropy, focal_loss])
def test_class_weights_scale_each_class(loss: Loss) -> None:
    logits, target = maps()
    weights = torch.tensor([0.5, 0.0, 2.0])
    by_class = torch.stack([loss(logits[:, [c]], target[:, [c]]) for c in range(3)])
    expected = float((weights * by_class).mean())
    assert float(loss(logits, target, class_weights=weights)) == pytest.approx(expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, target = maps()
    plain = float(binary_cross_entropy(logits, target))
    assert float(focal_loss(logits, target, gamma=0.0)) == pytest.approx(plain)


def test_focal_by_hand() -> None:
    """p = 0.8: an occupied cell weighs alpha 0.2^2, an empty one (1 - alpha) 0.8^2."""
    logits = torch.full((1, 1, 1, 2), math.log(4))
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    expected = (0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.8**2 * -math.log(0.2)) / 2
    assert float(focal_loss(logits, target, gamma=2.0, alpha=0.25)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_for_extreme_logits(gamma: float) -> None:
    logits = torch.tensor([-200.0, 200.0, 0.0, 88.0]).view(1, 1, 1, 4).requires_grad_()
    focal_loss(logits, torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 4), gamma=gamma).backward()
    assert logits.grad.isfinite().all()


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits, target = maps()
    loss = binary_cross_entropy(logits.bfloat16(), target, pos_weight=2.13)
    assert loss.dtype == torch.float32
    expected = binary_cross_entropy(logits.bfloat16().float(), target, pos_weight=2.13)
    assert torch.equal(loss, expected)
