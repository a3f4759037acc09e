"""Losses over label maps. Users: lss, diffbev."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pos_weight: float = 1.0,
    class_weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean of -[p y log s(z) + (1 - y) log(1 - s(z))] with p = `pos_weight`, over counted cells and classes.

    Args:
        logits: (B, C, X, Y).
        target: same shape, in [0, 1].
        pos_weight: weight of occupied cells.
        class_weights: factor of every class, (C,).
        mask: cells that count, bool, (B, 1 or C, X, Y); without any the loss is 0.

    Returns:
        Scalar, float32 at least.
    """
    logits, target = at_least_float32(logits), at_least_float32(target)
    weight = logits.new_tensor(pos_weight)
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    return _mean(loss, class_weights, mask)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    class_weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy weighted by (1 - p_t)^gamma, p_t the probability of the truth (arXiv 1708.02002).

    Args:
        logits: (B, C, X, Y).
        target: same shape, 0 or 1.
        gamma: how much less cells count that are right already; 0 is cross-entropy.
        alpha: weight of occupied cells, 1 - alpha that of empty ones; None: both 1.
        class_weights: factor of every class, (C,).
        mask: cells that count, bool, (B, 1 or C, X, Y); without any the loss is 0.

    Returns:
        Scalar, float32 at least.
    """
    logits, target = at_least_float32(logits), at_least_float32(target)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (-torch.expm1(-cross_entropy)).clamp(min=1e-8)  # 1 - p_t; at 0 a gamma < 1 has no gradient
    loss = wrong**gamma * cross_entropy
    if alpha is not None:
        loss = loss * (alpha * target + (1.0 - alpha) * (1.0 - target))
    return _mean(loss, class_weights, mask)


def occupancy_loss(
    logits: Tensor,
    target: Tensor,
    visible: Tensor,
    *,
    priors: Tensor,
    class_weights: Tensor,
    prior_weight: float = 0.001,
) -> Tensor:
    """Weighted cross-entropy where a cell is seen, cross-entropy with the prior where not (PON, 2003.13402).

    Both are means over all cells and classes, seen or not, so that the loss grows with the share seen.

    Args:
        logits: (B, K, Z, X).
        target: bool, same shape.
        visible: bool (B, 1, Z, X).
        priors: share of each class, (K,).
        class_weights: weight of occupied cells of each class, (K,); empty ones weigh 1.
        prior_weight: weight of unseen cells.

    Returns:
        Scalar, float32 at least.
    """
    logits = at_least_float32(logits)
    priors, class_weights = (values.to(logits).view(-1, 1, 1) for values in (priors, class_weights))
    truth = torch.where(visible, target.to(logits.dtype), priors)
    weight = torch.where(visible, torch.where(target, class_weights, 1.0), prior_weight)
    return F.binary_cross_entropy_with_logits(logits, truth, weight)


def expected_depth_loss(
    depth_logits: Tensor, depth_m: Tensor, low: float, high: float, *, known: Tensor | None = None
) -> Tensor:
    """Mean |expected depth - depth| of a distribution, as ldk-tokyo/DiffBEV has it.

    There the depths of the bins are spread evenly from `low` to `high`, and a sparse map is brought to the
    size of the features bilinearly, zeros included.

    Args:
        depth_logits: (B, D, h, w).
        depth_m: metres, (B, 1, H, W).
        low: depth of the first bin.
        high: depth of the last bin.
        known: pixels that count, (B, 1, H, W); default those with a depth.

    Returns:
        Scalar, float32; 0 where no depth is known.
    """
    size = depth_logits.shape[-2:]
    known = depth_m > 0 if known is None else known
    bins_m = torch.linspace(low, high, depth_logits.shape[1], device=depth_logits.device).view(-1, 1, 1)
    expected_m = (depth_logits.float().softmax(1) * bins_m).sum(1, keepdim=True)
    truth_m = F.interpolate(depth_m.float(), size, mode="bilinear", align_corners=False)
    counted = F.interpolate(known.float(), size) > 0.5
    error = torch.where(counted, (expected_m - truth_m).abs(), 0.0)
    return error.sum() / counted.sum().clamp(min=1)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _mean(loss: Tensor, class_weights: Tensor | None, mask: Tensor | None) -> Tensor:
    if class_weights is not None:
        loss = loss * class_weights.to(loss).view(-1, 1, 1)
    if mask is None:
        return loss.mean()
    counted = mask.expand_as(loss)
    return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp(min=1)
