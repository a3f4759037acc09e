"""Networks of the size that a checkpoint's shapes tell, for weights under our names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from omma.core.geometry import Rounding
from omma.core.grid import BevGrid, Bounds, depth_bins
from omma.core.reference_state import shape_of
from omma.errors import CheckpointError
from omma.systems.diffbev.fork_head import ForkHead
from omma.systems.diffbev.head import TopDownHead
from omma.systems.diffbev.swin import SwinTransformer
from omma.systems.diffbev.views.lift_splat import STRIDE, LiftSplatView
from omma.systems.diffbev.views.pon import FOCAL, NUM_LEVELS, FeaturePyramid, PonView, TransformerPyramid
from omma.systems.diffbev.views.pyva import POOLED, PyvaView
from omma.systems.diffbev.views.vpn import VpnView

PROJECT = "DiffBEV or its baselines"
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What shapes do not tell.

    Args:
        x: cells along camera x, (low, high, step) in metres.
        y: height bin.
        z: cells along camera z.
        depth: depths along the camera axis.
        image_size: (height, width) of the network's input.
        cell_rounding: "trunc" or "floor".
    """

    x: Bounds
    y: Bounds
    z: Bounds
    depth: Bounds
    image_size: tuple[int, int]
    cell_rounding: Rounding = "trunc"

    @property
    def bev_size(self) -> tuple[int, int]:
        """(Z, X) feature cells."""
        columns, _, rows = BevGrid(self.x, self.y, self.z).nx
        return rows, columns


def build_swin(weights: Weights) -> SwinTransformer:
    """A Swin transformer for `weights`, names without the part's prefix here and below."""
    embed_dim = _shape(weights, "patch_embed.projection.weight")[0]
    matches = [re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", key) for key in weights]
    places = {(int(match[1]), int(match[2])) for match in matches if match}
    stages = sorted({stage for stage, _ in places})
    tables = [_shape(weights, f"stages.{stage}.blocks.0.attn.bias_table") for stage in stages]
    return SwinTransformer(
        embed_dim=embed_dim,
        depths=[sum(place[0] == stage for place in places) for stage in stages],
        num_heads=[table[1] for table in tables],
        window=(math.isqrt(tables[0][0]) + 1) // 2,
        out_indices=sorted({int(key.split(".")[1]) for key in weights if key.startswith("norms.")}),
    )


def build_head(weights: Weights) -> TopDownHead:
    """A head for `weights`, the fork's if they hold its noise prediction."""
    first = [_shape(weights, f"topdown.{layer}.0.conv1.weight") for layer in (0, 1)]
    blocks = [sum(bool(re.match(rf"topdown\.{layer}\.\d+\.conv1\.", k)) for k in weights) for layer in (0, 1)]
    num_classes = _shape(weights, "classifier.weight")[0]
    head = ForkHead if any(key.startswith("xt_encoder.") for key in weights) else TopDownHead
    placeholders = [0.5] * num_classes  # their bias is in the weights
    return head(first[0][1], placeholders, planes=(first[0][0], first[1][0]), blocks=(blocks[0], blocks[1]))


def build_view(weights: Weights, settings: Settings, out_channels: int) -> nn.Module:
    """A view transformer for `weights` whose result has the `out_channels` that the head reads.

    Raises:
        CheckpointError: the number of depths does not explain the channels.
    """
    if any(key.startswith("depthnet.") for key in weights):
        num_depths = len(depth_bins(*settings.depth))
        lifted = _shape(weights, "depthnet.weight")[0] - num_depths
        if out_channels - lifted not in (0, 1):
            raise CheckpointError(
                f"{num_depths} depths leave {lifted} of depthnet's outputs as features, but the head reads "
                f"{out_channels} channels",
                hint="give grid_conf with the dbound that the checkpoint was trained with",
            )
        return _build_lift_splat(weights, settings, append_depth=out_channels > lifted)
    if any(key.startswith("pyramid.") for key in weights):
        channels = _shape(weights, "pyramid.transformers.0.conv.weight")[0]
        laterals = _laterals(weights, "fpn.")
        return PonView(laterals, channels, x=settings.x, z=settings.z, focal=FOCAL)
    if any(key.startswith("tf.") for key in weights):
        return _build_vpn(weights, settings)
    return _build_pyva(weights, settings)


def build_part(name: str, weights: Weights, settings: Settings, *, append_depth: bool) -> nn.Module:
    """One part; `name` as for `convert.load_reference_part`."""
    if name == "swin":
        return build_swin(weights)
    if name in ("pyramid_head", "fork_diffusion_head"):
        return build_head(weights)
    if name == "fpn":
        channels = _shape(weights, "lateral_convs.0.conv.weight")[0]
        return FeaturePyramid(_laterals(weights, ""), channels, NUM_LEVELS)
    if name == "neck_pyramid":
        channels, in_channels = _shape(weights, "transformers.0.conv.weight")[:2]
        return TransformerPyramid(in_channels, channels, x=settings.x, z=settings.z, focal=FOCAL)
    if name == "neck_vpn":
        return _build_vpn(weights, settings)
    if name == "neck_pyva":
        return _build_pyva(weights, settings)
    return _build_lift_splat(weights, settings, append_depth=append_depth)


def _build_lift_splat(weights: Weights, settings: Settings, *, append_depth: bool) -> LiftSplatView:
    rows, in_channels = _shape(weights, "depthnet.weight")[:2]
    return LiftSplatView(
        in_channels,
        rows - len(depth_bins(*settings.depth)),
        x=settings.x,
        y=settings.y,
        z=settings.z,
        depth=settings.depth,
        image_size=settings.image_size,
        cell_rounding=settings.cell_rounding,
        append_depth=append_depth,
    )


def _build_vpn(weights: Weights, settings: Settings) -> VpnView:
    channels, in_channels = _shape(weights, "conv.0.weight")[:2]
    height, width = (-(-side // STRIDE) for side in settings.image_size)
    return VpnView(
        in_channels,
        channels,
        bev_size=settings.bev_size,
        feature_size=(height, width),
        hidden=_shape(weights, "tf.0.weight")[0],
    )


def _build_pyva(weights: Weights, settings: Settings) -> PyvaView:
    channels = _shape(weights, "conv5.conv.weight")[0]
    in_channels = _shape(weights, "conv1.conv.weight")[1]
    positions = _shape(weights, "transform_feature.fc_transform.0.weight")[0]
    size = POOLED * math.isqrt(positions)
    return PyvaView(in_channels, channels, bev_size=settings.bev_size, size=size)


def _laterals(weights: Weights, prefix: str) -> list[int]:
    return [_shape(weights, f"{prefix}lateral_convs.{level}.conv.weight")[1] for level in range(3)]


def _shape(weights: Weights, key: str) -> tuple[int, ...]:
    return shape_of(weights, key, PROJECT)
