"""How alike neighbouring views are where they overlap, and how rich their tokens are. Users: panollava.

Shapes: B batch, V views, S tokens of a view, D features; matches are those of `overlap_losses`. Nothing here
has a gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from omma.core.losses import at_least_float32
from omma.core.overlap_losses import Matches

_TINY = 1e-12


@torch.no_grad()
def consistency(tokens: Tensor, matches: Matches, whole: Tensor | None = None) -> dict[str, float]:
    """All measures of tokens by name.

    Args:
        tokens: (B, V, S, D), without those of the whole panorama.
        matches: of the tokens, from a matcher.
        whole: tokens of the whole panorama's picture, (B, S, D), if there is one.

    Returns:
        overlap_cosine, overlap_mse, overlap_cka and overlap_retrieval of matched tokens; token_std over the
        features; effective_rank of the views' means; opposite_cka; with two samples or more view_position;
        with `whole` also whole_cosine and, from two samples, whole_cka.
    """
    tokens = at_least_float32(tokens)
    means = tokens.mean(2)
    measures = overlap_measures(matches)
    measures["token_std"] = float(tokens.std(-1).mean())
    measures["effective_rank"] = effective_rank(means.flatten(0, 1))
    if tokens.shape[1] > 1:
        measures["opposite_cka"] = opposite_cka(tokens)
    if len(tokens) > 1:
        measures["view_position"] = position_accuracy(means)
    if whole is not None:
        one, all_views = at_least_float32(whole).mean(1), means.mean(1)
        measures["whole_cosine"] = float(F.cosine_similarity(one, all_views, dim=-1).mean())
        if len(tokens) > 1:
            measures["whole_cka"] = linear_cka(one, all_views)
    return measures


@torch.no_grad()
def overlap_measures(matches: Matches) -> dict[str, float]:
    """Cosine, mean square difference, linear CKA and retrieval of matched tokens; see `consistency`."""
    first, second = (
        at_least_float32(torch.cat([pair[side].flatten(0, 1) for pair in matches])) for side in (0, 1)
    )
    return {
        "overlap_cosine": float(F.cosine_similarity(first, second, dim=-1).mean()),
        "overlap_mse": float(F.mse_loss(first, second)),
        "overlap_cka": linear_cka(first, second),
        "overlap_retrieval": retrieval_accuracy(matches),
    }


@torch.no_grad()
def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment (arXiv 1905.00414) of features (N, D) and (N, D'), 0 to 1."""
    first, second = (side.double() - side.double().mean(0) for side in (first, second))
    alike = (first.T @ second).square().sum()
    return float(alike / ((first.T @ first).norm() * (second.T @ second).norm()).clamp(min=_TINY))


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of (N, D), from 1 to min(N, D)."""
    values = torch.linalg.svdvals(at_least_float32(features))
    shares = values / values.sum().clamp(min=_TINY)
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def opposite_cka(tokens: Tensor) -> float:
    """Mean linear CKA of the tokens (B, V, S, D) of each view of a ring and of the view V // 2 further."""
    half = tokens.shape[1] // 2
    pairs = [
        linear_cka(tokens[:, view].flatten(0, 1), tokens[:, view + half].flatten(0, 1))
        for view in range(half)
    ]
    return sum(pairs) / len(pairs)


@torch.no_grad()
def position_accuracy(means: Tensor) -> float:
    """Share of views put in their place by the other samples' mean views, chance 1 / V.

    Args:
        means: mean token of each view, (B, V, D), of two samples or more.
    """
    means = at_least_float32(means)
    others = (means.sum(0) - means) / (len(means) - 1)
    alike = F.normalize(means, dim=-1) @ F.normalize(others, dim=-1).mT
    found = [linear_sum_assignment(sample.cpu().numpy(), maximize=True) for sample in alike]
    return float(sum((rows == columns).mean() for rows, columns in found) / len(found))


@torch.no_grad()
def retrieval_accuracy(matches: Matches) -> float:
    """Share of tokens whose match is, by cosine, the nearest of all matched of that view, both ways."""
    shares = []
    for first, second in matches:
        cosines = (
            F.normalize(at_least_float32(first), dim=-1) @ F.normalize(at_least_float32(second), dim=-1).mT
        )
        right = torch.arange(cosines.shape[-1], device=cosines.device)
        shares += [(cosines.argmax(axis) == right).float().mean() for axis in (1, 2)]
    return float(torch.stack(shares).mean())
