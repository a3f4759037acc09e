"""Counts behind intersection over union of binary label maps. Users: lss, diffbev."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIMBEV_THRESHOLDS = tuple(step / 10 for step in range(1, 10))


class Counts(NamedTuple):
    """Cells found (true positives), wrongly found and missed, int64 tensors of one shape."""

    tp: Tensor
    fp: Tensor
    fn: Tensor


def confusion_counts(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Counts:
    """Counts of every sample and class.

    Args:
        predicted: bool (B, C, X, Y).
        target: (B, C, X, Y), anything but 0 is occupied.
        mask: cells that count, bool, (B, 1 or C, X, Y).

    Returns:
        Counts of shape (B, C).
    """
    occupied = target != 0
    if mask is not None:
        predicted, occupied = predicted & mask, occupied & mask
    tp = (predicted & occupied).sum((-2, -1))
    return Counts(tp, predicted.sum((-2, -1)) - tp, occupied.sum((-2, -1)) - tp)


def threshold_counts(
    probability: Tensor, target: Tensor, thresholds: Tensor, mask: Tensor | None = None
) -> Counts:
    """Counts with "probability >= threshold" as the prediction, for all thresholds from one histogram.

    Args:
        probability: (B, C, X, Y).
        target: (B, C, X, Y), anything but 0 is occupied.
        thresholds: rising, (T,), of the probability's type.
        mask: cells that count, bool, (B, 1 or C, X, Y).

    Returns:
        Counts of shape (C, T) over the batch.
    """
    C, T = probability.shape[1], len(thresholds)
    passed = torch.bucketize(probability.contiguous(), thresholds, right=True)  # thresholds that are reached
    bins = passed * 2 + (target != 0)
    bins += torch.arange(C, device=bins.device).view(-1, 1, 1) * (2 * (T + 1))
    counted = bins.flatten() if mask is None else bins[mask.expand_as(bins)]
    histogram = torch.bincount(counted, minlength=C * (T + 1) * 2).view(C, T + 1, 2)
    reached = histogram.flip(1).cumsum(1).flip(1)[:, 1:]
    tp = reached[..., 1]
    return Counts(tp, reached[..., 0], histogram[..., 1].sum(1, keepdim=True) - tp)


def iou(counts: Counts) -> Tensor:
    """Found over found, wrongly found and missed, float64; 1 where nothing is there and nothing is found."""
    union = counts.tp + counts.fp + counts.fn
    return torch.where(union > 0, counts.tp.double() / union.clamp(min=1), 1.0)


def batch_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of one batch with logit > 0 as the prediction, pooled over samples and channels; scalar float64."""
    return iou(Counts(*(count.sum() for count in confusion_counts(logits > 0, target))))


def simbev_iou(probability: Tensor, target: Tensor) -> Tensor:
    """IoU as the SimBEV benchmark has it: probability >= 0.1 ... 0.9, tp / (tp + fp + fn + 1e-6).

    A class that is nowhere and not predicted scores 0 there, not 1.

    Args:
        probability: (B, C, X, Y).
        target: (B, C, X, Y), anything but 0 is occupied.

    Returns:
        (C, 9) float64; the benchmark's headline is the mean over classes of the largest of each row.
    """
    thresholds = torch.tensor(SIMBEV_THRESHOLDS, dtype=probability.dtype, device=probability.device)
    tp, fp, fn = threshold_counts(probability, target, thresholds)
    return tp / ((tp + fp + fn).double() + 1e-6)
