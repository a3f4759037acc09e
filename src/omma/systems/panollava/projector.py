"""From the tokens of all views to words of the language model, in one order and without doubles if wanted.

Shapes: B panoramas, V views of S = H * W tokens, N words, D features of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from omma.core.panorama_positions import DirectionCode, column_code
from omma.errors import ConfigError

if TYPE_CHECKING:
    from omma.core.panorama import View

Size = tuple[int, int]
Stitch = Literal["views", "concat", "stride_views", "resample"]
Position = Literal["none", "direction", "columns"]


class Projector(nn.Module):
    """A linear layer on tokens that know where they look, and their order.

    The whole panorama's tokens come first. Those of a ring of views follow, ring after ring: "views" one view
    after the other; the others row by row over the ring's strip, "concat" with every column, "stride_views"
    without the columns that a view repeats of the one before, "resample" with the mean of doubled columns.

    Args:
        in_width: D.
        width: of the language model's words.
        views: where they look; None is the whole panorama.
        grid: (H, W) of a view's tokens; None: they have none, such as queries.
        stitch: order of the words.
        overlap: share of a view that the next one repeats.
        pool: rows and columns of tokens that become one word, by their mean.
        position: "direction" adds a learned code of a token's direction, which is zero at first; "columns"
            the reference's fixed one.

    Raises:
        ConfigError: tokens without a grid are to be pooled or stitched, or the pooling leaves none.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        views: Sequence[View | None],
        grid: Size | None,
        stitch: Stitch = "views",
        overlap: float = 0.5,
        pool: int = 1,
        position: Position = "direction",
    ) -> None:
        super().__init__()
        _check_grid(grid, stitch, pool, position)
        self.pool, self.stitch, self.overlap = pool, stitch, overlap
        self.in_grid = grid
        self.grid = None if grid is None else (grid[0] // pool, grid[1] // pool)
        self.rings = ring_lengths(views)
        self.whole = sum(view is None for view in views)
        self.linear = nn.Linear(in_width, width)
        self.code = DirectionCode(in_width) if position == "direction" else None
        columns = torch.zeros(0)
        if position == "columns" and self.grid is not None:
            codes = [column_code(count, self.grid, in_width, overlap=overlap) for count in self.rings]
            columns = torch.cat(codes)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, tokens: Tensor, directions: Tensor) -> Tensor:
        """Words (B, N, width).

        Args:
            tokens: (B, V, S, D).
            directions: unit vectors to the middles of the pooled tokens, (V, S', 3); zero for the whole
                panorama.
        """
        tokens = self._pooled(tokens)
        if self.code is not None:
            tokens = tokens + self.code(directions)
        if len(self.columns):
            tokens = torch.cat([tokens[:, : self.whole], tokens[:, self.whole :] + self.columns], dim=1)
        return self._arranged(self.linear(tokens))

    def count(self, tokens_of_view: int) -> int:
        """N, the words of a panorama.

        Args:
            tokens_of_view: S.
        """
        tokens = torch.zeros(1, self.whole + sum(self.rings), tokens_of_view, 1)
        return self._arranged(self._pooled(tokens)).shape[1]

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Means of squares of tokens; rows and columns left over at the end are dropped."""
        if self.pool == 1 or self.in_grid is None or self.grid is None:
            return tokens
        rows, columns = self.grid
        image = tokens.unflatten(2, self.in_grid)[:, :, : rows * self.pool, : columns * self.pool]
        squares = image.unflatten(3, (columns, self.pool)).unflatten(2, (rows, self.pool))
        return squares.mean((3, 5)).flatten(2, 3)

    def _arranged(self, words: Tensor) -> Tensor:
        if self.stitch == "views" or self.grid is None:
            return words.flatten(1, 2)
        repeated = round(self.grid[1] * self.overlap)
        rings = words[:, self.whole :].unflatten(2, self.grid).split(self.rings, dim=1)
        strips = [_STITCHES[self.stitch](ring, repeated) for ring in rings]
        return torch.cat([words[:, : self.whole].flatten(1, 2), *strips], dim=1)


def ring_lengths(views: Sequence[View | None]) -> list[int]:
    """Views in each ring: those of one pitch that follow one another.

    Raises:
        ConfigError: a view of the whole panorama is not at the start.
    """
    looking = [view for view in views if view is not None]
    if any(view is None for view in views[len(views) - len(looking) :]):
        raise ConfigError("the whole panorama is a view behind others", hint="it has to come first")
    return [len(list(ring)) for _, ring in groupby(looking, key=lambda view: view.pitch_deg)]


def _check_grid(grid: Size | None, stitch: Stitch, pool: int, position: Position) -> None:
    hint = "choose system.resampler.name=mlp, or system.projector.stitch=views, pool=1 and position=direction"
    if grid is None and (stitch != "views" or pool != 1 or position == "columns"):
        raise ConfigError("the resampler's tokens have no grid, which stitching and pooling need", hint)
    if grid is not None and min(grid) < pool:
        raise ConfigError(f"system.projector.pool={pool} of {grid[0]} x {grid[1]} tokens leaves none", hint)


def _concat(ring: Tensor, repeated: int) -> Tensor:
    return ring.transpose(1, 2).flatten(1, 3)


def _stride_views(ring: Tensor, repeated: int) -> Tensor:
    parts = [view[:, :, repeated * (index > 0) :] for index, view in enumerate(ring.unbind(1))]
    return torch.cat(parts, dim=2).flatten(1, 2)


def _resample(ring: Tensor, repeated: int) -> Tensor:
    step = ring.shape[3] - repeated
    width = step * (ring.shape[1] - 1) + ring.shape[3]
    total = ring.new_zeros((*ring.shape[:1], ring.shape[2], width, ring.shape[4]))
    times = ring.new_zeros(width, 1)
    for index, view in enumerate(ring.unbind(1)):
        columns = slice(index * step, index * step + ring.shape[3])
        total[:, :, columns] = total[:, :, columns] + view
        times[columns] += 1
    return (total / times.clamp(min=1)).flatten(1, 2)


_STITCHES: dict[Stitch, Callable[[Tensor, int], Tensor]] = {
    "concat": _concat,
    "stride_views": _stride_views,
    "resample": _resample,
}
