"""Distillation between the tokens of one pass through a transformer and those of a better one. Users: sdpose.

Shapes: B batch, N tokens, K keypoints, D features of a token. Results are float32 at least. Which tokens are
kept and what they weigh carries no gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.losses import at_least_float32

SURE, UNSURE = 0.05, 0.95  # quantiles of the entropies at which weights end
_ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996


def token_loss(
    student: Tensor, teacher: Tensor, *, keep: Tensor | None = None, detach_teacher: bool = True
) -> Tensor:
    """Mean square difference of the tokens, or of those that are kept.

    Args:
        student: (B, N, D).
        teacher: same shape.
        keep: indices of the tokens that count, int64 (B, n); None: all.
        detach_teacher: whether gradients flow into the student only.

    Returns:
        Scalar.
    """
    difference = at_least_float32(student) - _teacher(teacher, detach_teacher)
    if keep is not None:
        difference = difference.gather(1, keep[..., None].expand(-1, -1, difference.shape[2]))
    return difference.square().mean()


def num_kept(num_tokens: int, mask_ratio: float) -> int:
    """N - floor(ratio N) tokens, at least one."""
    return max(1, num_tokens - math.floor(mask_ratio * num_tokens + _ROUNDING))


def random_keep(tokens: Tensor, mask_ratio: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Tokens that stay if a share of them is left out at random, another one for each sample.

    Args:
        tokens: (B, N, D); only shape and device matter.
        mask_ratio: share left out, in [0, 1).
        generator: where the draws come from, on the tokens' device; None: PyTorch's own.

    Returns:
        indices, int64 (B, n), in ascending order.
    """
    draws = torch.rand(tokens.shape[:2], generator=generator, device=tokens.device)
    return important_keep(draws, mask_ratio)


def important_keep(scores: Tensor, mask_ratio: float) -> Tensor:
    """Tokens that stay if those with the lowest scores are left out; of equal ones the first stay.

    Args:
        scores: (B, N).
        mask_ratio: share left out, in [0, 1).

    Returns:
        indices, int64 (B, n), in ascending order.
    """
    order = scores.detach().argsort(dim=1, descending=True, stable=True)
    return order[:, : num_kept(scores.shape[1], mask_ratio)].sort(1).values


def norm_scores(tokens: Tensor) -> Tensor:
    """Length of each token, (B, N) of (B, N, D), without gradient."""
    return at_least_float32(tokens.detach()).norm(dim=2)


def peak_scores(heatmaps: Tensor) -> Tensor:
    """Largest value of each heatmap, (B, K) of (B, K, h, w), without gradient."""
    return at_least_float32(heatmaps.detach()).amax((2, 3))


def entropy_weights(
    heatmaps: Tensor, low: float, high: float, *, over: Literal["sample", "batch"] = "sample"
) -> Tensor:
    """Weights of the joints, the larger the less sure their heatmaps are.

    A joint's entropy is that of the softmax over its cells. From the 5 % quantile to the 95 % quantile of the
    joints the weight goes linearly from `low` to `high`.

    Args:
        heatmaps: of the teacher, (B, K, h, w).
        low: weight of the surest joint.
        high: weight of the least sure one.
        over: whose joints are compared: a sample's or all samples'.

    Returns:
        (B, K) without gradient.
    """
    log_p = at_least_float32(heatmaps.detach()).flatten(2).log_softmax(2)
    entropy = -(log_p.exp() * log_p).sum(2)
    compared = entropy if over == "sample" else entropy.view(1, -1)
    ends = compared.quantile(torch.tensor([SURE, UNSURE], dtype=entropy.dtype, device=entropy.device), dim=1)
    sure, unsure = ends[0, :, None], ends[1, :, None]
    share = (entropy.clamp(sure, unsure) - sure) / (unsure - sure + 1e-10)
    return low + share * (high - low)


def entropy_token_loss(
    student: Tensor,
    teacher: Tensor,
    weights: Tensor,
    *,
    visible: Tensor | None = None,
    floor: float = 0.0,
    detach_teacher: bool = True,
) -> Tensor:
    """Weighted mean of 1 - cosine of student and teacher.

    Args:
        student: (B, N, D).
        teacher: same shape.
        weights: of the joints, (B, K), as `entropy_weights` gives them; tokens that are not the joints' all
            get their mean.
        visible: weight of the joints' labels, (B, K); None: the loss is the plain mean of the weighted
            distances, else the mean over what is visible.
        floor: least value of `visible`.
        detach_teacher: whether gradients flow into the student only.

    Returns:
        Scalar; 0 if nothing is visible and the floor is 0.
    """
    similarity = F.cosine_similarity(at_least_float32(student), _teacher(teacher, detach_teacher), dim=2)
    distance = (1.0 - similarity) * _for_tokens(weights, similarity)
    if visible is None:
        return distance.mean()
    counted = _for_tokens(visible.clamp(min=floor), similarity)
    return (distance * counted).sum() / (counted.sum() + 1e-6)


def _teacher(tokens: Tensor, detach: bool) -> Tensor:
    return at_least_float32(tokens.detach() if detach else tokens)


def _for_tokens(values: Tensor, tokens: Tensor) -> Tensor:
    """Values of the joints (B, K) for the tokens (B, N): the joints' own, or their mean for all others."""
    values = values.detach().to(tokens)
    return values if values.shape == tokens.shape else values.mean(1, keepdim=True).expand_as(tokens)
