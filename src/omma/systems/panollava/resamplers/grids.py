"""Layers over the grid of a view's tokens: pooling, and the C-Abstractor (arXiv 2312.06742)."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.panollava.resamplers.tokenwise import TokenMlp

Size = tuple[int, int]
GridPooling = Literal["mean", "max", "conv"]
_NORM_EPS = 1e-6
_KERNEL = 7
_SQUEEZE = 4


class SpatialPool(nn.Module):
    """Fewer tokens by pooling over the grid, then token-wise layers.

    Args:
        in_width: features of a token that comes in.
        width: of one that goes out.
        stride: rows and columns that become one; what is left over at the end is dropped.
        pooling: how they are taken together.
    """

    def __init__(self, in_width: int, width: int, *, stride: int = 4, pooling: GridPooling = "mean") -> None:
        super().__init__()
        self.width, self.stride = width, stride
        pools: dict[GridPooling, nn.Module] = {"mean": nn.AvgPool2d(stride), "max": nn.MaxPool2d(stride)}
        self.pool = pools[pooling] if pooling in pools else nn.Conv2d(in_width, in_width, stride, stride)
        self.mlp = TokenMlp(in_width, width, hidden=max(in_width, width))

    def out_grid(self, grid: Size) -> Size | None:
        """Grid of the tokens that go out.

        Raises:
            ConfigError: none would be left.
        """
        if min(grid) < self.stride:
            raise ConfigError(
                f"a view has {grid[0]} x {grid[1]} tokens, fewer than system.resampler.stride={self.stride}",
                hint="lower the stride or raise data.views.image_size",
            )
        return grid[0] // self.stride, grid[1] // self.stride

    def count(self, grid: Size) -> int:
        """Tokens of a view that go out."""
        return math.prod(self.out_grid(grid) or ())

    def forward(self, tokens: Tensor, grid: Size) -> Tensor:
        """Tokens (N, S', width) from (N, S, in_width), row by row of the grid (rows, columns)."""
        return self.mlp(self.pool(_as_image(tokens, grid)).flatten(2).mT)


class CAbstractor(nn.Module):
    """Convolutional blocks over the grid, with pooling between them.

    Args:
        in_width: features of a token that comes in.
        width: of one that goes out.
        hidden: of the blocks.
        depth: blocks before the pooling, and as many after it.
        queries: tokens that go out, a square number; None: as many as come in.
        expansion: of a block's hidden features.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        hidden: int,
        depth: int = 2,
        queries: int | None = None,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.width = width
        self.side = None if queries is None else math.isqrt(queries)
        if queries is not None and self.side is not None and self.side**2 != queries:
            raise ConfigError(
                f"system.resampler.queries={queries} is no square number", hint="such as 16 or 49"
            )
        self.input_proj = nn.Linear(in_width, hidden)
        self.stage1 = nn.Sequential(*(_Block(hidden, expansion) for _ in range(depth)))
        self.stage2 = nn.Sequential(*(_Block(hidden, expansion) for _ in range(depth)))
        self.norm = nn.LayerNorm(hidden)
        self.readout = nn.Sequential(nn.Linear(hidden, width), nn.SiLU(), nn.Linear(width, width))

    def out_grid(self, grid: Size) -> Size | None:
        """Grid of the tokens that go out."""
        return grid if self.side is None else (self.side, self.side)

    def count(self, grid: Size) -> int:
        """Tokens of a view that go out."""
        return math.prod(grid if self.side is None else (self.side, self.side))

    def forward(self, tokens: Tensor, grid: Size) -> Tensor:
        """Tokens (N, S', width) from (N, S, in_width), row by row of the grid (rows, columns)."""
        image = self.stage1(_as_image(self.input_proj(tokens), grid))
        if self.side is not None:
            image = F.adaptive_avg_pool2d(image, self.side)
        return self.readout(self.norm(self.stage2(image).flatten(2).mT))


class _Block(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * width
        self.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.expand, self.contract = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.squeeze = nn.Sequential(
            nn.Linear(inner, inner // _SQUEEZE), nn.ReLU(), nn.Linear(inner // _SQUEEZE, inner), nn.Sigmoid()
        )

    def forward(self, image: Tensor) -> Tensor:
        normed = self.norm(self.depthwise(image).movedim(1, -1)).movedim(-1, 1)
        inner = F.silu(self.expand(normed))
        gate = self.squeeze(inner.mean((2, 3)))
        return image + self.contract(inner * gate[:, :, None, None])


def _as_image(tokens: Tensor, grid: Size) -> Tensor:
    return tokens.mT.unflatten(2, grid)
