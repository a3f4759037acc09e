"""Layers that take each token by itself, as published at first, and wherever a small head is needed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
Norm = Literal["batch", "layer", "none"]
Pooling = Literal["mean", "max"]


class _TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over all tokens of all views."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, S, D)."""
        return super().forward(tokens.flatten(0, -2)).view(tokens.shape)


class TokenMlp(nn.Module):
    """Linear layers with a norm and GELU between; fewer tokens by pooling if wanted.

    Args:
        in_width: features of a token that comes in.
        width: of one that goes out.
        hidden: of the layers between.
        depth: linear layers.
        norm: after each but the last.
        pool_tokens: tokens of a view that go out; None: as many as come in.
        pooling: how they are taken together.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        hidden: int,
        depth: int = 2,
        norm: Norm = "layer",
        pool_tokens: int | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.width, self.pool_tokens, self.pooling = width, pool_tokens, pooling
        widths = [in_width, *[hidden] * (depth - 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), *_norms(norm, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], width))

    def out_grid(self, grid: Size) -> Size | None:
        """Grid of the tokens that go out; None: they have none."""
        return grid if self.pool_tokens is None else None

    def count(self, grid: Size) -> int:
        """Tokens of a view that go out."""
        return self.pool_tokens or math.prod(grid)

    def forward(self, tokens: Tensor, grid: Size | None = None) -> Tensor:
        """Tokens (N, S', width) from (N, S, in_width); the grid does not matter."""
        tokens = self.layers(tokens)
        if self.pool_tokens is None:
            return tokens
        pool = F.adaptive_avg_pool1d if self.pooling == "mean" else F.adaptive_max_pool1d
        return pool(tokens.mT, self.pool_tokens).mT


def _norms(norm: Norm, width: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [_TokenBatchNorm(width) if norm == "batch" else nn.LayerNorm(width)]
