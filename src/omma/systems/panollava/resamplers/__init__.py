"""From the tower's tokens to those that the projector takes: a module for each `system.resampler.name`.

All take tokens (N, S, in_width) of N views with their grid (rows, columns), row by row, to (N, S', width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omma.systems.panollava.resamplers.grids import CAbstractor, SpatialPool
from omma.systems.panollava.resamplers.mamba import BiMamba
from omma.systems.panollava.resamplers.queries import Perceiver, QFormer
from omma.systems.panollava.resamplers.tokenwise import TokenMlp

if TYPE_CHECKING:
    from omma.systems.panollava.config import (
        GridResampler,
        MambaResampler,
        MlpResampler,
        QueryResampler,
    )

    Section = MlpResampler | QueryResampler | GridResampler | MambaResampler

Resampler = TokenMlp | Perceiver | QFormer | SpatialPool | CAbstractor | BiMamba
_DEEP_HIDDEN = 1536  # hidden features of more than two layers, as published


def build_resampler(settings: Section, in_width: int) -> Resampler:
    """The resampler that a recipe describes.

    Args:
        settings: `system.resampler`.
        in_width: features of the tower's tokens.
    """
    if settings.name == "mlp":
        usual = settings.width if settings.depth == 2 else _DEEP_HIDDEN
        return TokenMlp(
            in_width,
            settings.width,
            hidden=settings.hidden or usual,
            depth=settings.depth,
            norm=settings.norm,
            pool_tokens=settings.pool_tokens,
            pooling=settings.pooling,
        )
    if settings.name == "bimamba":
        return BiMamba(
            in_width,
            settings.width,
            hidden=settings.hidden,
            depth=settings.depth,
            state=settings.state,
            dropout=settings.dropout,
        )
    if settings.name == "spatial_pool":
        return SpatialPool(in_width, settings.width, stride=settings.stride, pooling=settings.pooling)
    if settings.name == "c_abstractor":
        hidden = settings.hidden or settings.width
        return CAbstractor(
            in_width, settings.width, hidden=hidden, depth=settings.depth, queries=settings.queries
        )
    sizes = {"queries": settings.queries, "depth": settings.depth, "heads": settings.heads}
    if settings.name == "perceiver":
        return Perceiver(in_width, settings.width, **sizes)
    return QFormer(in_width, settings.width, **sizes, causal=settings.causal)
