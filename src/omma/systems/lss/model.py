"""Lift-Splat-Shoot: camera images to a bird's-eye-view logit map (Philion and Fidler, arXiv 2008.05711).

An EfficientNet-B0 over each camera gives every pixel a depth distribution and a context vector; their product
is summed into a grid around the vehicle; a ResNet-18 reads the grid. Module names below `camencode` and
`bevencode` are those of published checkpoints, but for timm's inside the backbone.
Shapes: B batch, N cameras, D depths, C context channels, (h, w) = image size / 16, grid (X, Y, Z).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omma.core.geometry import PixelGrid, Rounding, feature_pixels, frustum_cells, frustum_points, pixel_rays
from omma.core.grid import BevGrid, Bounds, depth_bins
from omma.core.layers import ResidualBlock, UpConcat, conv_bn_relu, upsample
from omma.core.lift import PlanCache, SplatPlan, lift_splat, lift_splat_export, plan_splat
from omma.errors import ConfigError
from omma.systems.lss.backbone import build_backbone

if TYPE_CHECKING:
    from omma.systems.lss.config import LSSData, LSSSystem

STRIDE = 16  # of the features that are lifted


class CameraEncoder(nn.Module):
    """Depth distribution and context of every feature position of one image (paper section 3.1).

    Args:
        num_depths: D.
        context_channels: C.
        backbone: timm model with features at strides 16 and 32.
        pretrained: "none", "timm", "auto" or a file of backbone weights.
        bn_momentum: of the backbone's batch normalisation; None: 0.01 when pretrained, else 0.1.
        drop_path: stochastic depth of the backbone's last block, growing linearly up to it.
        neck_channels: width after the two feature maps have met.
        dropout: before the depth layer.
    """

    def __init__(
        self,
        num_depths: int,
        context_channels: int,
        *,
        backbone: str = "tf_efficientnet_b0",
        pretrained: str = "none",
        bn_momentum: float | None = None,
        drop_path: float = 0.2,
        neck_channels: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_depths = num_depths
        self.backbone, channels = build_backbone(backbone, pretrained, drop_path, bn_momentum)
        self.up1 = UpConcat(sum(channels), neck_channels, scale_factor=2)
        self.dropout = nn.Dropout(dropout)
        self.depthnet = nn.Conv2d(neck_channels, num_depths + context_channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Depth probabilities (B, D, h, w), float32, and context (B, C, h, w) of images (B, 3, 16h, 16w)."""
        fine, coarse = self.backbone(images.contiguous(memory_format=torch.channels_last))
        features = self.depthnet(self.dropout(self.up1(coarse, fine))).permute(0, 2, 3, 1)
        depth = features[..., : self.num_depths].float().softmax(-1)
        return depth.permute(0, 3, 1, 2), features[..., self.num_depths :].permute(0, 3, 1, 2)


class BevEncoder(nn.Module):
    """ResNet-18 without max-pooling over the grid, then two enlargements to its size (paper section 3.3).

    Args:
        in_channels: C Z.
        out_channels: logit maps.
        width: channels of the first stage; the next two have twice and four times as many.
        dropout: of whole channels after the first enlargement.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(ResidualBlock(width, width), ResidualBlock(width, width))
        self.layer2 = nn.Sequential(ResidualBlock(width, 2 * width, 2), ResidualBlock(2 * width, 2 * width))
        self.layer3 = nn.Sequential(
            ResidualBlock(2 * width, 4 * width, 2), ResidualBlock(4 * width, 4 * width)
        )
        _init_resnet(self)
        self.up1 = UpConcat(5 * width, 4 * width, scale_factor=4)
        self.dropout = nn.Dropout2d(dropout)
        self.up2 = nn.Sequential(
            upsample(2), *conv_bn_relu(4 * width, 2 * width), nn.Conv2d(2 * width, out_channels, 1)
        )

    def forward(self, grid: Tensor) -> Tensor:
        """Logits (B, out, X, Y) of the splat features (B, C Z, X, Y)."""
        fine = self.layer1(self.relu(self.bn1(self.conv1(grid))))
        coarse = self.layer3(self.layer2(fine))
        return self.up2(self.dropout(self.up1(coarse, fine)))


def _init_resnet(module: nn.Module) -> None:
    """He initialisation; the last normalisation of each residual branch starts at zero (arXiv 1706.02677)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(part, ResidualBlock):
            nn.init.zeros_(part.bn2.weight)


class LiftSplatShoot(nn.Module):
    """The whole network: calibrated images to logits over the ground plane.

    Args:
        xbound: grid along ego x (forward), (low, high, step) in metres; a multiple of 8 cells.
        ybound: grid along ego y (left); a multiple of 8 cells.
        zbound: height bins along ego z (up).
        dbound: depths along the camera axis in metres, `high` excluded.
        image_size: (height, width) of the network's input, multiples of 32.
        out_channels: logit maps.
        context_channels: features of a pixel that are lifted.
        backbone: timm model with features at strides 16 and 32.
        pretrained: "none", "timm" (download) or a file of backbone weights.
        backbone_bn_momentum: None: 0.01 when pretrained, else 0.1.
        drop_path: largest stochastic depth of the backbone.
        neck_channels: width of the camera encoder's last convolutions.
        bev_width: channels of the grid encoder's first stage.
        voxel_rounding: "trunc" as published weights were trained, or "floor".
        frustum_pixels: pixel a feature stands for: "ends" as published weights were trained, or "centres".
        context_dropout: dropout before the depth layer.
        bev_dropout: channel dropout in the grid encoder.

    Raises:
        ConfigError: a size that the network cannot take; the message names it.
    """

    def __init__(
        self,
        *,
        xbound: Bounds = (-50.0, 50.0, 0.5),
        ybound: Bounds = (-50.0, 50.0, 0.5),
        zbound: Bounds = (-10.0, 10.0, 20.0),
        dbound: Bounds = (4.0, 45.0, 1.0),
        image_size: tuple[int, int] = (128, 352),
        out_channels: int = 1,
        context_channels: int = 64,
        backbone: str = "tf_efficientnet_b0",
        pretrained: str = "none",
        backbone_bn_momentum: float | None = None,
        drop_path: float = 0.2,
        neck_channels: int = 512,
        bev_width: int = 64,
        voxel_rounding: Rounding = "trunc",
        frustum_pixels: PixelGrid = "ends",
        context_dropout: float = 0.0,
        bev_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid = BevGrid(xbound, ybound, zbound)
        _check_sizes(image_size, self.grid)
        self.image_size, self.dbound, self.backbone = image_size, dbound, backbone
        self.voxel_rounding, self.frustum_pixels = voxel_rounding, frustum_pixels
        self.context_channels, self.out_channels = context_channels, out_channels
        self.camencode = CameraEncoder(
            len(depth_bins(*dbound)),
            context_channels,
            backbone=backbone,
            pretrained=pretrained,
            bn_momentum=backbone_bn_momentum,
            drop_path=drop_path,
            neck_channels=neck_channels,
            dropout=context_dropout,
        )
        self.bevencode = BevEncoder(
            context_channels * self.grid.nx[2], out_channels, width=bev_width, dropout=bev_dropout
        )
        self._plans = PlanCache()

    def forward(
        self,
        imgs: Tensor,
        rots: Tensor,
        trans: Tensor,
        intrins: Tensor,
        post_rots: Tensor,
        post_trans: Tensor,
    ) -> Tensor:
        """Logits over the grid.

        Args:
            imgs: normalised RGB, (B, N, 3, H, W).
            rots: ego_R_cam, (B, N, 3, 3).
            trans: camera positions in the ego frame in metres, (B, N, 3).
            intrins: pinhole matrices of the stored images, (B, N, 3, 3).
            post_rots: what resizing and augmentation did to pixels, uv' = A uv + b: A in the upper left of a
                unit matrix, (B, N, 3, 3).
            post_trans: (b, 0), (B, N, 3).

        Returns:
            (B, out, X, Y): axis 2 along ego x (forward), axis 3 along ego y (left).
        """
        return self.forward_with_depth(imgs, rots, trans, intrins, post_rots, post_trans)[0]

    def forward_with_depth(self, imgs: Tensor, *calibration: Tensor) -> tuple[Tensor, Tensor]:
        """`forward`, and the depth probabilities (B, N, D, h, w); arguments as there."""
        depth, context = self.lift(imgs)
        return self.bevencode(self.splat(depth, context, *calibration)), depth

    def lift(self, imgs: Tensor) -> tuple[Tensor, Tensor]:
        """Depth probabilities (B, N, D, h, w) and context (B, N, C, h, w) of images (B, N, 3, H, W)."""
        if tuple(imgs.shape[-2:]) != self.image_size:
            raise ConfigError(
                f"the images are {imgs.shape[-2]} x {imgs.shape[-1]}, the network was built for "
                f"{self.image_size[0]} x {self.image_size[1]} (height x width)",
                hint="give the images and the network the same data.image_size",
            )
        batch = imgs.shape[:2]
        depth, context = self.camencode(imgs.flatten(0, 1))
        return depth.unflatten(0, batch), context.unflatten(0, batch)

    def splat(self, depth: Tensor, context: Tensor, *calibration: Tensor) -> Tensor:
        """Features over the grid (B, C Z, X, Y) of `lift`'s results; `calibration` is rots ... post_trans."""
        if torch.compiler.is_exporting():
            return lift_splat_export(depth, context, self.cells(*calibration), self.grid.nx)
        return lift_splat(depth, context, self.plan(*calibration))

    @torch.compiler.disable
    def plan(self, *calibration: Tensor) -> SplatPlan:
        """Which pixel and depth feeds which cell; remembered for calibrations seen before."""
        return self._plans.get(calibration, lambda: plan_splat(self.cells(*calibration), self.grid.nx))

    def cells(
        self, rots: Tensor, trans: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
    ) -> Tensor:
        """Cell of every pixel and depth, (B, N, D, h, w), -1 outside the grid; arguments as for `forward`."""
        rays, depths_m = self._rays(rots, intrins, post_rots, post_trans)
        return frustum_cells(rays, trans, depths_m, self.grid, self.voxel_rounding)

    def points(
        self, rots: Tensor, trans: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
    ) -> Tensor:
        """Ego-frame points in metres, (B, N, D, h, w, 3), of every pixel and depth; arguments as there."""
        rays, depths_m = self._rays(rots, intrins, post_rots, post_trans)
        return frustum_points(rays, trans, depths_m)

    def _rays(
        self, rots: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
    ) -> tuple[Tensor, Tensor]:
        feature_size = (self.image_size[0] // STRIDE, self.image_size[1] // STRIDE)
        pixels_uv = feature_pixels(self.image_size, feature_size, self.frustum_pixels).to(rots.device)
        depths_m = torch.from_numpy(depth_bins(*self.dbound)).to(rots.device)
        return pixel_rays(pixels_uv, rots, intrins, post_rots, post_trans), depths_m

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Blocks whose activations may be recomputed in the backward pass, in the order they run."""
        backbone, bev = self.camencode.backbone, self.bevencode
        parts = getattr(backbone, "blocks", backbone).children()
        stages = [part for part in parts if any(True for _ in part.children())]
        return [*stages, self.camencode.up1, bev.layer1, bev.layer2, bev.layer3, bev.up1, bev.up2]


def build_model(system: LSSSystem, data: LSSData) -> LiftSplatShoot:
    """The network that a recipe describes."""
    return LiftSplatShoot(
        xbound=system.grid.x,
        ybound=system.grid.y,
        zbound=system.grid.z,
        dbound=system.grid.depth,
        image_size=data.image_size,
        out_channels=len(system.targets),
        context_channels=system.context_channels,
        backbone=system.backbone,
        pretrained=system.pretrained,
        backbone_bn_momentum=system.backbone_bn_momentum,
        drop_path=system.drop_path,
        neck_channels=system.neck_channels,
        bev_width=system.bev_width,
        voxel_rounding=system.voxel_rounding,
        frustum_pixels=system.frustum,
        context_dropout=system.context_dropout,
        bev_dropout=system.bev_dropout,
    )


def _check_sizes(image_size: tuple[int, int], grid: BevGrid) -> None:
    for side, pixels in zip(("height", "width"), image_size, strict=True):
        if pixels % 32:
            raise ConfigError(
                f"image {side} {pixels} is not a multiple of 32",
                hint=f"take {max(32, round(pixels / 32) * 32)}: features of strides 16 and 32 have to meet",
            )
    for axis, cells in zip("xy", grid.nx, strict=False):
        if cells % 8:
            raise ConfigError(
                f"grid axis {axis} has {cells} cells, not a multiple of 8",
                hint="change its bounds or step: the grid encoder halves the grid three times",
            )
