"""Lift-splat-shoot of one camera (Philion and Fidler, arXiv 2008.05711), in the camera's own frame.

Shapes: B batch, D depths, C channels, (h, w) feature map of stride 32, (Z, X) grid: row 0 nearest, column 0
leftmost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omma.core.geometry import PixelGrid, Rounding, feature_pixels, frustum_cells, frustum_points, pixel_rays
from omma.core.grid import BevGrid, Bounds, depth_bins
from omma.core.lift import PlanCache, SplatPlan, lift_splat, lift_splat_export, plan_splat
from omma.systems.diffbev.views import ViewOutput

STRIDE = 32  # of the features that are lifted
GRID_AXES = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # camera (x, y, z) to grid (z, x, y)


class LiftSplatView(nn.Module):
    """Depth distribution times context of every feature, summed over the cells that the points fall in.

    Args:
        in_channels: of the image features.
        channels: C.
        x: cells along camera x (right), (low, high, step) in metres.
        y: height, one bin; camera y points down.
        z: cells along camera z (forward).
        depth: depths along the camera axis, `high` excluded.
        image_size: (height, width) of the network's input.
        cell_rounding: "trunc" as the reference has it, or "floor".
        frustum_pixels: "ends" as the reference has it: positions from the first to the last pixel, an
            incomplete last row or column of features dropped; "centres" of each feature's block of pixels.
        append_depth: put the pooled depth probability behind the features, as one more channel.
        pool_depth: return the pooled depth probability by itself.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        x: Bounds,
        y: Bounds,
        z: Bounds,
        depth: Bounds,
        image_size: tuple[int, int],
        cell_rounding: Rounding = "trunc",
        frustum_pixels: PixelGrid = "ends",
        append_depth: bool = False,
        pool_depth: bool = False,
    ) -> None:
        super().__init__()
        self.grid = BevGrid(z, x, y)
        self.depth_bounds, self.image_size = depth, image_size
        self.cell_rounding, self.frustum_pixels = cell_rounding, frustum_pixels
        self.append_depth, self.pool_depth = append_depth, pool_depth
        self.num_depths = len(depth_bins(*depth))
        self.channels = channels
        self.depthnet = nn.Conv2d(in_channels, self.num_depths + channels, 1)
        self._plans = PlanCache()

    @property
    def out_channels(self) -> int:
        """Channels of the result: C, and one more with `append_depth`."""
        return self.channels + self.append_depth

    @property
    def feature_size(self) -> tuple[int, int]:
        """(h, w) of the features that are lifted."""
        up = STRIDE - 1 if self.frustum_pixels == "centres" else 0
        return (self.image_size[0] + up) // STRIDE, (self.image_size[1] + up) // STRIDE

    def forward(self, features: list[Tensor], intrinsics: Tensor) -> ViewOutput:
        """Lift and splat.

        Args:
            features: image features; the last, (B, in, ceil(H / 32), ceil(W / 32)), is used.
            intrinsics: (B, 3, 3), pixels of the network's input.
        """
        h, w = self.feature_size
        maps = self.depthnet(features[-1][:, :, :h, :w]).float()
        depth_logits, context = maps[:, : self.num_depths], maps[:, self.num_depths :]
        if self.append_depth or self.pool_depth:
            context = torch.cat([context, torch.ones_like(context[:, :1])], dim=1)
        bev = self.splat(depth_logits.softmax(1), context, intrinsics)
        depth_bev = bev[:, self.channels :] if self.pool_depth else None
        return ViewOutput(bev[:, : self.out_channels], depth_logits, depth_bev)

    def splat(self, depth: Tensor, context: Tensor, intrinsics: Tensor) -> Tensor:
        """Features over the grid, (B, C, Z, X), of depths (B, D, h, w) and contexts (B, C, h, w)."""
        if torch.compiler.is_exporting():
            cells = self.cells(intrinsics)
            return lift_splat_export(depth[:, None], context[:, None], cells, self.grid.nx)
        return lift_splat(depth[:, None], context[:, None], self.plan(intrinsics))

    @torch.compiler.disable
    def plan(self, intrinsics: Tensor) -> SplatPlan:
        """Which feature and depth feeds which cell; remembered for calibrations seen before."""
        return self._plans.get([intrinsics], lambda: plan_splat(self.cells(intrinsics), self.grid.nx))

    def cells(self, intrinsics: Tensor) -> Tensor:
        """Cell of every feature and depth, int32 (B, 1, D, h, w), -1 outside the grid."""
        rays, origin, depths_m = self._rays(intrinsics)
        return frustum_cells(rays, origin, depths_m, self.grid, self.cell_rounding)

    def points(self, intrinsics: Tensor) -> Tensor:
        """Camera-frame points (x, y, z) in metres, (B, 1, D, h, w, 3), of every feature and depth."""
        z, x, y = frustum_points(*self._rays(intrinsics)).unbind(-1)
        return torch.stack([x, y, z], dim=-1)

    def _rays(self, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        device = intrinsics.device
        pixels_uv = self.pixels().to(device)
        depths_m = torch.from_numpy(depth_bins(*self.depth_bounds)).to(device)
        unit = torch.eye(3, device=device).expand(len(intrinsics), 1, 3, 3)
        origin = torch.zeros(len(intrinsics), 1, 3, device=device)
        axes = torch.tensor(GRID_AXES, device=device).expand_as(unit)
        return pixel_rays(pixels_uv, axes, intrinsics[:, None], unit, origin), origin, depths_m

    def pixels(self) -> Tensor:
        """The network-input pixel (u, v) that each feature stands for, (h, w, 2)."""
        h, w = self.feature_size
        whole = (h * STRIDE, w * STRIDE)
        size = whole if self.frustum_pixels == "centres" else self.image_size
        return feature_pixels(size, (h, w), self.frustum_pixels)
