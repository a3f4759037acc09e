"""Errors of joints: percentage of correct keypoints (PCK), mean distance, area under it. User: sdpose."""

from __future__ import annotations

import torch
from torch import Tensor

from omma.core.heatmaps import highest_cells

_AUC_STEPS = 20


def distances(pred: Tensor, true: Tensor, counted: Tensor, unit: Tensor | None = None) -> Tensor:
    """Distances of joints, NaN where a joint does not count.

    Args:
        pred: (B, K, 2).
        true: (B, K, 2).
        counted: bool (B, K).
        unit: (B, 2) or (2,) what x and y are divided by; None: nothing.

    Returns:
        (B, K) float32.
    """
    difference = pred.float() - true.float()
    if unit is not None:
        difference = difference / unit.float().view(-1, 1, 2)
    return torch.where(counted, difference.norm(dim=-1), torch.nan)


def pck(distance: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Share of joints nearer than a threshold.

    Args:
        distance: (B, K) of `distances`.
        threshold: in the distances' unit.

    Returns:
        by joint (K,), NaN where none counts, and the mean () over the joints that count; 0 where none does.
    """
    by_joint = (distance < threshold).sum(0) / (~distance.isnan()).sum(0)
    return by_joint, by_joint.nanmean().nan_to_num(0.0)


def epe(distance: Tensor) -> Tensor:
    """The mean () of distances (B, K) over the joints that count; 0 where none does."""
    return distance.nanmean().nan_to_num(0.0)


def auc(distance: Tensor, reach: float = 30.0) -> Tensor:
    """The mean PCK () over 20 thresholds from 0 to just below `reach`, in the unit of `distance` (B, K)."""
    thresholds = [reach * step / _AUC_STEPS for step in range(_AUC_STEPS)]
    return torch.stack([pck(distance, threshold)[1] for threshold in thresholds]).mean()


def heatmap_pck(heatmaps: Tensor, target: Tensor, weight: Tensor, threshold: float = 0.05) -> Tensor:
    """PCK () between the highest cells of heatmaps and targets, the reference's `acc_pose`.

    x is divided by the number of rows and y by that of columns, as the reference has it.

    Args:
        heatmaps: (B, K, h, w).
        target: (B, K, h, w).
        weight: (B, K, 1); joints of weight 0 do not count.
        threshold: of the divided distance.
    """
    unit = torch.tensor(heatmaps.shape[-2:], device=heatmaps.device)
    pred, true = highest_cells(heatmaps)[0], highest_cells(target)[0]
    return pck(distances(pred, true, weight[..., 0] > 0, unit), threshold)[1]
