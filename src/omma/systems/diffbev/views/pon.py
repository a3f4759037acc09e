"""Dense transformer pyramid of PON (Roddick and Cipolla, arXiv 2003.13402) over a feature pyramid.

Each level of the pyramid sees one range of depths: coarse features the near, fine ones the far. A level's
features between ground and roof height become, column by column, a row of features along depth, which is
then drawn into the plane where the camera's rays run. Module names are those of the reference.
Shapes: B batch, C channels, (h, w) feature map, (Z, X) cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.core.grid import BevGrid, Bounds
from omma.systems.diffbev.views import ViewOutput

PYRAMID_CHANNELS = 256
NUM_LEVELS = 5
STRIDE = 8  # of the finest level
GROUPS = 16
HEIGHT_M = (-2.0, 4.0)  # range of heights, y down, that a level reads
FOCAL = 630.0  # in pixels, that the published levels are laid out for
EDGE = 1.1  # sampling positions stop that far out: there only zeros are


class ConvOnly(nn.Module):
    """A convolution by itself, named as published checkpoints name it.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: 1 or 3; the size is kept.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H, W) of (B, in, H, W)."""
        return self.conv(x)


class FeaturePyramid(nn.Module):
    """Maps of one width, the fine ones enriched by the coarse ones.

    Args:
        in_channels: of the maps that come in, from fine to coarse.
        out_channels: of all that go out.
        num_levels: maps that go out; those beyond the incoming ones are every second cell of the one before.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_levels: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.lateral_convs = nn.ModuleList(ConvOnly(channels, out_channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList(ConvOnly(out_channels, out_channels, 3) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """`num_levels` maps (B, out, h, w), each half the size of the one before."""
        maps = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for fine in range(len(maps) - 1, 0, -1):
            coarse = F.interpolate(maps[fine], maps[fine - 1].shape[2:])
            maps[fine - 1] = maps[fine - 1] + coarse
        levels = [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=True)]
        while len(levels) < self.num_levels:
            levels.append(levels[-1][:, :, ::2, ::2])
        return levels


class LevelTransformer(nn.Module):
    """One level: image columns to rows along depth, and these to cells.

    Args:
        in_channels: of the level's features.
        channels: C.
        x: cells along camera x.
        z: this level's cells along camera z.
        stride: of the level's features.
        focal: focal length in pixels of the network's input that the height of the crop is made for.
    """

    positions: Tensor

    def __init__(
        self, in_channels: int, channels: int, *, x: Bounds, z: Bounds, stride: int, focal: float
    ) -> None:
        super().__init__()
        self.z, self.stride = z, stride
        low, high = HEIGHT_M
        self.height = math.ceil((high - low) * (focal / stride) / z[0])
        grid = BevGrid(z, x, z)
        self.rows = grid.nx[0]
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.bn = nn.GroupNorm(GROUPS, channels)
        self.fc = nn.Conv1d(channels * self.height, channels * self.rows, 1)
        corners = torch.meshgrid(
            z[0] + z[2] * torch.arange(self.rows), x[0] + x[2] * torch.arange(grid.nx[1]), indexing="ij"
        )
        self.register_buffer("positions", torch.stack(corners), persistent=False)

    def forward(self, features: Tensor, intrinsics: Tensor) -> Tensor:
        """(B, C, rows, X), float32, of features (B, in, h, w) and intrinsics (B, 3, 3) of the input."""
        scaled = intrinsics[:, :2].float() / self.stride
        band = self._crop(features, scaled)
        band = F.relu(self.bn(self.conv(band)))
        along_depth = self.fc(band.flatten(1, 2)).unflatten(1, (-1, self.rows))
        where = self._where(scaled, features.shape[3])
        return F.grid_sample(along_depth.float(), where, align_corners=False)

    def _crop(self, features: Tensor, scaled: Tensor) -> Tensor:
        """The `height` rows of each image around the middle of `HEIGHT_M`, zeros where there are none."""
        middle = scaled[:, 1, 1] * (sum(HEIGHT_M) / 2) / self.z[0] + scaled[:, 1, 2]
        first = (middle - self.height / 2).floor().long()
        rows = first[:, None] + torch.arange(self.height, device=first.device)
        inside = (rows >= 0) & (rows < features.shape[2])
        index = rows.clamp(0, features.shape[2] - 1)[:, None, :, None]
        index = index.expand(-1, features.shape[1], -1, features.shape[3])
        return features.gather(2, index) * inside[:, None, :, None]

    def _where(self, scaled: Tensor, width: int) -> Tensor:
        """Sampling position (u, depth) of every cell in -1 ... 1, (B, rows, X, 2)."""
        z, x = self.positions
        focal, centre = (scaled[:, 0, column, None, None] for column in (0, 2))
        u = (focal * x + centre * z) / z / width * 2 - 1
        depth = (z - self.z[0]) / (self.z[1] - self.z[0]) * 2 - 1
        return torch.stack([u, depth.expand_as(u)], dim=-1).clamp(-EDGE, EDGE)


class TransformerPyramid(nn.Module):
    """The levels, their cells put together from near to far.

    Args:
        in_channels: of all levels' features.
        channels: C.
        x: cells along camera x.
        z: cells along camera z.
        focal: focal length in pixels of the network's input that the levels are laid out for.
    """

    def __init__(self, in_channels: int, channels: int, *, x: Bounds, z: Bounds, focal: float) -> None:
        super().__init__()
        self.levels = level_ranges(z, focal)
        self.transformers = nn.ModuleList(
            LevelTransformer(in_channels, channels, x=x, z=bounds, stride=STRIDE * 2**level, focal=focal)
            for level, bounds in self.levels
        )

    def forward(self, maps: Sequence[Tensor], intrinsics: Tensor) -> Tensor:
        """(B, C, Z, X) of the pyramid's maps (B, in, h, w), fine to coarse, and intrinsics (B, 3, 3)."""
        parts = [
            transformer(maps[level], intrinsics)
            for (level, _), transformer in zip(self.levels, self.transformers, strict=True)
        ]
        return torch.cat(parts[::-1], dim=2)


class PonView(nn.Module):
    """Feature pyramid, then transformer pyramid.

    Args:
        in_channels: of the image features of strides 8, 16 and 32.
        channels: of the result.
        x: cells along camera x (right), (low, high, step) in metres.
        z: cells along camera z (forward).
        focal: focal length in pixels of the network's input that the levels are laid out for.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        x: Bounds,
        z: Bounds,
        focal: float = FOCAL,
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.fpn = FeaturePyramid(in_channels, PYRAMID_CHANNELS, NUM_LEVELS)
        self.pyramid = TransformerPyramid(PYRAMID_CHANNELS, channels, x=x, z=z, focal=focal)

    def forward(self, features: list[Tensor], intrinsics: Tensor) -> ViewOutput:
        """Features (B, C, Z, X) of maps of strides 8, 16 and 32 and intrinsics (B, 3, 3)."""
        return ViewOutput(self.pyramid(self.fpn(features), intrinsics))


def level_ranges(z: Bounds, focal: float) -> list[tuple[int, Bounds]]:
    """Pyramid level and depths (low, high, step) in metres of every level that has any, fine and far first.

    A level reaches from where one cell covers one of its pixels to twice as far; the last begins at the
    camera.
    """
    low, _, step = z
    num_cells = BevGrid(z, z, z).nx[0]

    def cells_up_to(pixels: float) -> int:
        return min(max(math.floor(math.floor(pixels) - low / step + 1e-6), 0), num_cells)

    ranges = []
    for level in range(NUM_LEVELS):
        pixels = focal / (STRIDE * 2**level)
        first = 0 if level + 1 == NUM_LEVELS else cells_up_to(pixels)
        end = num_cells if level == 0 else cells_up_to(2 * pixels)
        if end > first:
            ranges.append((level, (low + first * step, low + end * step, step)))
    return ranges
