"""Losses over depth maps with unknown pixels: of G2-MonoDepth (arXiv 2310.15422) and its relatives.

All take (B, 1, H, W) and a mask of the pixels that count, bool or 0 and 1 of the same shape; what lies
outside the mask may be anything, not-a-number included. Results are float32 at least. An empty mask gives 0.
Users: g2_monodepth.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.losses import at_least_float32
from omma.core.relative_loss import EPS, absolute_sums, relative_sums
from omma.core.sobel import sobel_sums, subsample, used_scales

Averaging = Literal["pooled", "per_image"]
Operator = Literal["sobel", "difference"]
EdgeMask = Literal["none", "erode"]


def mean_and_deviation(depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean absolute deviation over each sample's mask.

    Args:
        depth: (B, C, H, W).
        mask: same shape.

    Returns:
        both (B, 1, 1, 1); the deviation has 1e-6 added, so that a constant map can be divided by it.
    """
    depth = torch.where(mask.bool(), at_least_float32(depth), 0.0)
    return _moments(depth, mask.to(depth.dtype), _counts(mask.bool()))


def standardize(depth: Tensor, mask: Tensor) -> Tensor:
    """(depth - mean) / mean absolute deviation, both of each sample's mask, for all pixels.

    Gradients flow through mean and deviation.

    Args:
        depth: (B, C, H, W).
        mask: same shape.
    """
    mean, deviation = mean_and_deviation(depth, mask)
    return (at_least_float32(depth) - mean) / deviation


def absolute_loss(pred: Tensor, gt: Tensor, mask: Tensor, *, averaging: Averaging = "pooled") -> Tensor:
    """Mean |pred - gt| over the mask.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
        averaging: "pooled": over all pixels of the batch; "per_image": of each image, then of the images.
    """
    mask = mask.bool()
    sums = absolute_sums(at_least_float32(pred), at_least_float32(gt), mask)
    return _over_count(sums, _counts(mask), averaging)


def relative_losses(
    pred: Tensor,
    gt: Tensor,
    mask: Tensor,
    *,
    scales: int = 4,
    operator: Operator = "sobel",
    edge_mask: EdgeMask = "none",
    averaging: Averaging = "pooled",
    mean_scales: bool = False,
) -> tuple[Tensor, Tensor]:
    """Absolute and gradient loss of both maps standardised, which no scale and shift of `pred` changes.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
        scales: as for `gradient_loss`, like what follows.
        operator: "sobel" or "difference".
        edge_mask: "none" or "erode".
        averaging: "pooled" or "per_image".
        mean_scales: mean over the scales instead of the sum.
    """
    mask = mask.bool()
    counts = _counts(mask)
    if operator == "sobel" and edge_mask == "none" and not gt.requires_grad:
        sums = relative_sums(at_least_float32(pred), at_least_float32(gt), mask, scales=scales)
        used = max(used_scales(pred.shape[-2:], scales), 1)
    else:
        residual = _standard_residual(pred, gt, mask, counts)
        gradients, used = _gradient_sums(
            residual, mask, scales=scales, operator=operator, edge_mask=edge_mask
        )
        sums = residual.abs().sum((1, 2, 3)), gradients
    absolute, gradient = (_over_count(of_images, counts, averaging) for of_images in sums)
    return absolute, gradient / (used if mean_scales else 1)


def _standard_residual(pred: Tensor, gt: Tensor, mask: Tensor, counts: Tensor) -> Tensor:
    """Difference of both maps standardised, 0 where `mask` is not."""
    pred, gt, mask = _counted(pred, gt, mask)
    known = mask.to(pred.dtype)  # all is finite now, and products are the faster masks
    standard = []
    for depth in (pred, gt):
        mean, deviation = _moments(depth, known, counts)
        standard.append((depth - mean) / deviation)
    return (standard[0] - standard[1]) * known


def gradient_loss(
    pred: Tensor,
    gt: Tensor,
    mask: Tensor,
    *,
    scales: int = 4,
    operator: Operator = "sobel",
    edge_mask: EdgeMask = "none",
    averaging: Averaging = "pooled",
    mean_scales: bool = False,
) -> Tensor:
    """Sum over scales of the residual's absolute gradients along both axes, over the number of known pixels.

    Scale k has every 2^k-th pixel of the residual pred - gt, which is 0 where unknown. It may be added to any
    depth loss.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
        scales: number of scales; those with less than 3 pixels along a side are left out.
        operator: "sobel": the 3 x 3 operator, unscaled, without padding; "difference": of neighbours.
        edge_mask: "none": unknown pixels count as no residual; "erode": only gradients with known pixels
            under the whole operator, for sparse truth.
        averaging: as for `absolute_loss`.
        mean_scales: mean over the scales instead of the sum.
    """
    mask = mask.bool()
    residual = torch.where(mask, at_least_float32(pred) - at_least_float32(gt), 0.0)
    sums, used = _gradient_sums(residual, mask, scales=scales, operator=operator, edge_mask=edge_mask)
    return _over_count(sums / (used if mean_scales else 1), _counts(mask), averaging)


def _gradient_sums(
    residual: Tensor, mask: Tensor, *, scales: int, operator: Operator, edge_mask: EdgeMask
) -> tuple[Tensor, int]:
    """Each image's sum of absolute gradients, (B,), and the number of scales that it is of, at least 1."""
    used = used_scales(residual.shape[-2:], scales)
    if operator == "sobel" and edge_mask == "none":
        return sobel_sums(residual, scales=scales), max(used, 1)
    sums = residual.sum((1, 2, 3)) * 0.0
    for scale in range(used):
        along_x, along_y = _gradients(subsample(residual, 2**scale), operator)
        if edge_mask == "erode":
            known_x, known_y = _known_gradients(subsample(mask, 2**scale), operator)
            along_x, along_y = torch.where(known_x, along_x, 0.0), torch.where(known_y, along_y, 0.0)
        sums = sums + along_x.abs().sum((1, 2, 3)) + along_y.abs().sum((1, 2, 3))
    return sums, max(used, 1)


def _gradients(residual: Tensor, operator: Operator) -> tuple[Tensor, Tensor]:
    """Along x and y; slices instead of convolutions with constant kernels, which are an order slower."""
    if operator == "difference":
        return residual[..., 1:] - residual[..., :-1], residual[..., 1:, :] - residual[..., :-1, :]
    wide = residual[..., 2:] - residual[..., :-2]
    tall = residual[..., 2:, :] - residual[..., :-2, :]
    along_x = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    along_y = tall[..., :-2] + 2 * tall[..., 1:-1] + tall[..., 2:]
    return along_x, along_y


def _known_gradients(known: Tensor, operator: Operator) -> tuple[Tensor, Tensor]:
    if operator == "difference":
        return known[..., 1:] & known[..., :-1], known[..., 1:, :] & known[..., :-1, :]
    unknown = F.max_pool2d((~known).float(), 3, stride=1) > 0
    return ~unknown, ~unknown


def silog_loss(
    pred: Tensor, gt: Tensor, mask: Tensor, *, variance_focus: float = 0.85, eps: float = 0.0
) -> Tensor:
    """sqrt(mean(d^2) - f mean(d)^2) with d = ln pred - ln gt (arXiv 1406.2283), over all pixels of the batch.

    Args:
        pred: depth above 0, (B, 1, H, W).
        gt: depth, same shape.
        mask: same shape.
        variance_focus: f; at 1 a common factor of `pred` costs nothing.
        eps: added to both before the logarithm.
    """
    mask = mask.bool()
    pred, gt = (torch.where(mask, at_least_float32(depth) + eps, 1.0) for depth in (pred, gt))
    error = pred.log() - gt.log()
    square, mean = _mean(error.square(), mask), _mean(error, mask)
    return _sqrt(square - variance_focus * mean.square())


def ssi_loss(inv_pred: Tensor, inv_gt: Tensor, mask: Tensor, *, alpha: float = 0.85) -> Tensor:
    """var(e) + alpha mean(e)^2 with e = inv_pred - inv_gt, over all pixels of the batch.

    The name is packnet's; scale and shift do matter: the mean error only counts for less.

    Args:
        inv_pred: inverse depth, (B, 1, H, W).
        inv_gt: inverse depth, same shape.
        mask: same shape.
        alpha: weight of the mean error.
    """
    inv_pred, inv_gt, mask = _counted(inv_pred, inv_gt, mask)
    error = inv_pred - inv_gt
    square, mean = _mean(error.square(), mask), _mean(error, mask)
    return square - mean.square() + alpha * mean.square()


def trimmed_loss(
    inv_pred: Tensor, inv_gt: Tensor, mask: Tensor, *, trim: float = 0.2, min_pixels: int = 100
) -> Tensor:
    """Mean |s inv_pred + t - inv_gt| of each image's smallest residuals (arXiv 1907.01341), over the images.

    s and t are those of least squares, s within [0.1, 10].

    Args:
        inv_pred: inverse depth, (B, 1, H, W).
        inv_gt: inverse depth, same shape.
        mask: same shape.
        trim: share of the largest residuals that is left out.
        min_pixels: images with less known ones do not count.
    """
    inv_pred, inv_gt, mask = _counted(inv_pred, inv_gt, mask)
    scale, shift = scale_and_shift(inv_pred, inv_gt, mask)
    residual = (scale.clamp(0.1, 10.0) * inv_pred + shift - inv_gt).abs()
    ordered = torch.where(mask, residual, torch.inf).flatten(1).sort(1).values
    count = mask.flatten(1).sum(1)
    kept = ((1.0 - trim) * count).long()
    inside = torch.arange(ordered.shape[1], device=ordered.device) < kept[:, None]
    losses = torch.where(inside, ordered, 0.0).sum(1) / kept.clamp(min=1)
    counts = count >= min_pixels
    return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp(min=1)


def scale_and_shift(pred: Tensor, gt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's s and t that make s pred + t nearest to gt in the mean square.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.

    Returns:
        both (B, 1, 1, 1); s is 0 where `pred` is constant or unknown.
    """
    pred, gt, mask = _counted(pred, gt, mask)
    count = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean_pred, mean_gt = (values.sum((1, 2, 3), keepdim=True) / count for values in (pred, gt))
    spread = torch.where(mask, pred - mean_pred, 0.0)
    common = (spread * (gt - mean_gt)).sum((1, 2, 3), keepdim=True)
    scale = common / spread.square().sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return scale, mean_gt - scale * mean_pred


def berhu_loss(pred: Tensor, gt: Tensor, mask: Tensor, *, threshold: float = 0.2) -> Tensor:
    """Mean of |d| of all known pixels together with d^2 of those beyond a share of the largest |d|.

    That is packnet's form; the published one (arXiv 1606.00373) has other squares.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
        threshold: that share.
    """
    pred, gt, mask = _counted(pred, gt, mask)
    error = (pred - gt).abs()
    large = error > threshold * error.detach().max()
    total = error.sum() + torch.where(large, error.square(), 0.0).sum()
    return total / (mask.sum() + large.sum()).clamp(min=1)


def square_loss(pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
    """Mean (pred - gt)^2 over the mask, over all pixels of the batch.

    Args:
        pred: (B, 1, H, W).
        gt: same shape.
        mask: same shape.
    """
    pred, gt, mask = _counted(pred, gt, mask)
    return _mean((pred - gt).square(), mask)


def relative_error_loss(pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
    """Mean |pred - gt| / gt over the mask, over all pixels of the batch.

    Args:
        pred: (B, 1, H, W).
        gt: above 0 inside the mask, same shape.
        mask: same shape.
    """
    pred, gt, mask = _counted(pred, gt, mask)
    return _mean((pred - gt).abs() / torch.where(mask, gt, 1.0), mask)


def split_depth(depth: Tensor, max_depth: float, *, step: float = 1.0) -> tuple[Tensor, Tensor]:
    """Targets of the two heads of a dual network, both in [0, 1).

    Args:
        depth: (B, 1, H, W), in the unit of the other two.
        max_depth: what an integer part of 1 stands for.
        step: what a fractional part of 1 stands for.

    Returns:
        integer part: whole steps over `max_depth`; fractional part: the rest over `step`.
    """
    steps = depth / step
    return steps.floor() * step / max_depth, steps - steps.floor()


def dual_head_losses(
    integer: Tensor, fractional: Tensor, gt: Tensor, mask: Tensor, *, max_depth: float, step: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Absolute losses of a dual network's two heads and of the depth that they give together.

    Args:
        integer: (B, 1, H, W), in [0, 1].
        fractional: same.
        gt: depth in the unit of `max_depth` and `step`, same shape.
        mask: same shape.
        max_depth: what an integer part of 1 stands for.
        step: what a fractional part of 1 stands for.
    """
    integer, fractional, gt = (at_least_float32(values) for values in (integer, fractional, gt))
    integer_gt, fractional_gt = split_depth(gt, max_depth, step=step)
    depth = integer * max_depth + fractional * step
    return (
        absolute_loss(integer, integer_gt, mask),
        absolute_loss(fractional, fractional_gt, mask),
        absolute_loss(depth, gt, mask),
    )


def _counted(pred: Tensor, gt: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps, 0 where they do not count, so that no gradient and no not-a-number comes from there."""
    mask = mask.bool()
    pred, gt = (torch.where(mask, at_least_float32(depth), 0.0) for depth in (pred, gt))
    return pred, gt, mask


def _counts(mask: Tensor) -> Tensor:
    """Known pixels of each image, (B,)."""
    return mask.sum((1, 2, 3))


def _moments(depth: Tensor, known: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """As `mean_and_deviation`, of a map that is 0 where `known`, a map too, is 0 and not 1."""
    count = counts.view(-1, 1, 1, 1).clamp(min=1)
    mean = depth.sum((1, 2, 3), keepdim=True) / count
    deviation = ((depth - mean).abs() * known).sum((1, 2, 3), keepdim=True) / count
    return mean, deviation + EPS


def _mean(values: Tensor, mask: Tensor, averaging: Averaging = "pooled") -> Tensor:
    return _over_count(torch.where(mask, values, 0.0).sum((1, 2, 3)), _counts(mask), averaging)


def _over_count(sums: Tensor, counts: Tensor, averaging: Averaging) -> Tensor:
    """Scalar of each image's sum, (B,): over the pixels of all, or of each, images without any left out."""
    if averaging == "pooled":
        return sums.sum() / (counts.sum() + EPS)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def _sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
