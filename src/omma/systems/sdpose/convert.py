"""Checkpoints of SDPose and of TokenPose in its repository, to and from our names (spec section 8).

A file is a bare state dict or mmcv's {"meta": ..., "state_dict": ..., "optimizer": ...}. Which backbone it
has and how large it is, is read off names and shapes, the token grid off the stored sine table. The number
of cycles is not in the weights: they fit any.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from omma.core.reference_state import load_strictly, plain_state, shape_of
from omma.errors import CheckpointError, ConfigError
from omma.systems.sdpose.encoder import Encoder
from omma.systems.sdpose.hrnet import HRNet
from omma.systems.sdpose.keys import BACKBONE, HEAD, POSITIONS, is_hrnet, our_name, reference_name
from omma.systems.sdpose.model import STRIDE, Backbone, Position, SDPose, Size, TokenHead
from omma.systems.sdpose.positions import sine_table
from omma.systems.sdpose.stemnet import StemNet

PROJECT = "SDPose or TokenPose of its repository"
CONTAINERS = ("state_dict", "model_state_dict", "network", "model")
HEAD_DIM = 24  # features of a published attention head
ASPECT = 4 / 3  # height over width of published crops, and of patches as near as they can be
Weights = Mapping[str, Tensor]
_PARTS = {"backbone": BACKBONE, "head": HEAD, "encoder": f"{HEAD}transformer_layer1."}
_ENCODER = re.compile(rf"{re.escape(HEAD)}transformer(?:_layer1)?\.layers\.(\d+)\.")
_ORIGINAL = ("transformer.", "pre_feature.")  # of leeyegy/TokenPose, whose S scales attention otherwise


def load_reference(
    state_dict: Mapping[str, Any],
    *,
    heads: int | None = None,
    patch: Size | None = None,
    position: Position = "sine-full",
) -> SDPose:
    """The network with a published checkpoint's weights, in eval mode: image -> heatmaps of the first cycle.

    Args:
        state_dict: tensors or arrays, bare or under one of `CONTAINERS`; prefixes of wrappers are cut.
        heads: attention heads; None: of 24 features each, as published.
        patch: (rows, columns) of cells a token; None: of the side ratio nearest to 4:3, as published.
        position: where fixed positions are added; learned ones are recognised.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes, or the file is of original TokenPose.
    """
    weights = _plain(state_dict)
    _check_project(weights)
    backbone = _build_backbone(weights)
    head = _build_head(weights, backbone.channels, heads=heads, patch=patch, position=position)
    model = SDPose(backbone, head)
    load_strictly(model, from_reference(weights), PROJECT)
    return model


def settings_of(state_dict: Mapping[str, Any]) -> list[str]:
    """Settings under which a recipe's network is that of a published checkpoint, as `key=value` words.

    Heads, cycles and where fixed positions are added are not in the weights: the recipe says them.

    Args:
        state_dict: as for `load_reference`.

    Raises:
        CheckpointError: the file is of another network.
    """
    weights = _plain(state_dict)
    _check_project(weights)
    backbone = _build_backbone(weights)
    head = _build_head(weights, backbone.channels, heads=None, patch=None, position="sine-full")
    network: dict[str, Any] = {"name": "stemnet"}
    if isinstance(backbone, HRNet):
        network = {"name": "hrnet_w32", "stage1_width": backbone.stage1_width, "pretrained": "none"}
    dim = head.keypoint_token.shape[-1]
    words = {
        "system.backbone": json.dumps(network),
        "system.patch": list(head.patch),
        "system.dim": dim,
        "system.depth": _depth(weights),
        "system.mlp_ratio": _mlp_dim(weights) / dim,
        "data.image_size": [STRIDE * side for side in head.size],
    }
    if head.position == "learnable":
        words["system.position"] = head.position
    return [f"{key}={value}" for key, value in words.items()]


def load_reference_part(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    heads: int | None = None,
    patch: Size = (4, 3),
    position: Position = "sine-full",
) -> nn.Module:
    """One part with published weights, in eval mode.

    Args:
        name: "backbone": images -> features; "head": features -> heatmaps; "encoder": tokens -> tokens.
        state_dict: tensors or arrays, with or without the part's own prefix.
        heads: as for `load_reference`.
        patch: (rows, columns) of cells a token.
        position: as for `load_reference`.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes.
        ConfigError: there is no such part.
    """
    if name not in _PARTS:
        raise ConfigError(f"SDPose has no part {name}", hint=f"the parts are {', '.join(_PARTS)}")
    prefix = _PARTS[name]
    plain = _plain(state_dict)
    weights = {key: value for key, value in plain.items() if key.startswith(prefix)}
    weights = weights or {f"{prefix}{key}": value for key, value in plain.items()}
    start = {"backbone": "backbone.", "head": "head.", "encoder": "head.encoder."}[name]
    ours = {key.removeprefix(start): value for key, value in from_reference(weights).items()}
    if name == "backbone":
        part: nn.Module = _build_backbone(weights)
    elif name == "encoder":
        dim = _shape(ours, "layers.0.qkv.weight")[1]
        part = Encoder(dim, _depth(weights), _heads(dim, heads), _shape(ours, "layers.0.mlp.0.weight")[0])
    else:
        channels = _shape(ours, "patch_to_token.weight")[1] // (patch[0] * patch[1])
        part = _build_head(weights, channels, heads=heads, patch=patch, position=position)
    load_strictly(part, ours, PROJECT)
    return part


def from_reference(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the sine table, which is computed here, is checked and dropped.

    Raises:
        CheckpointError: it is of original TokenPose.
    """
    weights = _plain(state_dict)
    _check_project(weights)
    hrnet = is_hrnet(weights)
    fixed = _stored_grid(weights) is not None
    return {
        our_name(name, hrnet=hrnet): value
        for name, value in weights.items()
        if not (fixed and name == POSITIONS)
    }


def to_reference(model: SDPose) -> dict[str, Tensor]:
    """A state dict that the published code loads, the sine table included."""
    reference: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        reference[reference_name(name)] = value.detach().cpu()
        if name == "head.keypoint_token" and model.head.position != "learnable":
            reference[POSITIONS] = model.head.positions[:, model.head.num_keypoints :].detach().cpu().clone()
    return reference


def _plain(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return plain_state(content, *CONTAINERS)


def _check_project(weights: Weights) -> None:
    """Refuse the original TokenPose, which looks alike and would give wrong heatmaps."""
    if any(key.startswith((BACKBONE, HEAD)) for key in weights):
        return
    if any(key.startswith(_ORIGINAL) for key in weights):
        raise CheckpointError(
            "the checkpoint is of the original TokenPose, whose network S divides attention by the root of "
            "all 192 features, not of a head's 24: its heatmaps would be wrong here",
            hint="give one of SDPose's repository, with names in backbone. and keypoint_head.",
        )
    first = ", ".join(list(weights)[:3]) or "none"
    raise CheckpointError(
        f"the checkpoint's names (first: {first}) are those of no network known here",
        hint=f"it should be of {PROJECT}",
    )


def _build_backbone(weights: Weights) -> Backbone:
    width = _shape(weights, f"{BACKBONE}layer1.0.conv2.weight")[0]
    return HRNet(width) if is_hrnet(weights) else StemNet(width)


def _build_head(
    weights: Weights, channels: int, *, heads: int | None, patch: Size | None, position: Position
) -> TokenHead:
    _, num_keypoints, dim = _shape(weights, f"{HEAD}keypoint_token")
    last = max(int(key.split(".")[3]) for key in weights if key.startswith(f"{HEAD}mlp_head."))
    cells = _shape(weights, f"{HEAD}mlp_head.{last}.weight")[0]
    area = _shape(weights, f"{HEAD}patch_to_embedding.weight")[1] // channels
    grid = _stored_grid(weights)
    patch = patch or _best_patch(area, grid)
    size = (grid[0] * patch[0], grid[1] * patch[1]) if grid else _upright(cells)
    if patch[0] * patch[1] != area or size[0] * size[1] != cells:
        raise CheckpointError(
            f"the checkpoint has {cells} heatmap cells and {area} of them a token, which patches of "
            f"{patch[0]} x {patch[1]} do not fit",
            hint="give the patch that it was trained with",
        )
    learned = POSITIONS in weights and grid is None
    return TokenHead(
        channels,
        size=size,
        patch=patch,
        num_keypoints=num_keypoints,
        dim=dim,
        depth=_depth(weights),
        heads=_heads(dim, heads),
        mlp_ratio=_mlp_dim(weights) / dim,
        position="learnable" if learned else position,
    )


def _best_patch(area: int, grid: Size | None) -> Size:
    """The patch of so many cells that comes nearest to 4:3, or whose heatmap on the grid does."""
    rows, columns = grid or (1, 1)
    return min(_pairs(area), key=lambda pair: _off_aspect((rows * pair[0], columns * pair[1])))


def _upright(cells: int) -> Size:
    return min(_pairs(cells), key=_off_aspect)


def _off_aspect(size: Size) -> float:
    return abs(math.log(size[0] / size[1] / ASPECT))


def _pairs(product: int) -> list[Size]:
    return [(rows, product // rows) for rows in range(1, product + 1) if product % rows == 0]


def _stored_grid(weights: Weights) -> Size | None:
    """Grid (rows, columns) of the stored sine table; None: there is none, or positions are learned."""
    if POSITIONS not in weights:
        return None
    table = weights[POSITIONS].float()
    for grid in _pairs(table.shape[1]):
        if torch.allclose(sine_table(grid, table.shape[2]), table.cpu(), rtol=0.0, atol=1e-5):
            return grid
    return None


def _depth(weights: Weights) -> int:
    layers = [int(match[1]) for match in map(_ENCODER.match, weights) if match]
    if not layers:
        raise CheckpointError("the checkpoint has no transformer layers", hint=f"it is not one of {PROJECT}")
    return 1 + max(layers)


def _mlp_dim(weights: Weights) -> int:
    name = next(key for key in weights if _ENCODER.match(key) and key.endswith("1.fn.fn.net.0.weight"))
    return _shape(weights, name)[0]


def _heads(dim: int, heads: int | None) -> int:
    return heads or max(1, dim // HEAD_DIM)


def _shape(weights: Weights, key: str) -> tuple[int, ...]:
    return shape_of(weights, key, PROJECT)
