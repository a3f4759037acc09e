"""Codes that tell tokens of a panorama's views where they look. Users: panollava.

Shapes: V views, S = H W tokens of a view row by row, D features. `DirectionCode` follows the true direction
of every token; the others are the reference's, for its checkpoints and results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.core.panorama import View, view_rays

YAW_HARMONICS, PITCH_HARMONICS = 8, 4


def token_directions(views: Sequence[View | None], grid: tuple[int, int]) -> Tensor:
    """Unit vectors to the middles of tokens; zero for the whole panorama, which looks everywhere.

    Args:
        views: of a panorama.
        grid: (H, W) of a view's tokens.

    Returns:
        float32 (V, S, 3): right, up, ahead.
    """
    directions = np.zeros((len(views), grid[0] * grid[1], 3))
    for index, view in enumerate(views):
        if view is not None:
            rays = view_rays(view, grid).reshape(-1, 3)
            directions[index] = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    return torch.from_numpy(directions).float()


def direction_features(directions: Tensor) -> Tensor:
    """Waves around the horizon and along the meridian, without a seam at the back or at the poles.

    Args:
        directions: unit or zero vectors (..., 3).

    Returns:
        (..., 2 YAW_HARMONICS + 2 PITCH_HARMONICS), zero for zero vectors.
    """
    x, y, z = directions.unbind(-1)
    across = torch.hypot(x, z)
    yaw = torch.atan2(x, z)[..., None] * torch.arange(1, YAW_HARMONICS + 1, device=x.device)
    pitch = torch.atan2(y, across)[..., None] * torch.arange(1, PITCH_HARMONICS + 1, device=x.device)
    around, along = across[..., None], directions.norm(dim=-1, keepdim=True)
    return torch.cat(
        [around * yaw.sin(), around * yaw.cos(), along * pitch.sin(), along * pitch.cos()], dim=-1
    )


class DirectionCode(nn.Module):
    """Code of the direction of each token, closed at its start so that a network without it stays the same.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * (YAW_HARMONICS + PITCH_HARMONICS), width, bias=False)
        # features of a direction near the horizon have this many squares: the code has unit variance there
        nn.init.normal_(self.proj.weight, std=(YAW_HARMONICS + PITCH_HARMONICS) ** -0.5)
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, directions: Tensor) -> Tensor:
        """The code (..., D) of directions (..., 3)."""
        return self.gate * self.proj(direction_features(directions))


class SphereFourier(nn.Module):
    """The reference's learned code of points on the unit sphere.

    Args:
        width: D.
        bands: frequencies 1, 2, 4, ... half turns.
    """

    def __init__(self, width: int, bands: int = 8) -> None:
        super().__init__()
        self.bands = bands
        self.proj = nn.Linear(3 + 6 * bands, width)

    def forward(self, points: Tensor) -> Tensor:
        """The code (..., D) of points (..., 3)."""
        angles = points[..., None] * (math.pi * 2.0 ** torch.arange(self.bands, device=points.device))
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.proj(torch.cat([points, waves.flatten(-2)], dim=-1))


def reference_points(num_views: int, grid: tuple[int, int], overlap: float) -> Tensor:
    """Where the reference takes tokens to lie on the sphere: columns spread evenly, rows from pole to pole.

    Args:
        num_views: V.
        grid: (H, W) of a view's tokens.
        overlap: share of a view that the next one repeats.

    Returns:
        float32 (V, S, 3).
    """
    columns, length = _strip_columns(num_views, grid, overlap)
    longitude = 2 * math.pi * columns[:, None] / length
    latitude = (((torch.arange(grid[0]) + 0.5) / grid[0] - 0.5) * math.pi)[None, :, None]
    across = latitude.cos()
    points = [
        across * longitude.cos(),
        latitude.sin().expand(num_views, -1, grid[1]),
        across * longitude.sin(),
    ]
    return torch.stack(points, dim=-1).flatten(1, 2).float()


def column_code(
    num_views: int,
    grid: tuple[int, int],
    width: int,
    *,
    overlap: float = 0.5,
    spatial: bool = True,
) -> Tensor:
    """The reference's fixed code of columns on the unrolled strip of views, which does not close at the back.

    Args:
        num_views: V.
        grid: (H, W) of a view's tokens.
        width: D.
        overlap: share of a view that the next one repeats; 0 for the reference's code without continuity.
        spatial: whether rows and columns are coded too, besides the turn.

    Returns:
        float32 (V, S, D).
    """
    columns, length = _strip_columns(num_views, grid, overlap)
    code = _waves(2 * math.pi * columns / length, width)[:, None]
    if spatial:
        code = code + _waves(columns, width)[:, None] + _waves(torch.arange(grid[0]), width)[None, :, None]
    return code.expand(-1, grid[0], -1, -1).flatten(1, 2).float()


def strip_ids(num_views: int, grid: tuple[int, int], overlap: float, *, closed: bool) -> Tensor:
    """The reference's position ids of image tokens for language models with three axes (PanoRoPE).

    Args:
        num_views: V.
        grid: (H, W) of a view's tokens.
        overlap: share of a view that the next one repeats.
        closed: whether columns start anew after a full turn.

    Returns:
        int64 (3, V S): number of the view, row, column on the unrolled strip.
    """
    advance = grid[1] * (1 - overlap)
    view, row, column = torch.meshgrid(
        torch.arange(num_views), torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij"
    )
    column = (view.double() * advance + column).round().long()
    column = column % round(num_views * advance) if closed else column
    return torch.stack([view, row, column]).flatten(1)


def shifted_ids(ids: Tensor, image: Tensor, tokens_per_view: int, *, overlap: float, whole: bool) -> Tensor:
    """The reference's position ids for language models with one axis, where views lie closer by the overlap.

    Args:
        ids: plain position ids, int64 (B, L).
        image: which of them belong to tokens of views, bool (B, L).
        tokens_per_view: S.
        overlap: share of a view that the next one repeats.
        whole: whether the first view is the whole panorama's picture.

    Returns:
        int64 (B, L); ids of the last views may be those of text after them, as in the reference.
    """
    view = (image.cumsum(-1) - 1) // tokens_per_view - int(whole)
    shift = (view.clamp(min=0).double() * (1 - overlap) * tokens_per_view).round().long()
    return ids + shift * image


def _strip_columns(num_views: int, grid: tuple[int, int], overlap: float) -> tuple[Tensor, float]:
    """Place of each column in views, float64 (V, W), and what the reference takes for a full turn."""
    start = torch.arange(num_views, dtype=torch.float64)[:, None] * (1 - overlap)
    return start + torch.arange(grid[1], dtype=torch.float64) / grid[1], num_views - (num_views - 1) * overlap


def _waves(positions: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    half = width // 2
    angles = positions[..., None] * temperature ** (-2 * torch.arange(half, dtype=torch.float64) / width)
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width - 2 * half))
