"""Losses between tokens of neighbouring views that look at the same place. Users: panollava.

VICReg (arXiv 2105.04906), VICRegL (arXiv 2210.01571) and DenseCL (arXiv 2011.09157) on panoramas. Shapes: B
batch, V views, S = H W tokens of a view row by row, D features, L matched tokens of a pair of views. Losses
are float32 at least, whatever autocast says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.core.losses import at_least_float32
from omma.core.panorama import TokenPairs, View, pair_tokens

Form = Literal["seed97", "aug31", "aug4e", "head"]
Scope = Literal["batchwise", "pairwise"]
Matches = Sequence[tuple[Tensor, Tensor]]
"""One entry a pair of views: tokens of the first and, matched with them, of the second, (B, L, D) each."""

VARIANCE_FLOOR = 1e-4  # under the square root
FEWEST_TOKENS = 10  # that a pair of views needs to count in vicreg_local
_NORM_EPS = 1e-5
_STANDARD_EPS = {"aug31": 1e-6, "aug4e": 1e-4}


class Terms(NamedTuple):
    """Parts of a VICReg loss, or their weights."""

    invariance: Tensor | float
    variance: Tensor | float
    covariance: Tensor | float


WEIGHTS = Terms(25.0, 25.0, 1.0)


def total(terms: Terms, weights: Terms = WEIGHTS) -> Tensor:
    """The weighted sum of the terms."""
    return torch.as_tensor(sum(weight * term for weight, term in zip(weights, terms, strict=True)))


class ColumnMatcher(nn.Module):
    """Pairs the right columns of each view with the left ones of the next by index, as the reference does.

    In perspective views that is wrong by a patch or more; `GeometricMatcher` pairs what belongs together.

    Args:
        joined: pairs of views, the second to the right of the first.
        grid: (H, W) of the tokens.
        overlap: share of the columns that is paired, at least one.
    """

    def __init__(self, joined: Sequence[tuple[int, int]], grid: tuple[int, int], overlap: float) -> None:
        super().__init__()
        self.joined = list(joined)
        self.grid = grid
        self.columns = max(1, int(grid[1] * overlap))

    def forward(self, tokens: Tensor) -> Matches:
        """Match tokens (B, V, S, D)."""
        cells = tokens.unflatten(2, self.grid)
        right, left = cells[:, :, :, -self.columns :], cells[:, :, :, : self.columns]
        return [(right[:, a].flatten(1, 2), left[:, b].flatten(1, 2)) for a, b in self.joined]


class GeometricMatcher(nn.Module):
    """Matches each token of a view with what the next view has at the place it looks at, between four tokens.

    Args:
        pairs: of `pair_tokens`.
        grid: (H, W) of the tokens.
    """

    def __init__(self, pairs: TokenPairs, grid: tuple[int, int]) -> None:
        super().__init__()
        self.joined = list(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))
        for index, valid in enumerate(pairs.valid):
            positions = torch.from_numpy(pairs.positions[index][valid])
            weights = bilinear_weights(positions, grid).float()
            self.register_buffer(f"weights_{index}", weights, persistent=False)
            self.register_buffer(f"tokens_{index}", torch.from_numpy(valid).nonzero()[:, 0], persistent=False)

    def forward(self, tokens: Tensor) -> Matches:
        """Match tokens (B, V, S, D)."""
        matches = []
        for index, (source, target) in enumerate(self.joined):
            weights = self.get_buffer(f"weights_{index}").to(tokens.dtype)
            first = tokens[:, source, self.get_buffer(f"tokens_{index}")]
            matches.append((first, weights @ tokens[:, target]))
        return matches


def token_matcher(
    views: Sequence[View | None],
    grid: tuple[int, int],
    *,
    pairing: Literal["geometry", "columns"] = "geometry",
    overlap: float = 0.5,
) -> ColumnMatcher | GeometricMatcher:
    """The module that finds tokens of neighbouring views which look at the same place.

    Args:
        views: of a panorama, in the order of the tokens.
        grid: (H, W) of a view's tokens.
        pairing: by direction or by index of columns.
        overlap: share of the columns paired by index.

    Raises:
        ConfigError: if there is one view only, or neighbours share no place.
    """
    pairs = pair_tokens(views, grid)
    if pairing == "geometry":
        return GeometricMatcher(pairs, grid)
    pitches = [None if view is None else view.pitch_deg for view in views]
    joined = zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)
    return ColumnMatcher([pair for pair in joined if pitches[pair[0]] == pitches[pair[1]]], grid, overlap)


def bilinear_weights(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much each of S tokens counts at positions (L, 2) of column and row, (L, S)."""
    columns, rows = (
        (1 - (positions[:, axis, None] - torch.arange(count)).abs()).clamp(min=0)
        for axis, count in enumerate(reversed(grid))
    )
    return (rows[:, :, None] * columns[:, None]).flatten(1)


def standardise(tokens: Tensor) -> Tensor:
    """Zero mean and unit variance in each feature over everything else, as the seed's reference did first.

    Args:
        tokens: (..., D), prefix tokens among them.
    """
    tokens = at_least_float32(tokens)
    others = tuple(range(tokens.ndim - 1))
    variance, mean = torch.var_mean(tokens, dim=others, correction=0)
    return (tokens - mean) / (variance + _NORM_EPS).sqrt()


def vicreg_terms(first: Tensor, second: Tensor, form: Form = "head") -> Terms:
    """VICReg of two matrices of matched features in the forms that the reference went through.

    Args:
        first: (N, D) with at least two rows, one in form "head".
        second: (N, D).
        form: "seed97" sums over both sides, "aug31" does so on standardised features, "aug4e" has only the
            invariance standardised, "head" takes means of both sides, with the biased variance.
    """
    first, second = at_least_float32(first), at_least_float32(second)
    compared = (first, second)
    if form in _STANDARD_EPS:
        eps = _STANDARD_EPS[form]
        compared = _standard(first, eps), _standard(second, eps)
    spread = compared if form == "aug31" else (first, second)
    share = 0.5 if form == "head" else 1.0
    correction = 0 if form == "head" else 1
    return Terms(
        F.mse_loss(*compared),
        share * sum(_variance(side, correction) for side in spread),
        share * sum(_covariance(side) for side in spread),
    )


def vicreg(matches: Matches, scope: Scope = "batchwise") -> Terms:
    """VICReg of matched tokens.

    Args:
        matches: of a matcher.
        scope: "batchwise" measures variance and covariance once over all matched tokens of both sides;
            "pairwise" in each pair of views of each sample, so that even a blank wall has to vary.
    """
    matches = [(at_least_float32(first), at_least_float32(second)) for first, second in matches]
    invariance = torch.stack([F.mse_loss(first, second) for first, second in matches]).mean()
    if scope == "batchwise":
        features = torch.cat([side.flatten(0, 1) for pair in matches for side in pair])
        return Terms(invariance, _variance(features, 0), _covariance(features))
    sides = [side for pair in matches for side in pair]
    variance = torch.stack([_variance(side, 0) for side in sides]).mean()
    return Terms(invariance, variance, torch.stack([_covariance(side) for side in sides]).mean())


def vicreg_local(matches: Matches, distance: Literal["l2", "cosine"] = "l2") -> Terms:
    """VICReg in each pair of views over the batch; pairs of fewer than ten tokens count only alone.

    Args:
        matches: of a matcher.
        distance: of matched tokens, squared or one less the cosine.

    Returns:
        terms whose covariance is a mean over all D D entries, so that it hardly depends on D.
    """
    counted = [pair for pair in matches if pair[0].shape[1] >= FEWEST_TOKENS] or matches
    terms = [_local_terms(first.flatten(0, 1), second.flatten(0, 1), distance) for first, second in counted]
    return Terms(*(torch.stack(list(part)).mean() for part in zip(*terms, strict=True)))


def dense_contrast(matches: Matches, temperature: float = 0.07) -> Tensor:
    """DenseCL: each token of a pair of views has to find its match among those of the whole batch, both ways.

    Args:
        matches: of a matcher; features that are all alike give log(B L).
        temperature: of the softmax over cosines.
    """
    losses = [
        _contrast(first.flatten(0, 1)[None], second.flatten(0, 1)[None], temperature)
        for first, second in matches
    ]
    return torch.stack(losses).mean()


def tile_contrast(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """Each token has to find itself among those of its view in another pass with other dropout, both ways.

    Args:
        first: (B, V, S, D) of one pass.
        second: (B, V, S, D) of another.
        temperature: of the softmax over cosines.
    """
    return _contrast(first.flatten(0, 1), second.flatten(0, 1), temperature)


def global_local(whole: Tensor, views: Tensor, distance: Literal["cosine", "l2"] = "cosine") -> Tensor:
    """Distance of the mean token of the whole panorama's picture from that of all views.

    Args:
        whole: (B, S, D).
        views: (B, V, S, D).
        distance: one less the cosine, or squared.
    """
    one, other = at_least_float32(whole).mean(1), at_least_float32(views).mean((1, 2))
    if distance == "l2":
        return F.mse_loss(one, other)
    return (1 - F.cosine_similarity(one, other, dim=-1)).mean()


def _local_terms(first: Tensor, second: Tensor, distance: str) -> Terms:
    first, second = at_least_float32(first), at_least_float32(second)
    apart = F.mse_loss(first, second)
    if distance == "cosine":
        apart = (1 - F.cosine_similarity(first, second, dim=-1)).mean()
    sides = (first, second)
    features = first.shape[-1]
    covariance = sum(_covariance(side) for side in sides) / features
    return Terms(apart, sum(F.relu(1 - side.std(0)).mean() for side in sides), covariance)


def _standard(features: Tensor, eps: float) -> Tensor:
    return (features - features.mean(0)) / (features.std(0) + eps)


def _variance(features: Tensor, correction: int) -> Tensor:
    """Mean lack of standard deviation below 1 over the last but one axis of (..., N, D)."""
    return F.relu(1 - (features.var(-2, correction=correction) + VARIANCE_FLOOR).sqrt()).mean()


def _covariance(features: Tensor) -> Tensor:
    """Squares of what is off the diagonal of the covariance of (..., N, D), summed, over D."""
    with torch.autocast(features.device.type, enabled=False):
        centred = features - features.mean(-2, keepdim=True)
        matrix = centred.mT @ centred / max(features.shape[-2] - 1, 1)
        squares = matrix.square()
        off = squares.sum((-2, -1)) - squares.diagonal(dim1=-2, dim2=-1).sum(-1)
        return (off / features.shape[-1]).mean()


def _contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross entropy of finding the match among the N of a group, both ways, of (G, N, D)."""
    first, second = at_least_float32(first), at_least_float32(second)
    with torch.autocast(first.device.type, enabled=False):
        cosines = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).mT
    right = torch.arange(cosines.shape[-1], device=cosines.device).expand(len(cosines), -1)
    logits = cosines / temperature
    return (F.cross_entropy(logits.mT, right) + F.cross_entropy(logits, right)) / 2
