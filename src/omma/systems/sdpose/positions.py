"""Fixed sine and cosine positions of a grid of tokens (spec section 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 10_000.0


def sine_table(grid: tuple[int, int], dim: int) -> Tensor:
    """Positions (1, rows x columns, dim) float32, rows first; first features of rows, then of columns.

    Args:
        grid: (rows, columns) of tokens.
        dim: of a token, even.
    """
    half = dim // 2
    rates = RATE ** -(2 * (torch.arange(half, dtype=torch.float64) // 2) / half)
    sides = [2 * math.pi * torch.arange(1, count + 1, dtype=torch.float64) / (count + 1e-6) for count in grid]
    even = torch.arange(half) % 2 == 0
    waves = []
    for turn in torch.meshgrid(*sides, indexing="ij"):
        angles = turn[..., None] * rates
        waves.append(torch.where(even, angles.sin(), angles.cos()))
    return torch.cat(waves, -1).flatten(0, 1)[None].float()
