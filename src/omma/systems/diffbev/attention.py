"""Attention between maps, with fixed sine and cosine positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 4

Size = tuple[int, int]


class MapAttention(nn.Module):
    """Multi-head attention from every cell of one map to every cell of another, or of itself.

    Both maps are layer-normalised; positions are added to what queries and keys are made of, not to values.

    Args:
        channels: of both maps and of the result; divided among 4 heads, or fewer where 4 does not divide it.
        size: (height, width) of the asking map.
        stride: cells of the asking map along a side of a cell of the map that answers; sizes round up.
    """

    query_positions: Tensor
    memory_positions: Tensor

    def __init__(self, channels: int, size: Size, stride: int = 1) -> None:
        super().__init__()
        self.heads = math.gcd(channels, HEADS)
        self.query_norm, self.memory_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for name, step in {"query": 1, "memory": stride}.items():
            positions = sincos_positions(size, channels, step)
            self.register_buffer(f"{name}_positions", positions, persistent=False)

    def forward(self, asking: Tensor, memory: Tensor) -> Tensor:
        """(B, C, H, W) from `asking` (B, C, H, W) and `memory` (B, C, h, w)."""
        query_tokens = self.query_norm(_tokens(asking)) + self.query_positions
        values = self.memory_norm(_tokens(memory))
        query, key = self.query(query_tokens), self.key(values + self.memory_positions)
        query, key, value = (self._split(part) for part in (query, key, self.value(values)))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.proj(mixed).transpose(1, 2).unflatten(2, tuple(asking.shape[-2:]))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def sincos_positions(size: Size, channels: int, step: int = 1) -> Tensor:
    """Positions (1, cells, channels), rows first: half the channels tell the row, half the column.

    Args:
        size: (height, width) of the map whose cells are the unit.
        channels: of the tokens they are added to.
        step: side of a cell of the coarser map that is meant; its last row and column may stick out.
    """
    quarter = -(-channels // 4)
    rates = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    centres = [torch.arange(step / 2, cells + step / 2, step, dtype=torch.float64) for cells in size]
    waves = []
    for position in torch.meshgrid(*centres, indexing="ij"):
        angles = position[..., None] * rates
        waves += [angles.sin(), angles.cos()]
    return torch.cat(waves, -1)[..., :channels].flatten(0, 1)[None].float()


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)
