"""Checkpoints of the published LSS code and of its CARLA fork, to and from our names (spec section 8).

A file is a bare state dict or {"model_state_dict": ..., ...}. Besides weights it holds what follows from the
settings: dx, bx, nx (the grid) and frustum (image size and depths).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.geometry import Rounding, feature_pixels, frustum
from omma.core.grid import BevGrid, Bounds, depth_bins
from omma.core.reference_state import frustum_settings, grid_bounds, load_strictly, plain_state, shape_of
from omma.errors import CheckpointError, ConfigError
from omma.systems.lss.keys import HEAD, TO_REFERENCE, TO_TIMM, rename
from omma.systems.lss.model import STRIDE, BevEncoder, CameraEncoder, LiftSplatShoot

PROJECT = "Lift-Splat-Shoot"
CONTAINERS = ("model_state_dict",)
BACKBONE = "tf_efficientnet_b0"
COMPUTED = ("dx", "bx", "nx", "frustum")
PUBLISHED = {
    "xbound": (-50.0, 50.0, 0.5),
    "ybound": (-50.0, 50.0, 0.5),
    "zbound": (-10.0, 10.0, 20.0),
    "dbound": (4.0, 45.0, 1.0),
}
PUBLISHED_CONTEXT = 64
PUBLISHED_SIZE = (128, 352)
_HEAD_SHAPES = {
    "_conv_head.weight": (1280, 320, 1, 1),
    **{f"_bn1.{name}": (1280,) for name in ("weight", "bias", "running_mean", "running_var")},
    "_bn1.num_batches_tracked": (),
    "_fc.weight": (1000, 1280),
    "_fc.bias": (1000,),
}


def load_reference(
    state_dict: Mapping[str, Any],
    *,
    image_size: tuple[int, int] | None = None,
    grid_conf: Mapping[str, Iterable[float]] | None = None,
    voxel_rounding: Rounding = "trunc",
) -> LiftSplatShoot:
    """The network with a published checkpoint's weights, in eval mode.

    Sizes come from the shapes, the grid from dx, bx, nx and the depths and image size from the frustum; where
    these are absent, from the options, then from the published settings.

    Args:
        state_dict: tensors or arrays, bare or under "model_state_dict"; prefixes module. and model. are cut.
        image_size: (height, width) of the network's input where it is not that of the checkpoint's frustum.
        grid_conf: any of xbound, ybound, zbound, dbound, each (low, high, step) in metres, as the reference's
            own setting of that name; must agree with what the checkpoint holds.
        voxel_rounding: "trunc" as the reference has it, or "floor".

    Raises:
        CheckpointError: keys are missing, left over or at odds with each other or with `grid_conf`.
        ConfigError: a setting cannot be read off the checkpoint and is not given.
    """
    weights = _plain_state(state_dict)
    bounds, stored_size = _settings(weights, _as_bounds(grid_conf or {}))
    model = LiftSplatShoot(
        **bounds,  # type: ignore[arg-type]
        image_size=tuple(image_size or stored_size or PUBLISHED_SIZE),  # type: ignore[arg-type]
        out_channels=_shape(weights, "bevencode.up2.4.weight")[0],
        context_channels=_shape(weights, "camencode.depthnet.weight")[0] - len(depth_bins(*bounds["dbound"])),
        neck_channels=_shape(weights, "camencode.depthnet.weight")[1],
        bev_width=_shape(weights, "bevencode.conv1.weight")[0],
        voxel_rounding=voxel_rounding,
    )
    load_strictly(model, from_reference(weights), PROJECT)
    return model


def load_reference_part(
    name: str, state_dict: Mapping[str, Any], *, context_channels: int = PUBLISHED_CONTEXT
) -> nn.Module:
    """One encoder with a published checkpoint's weights, in eval mode.

    Args:
        name: "camencode", (B, 3, H, W) -> depth probabilities (B, D, h, w) and context (B, C, h, w); or
            "bevencode", (B, C Z, X, Y) -> logits (B, out, X, Y).
        state_dict: its tensors or arrays, with or without the part's own name in front.
        context_channels: C; the other channels of the camera encoder are depths.

    Raises:
        CheckpointError: keys are missing or left over.
        ConfigError: there is no such part.
    """
    if name not in ("camencode", "bevencode"):
        raise ConfigError(f"LSS has no part {name}", hint="the parts are camencode and bevencode")
    weights = {key.removeprefix(f"{name}."): value for key, value in _plain_state(state_dict).items()}
    part: nn.Module
    if name == "camencode":
        rows, neck_channels = _shape(weights, "depthnet.weight")[:2]
        part = CameraEncoder(rows - context_channels, context_channels, neck_channels=neck_channels)
    else:
        width, in_channels = _shape(weights, "conv1.weight")[:2]
        part = BevEncoder(in_channels, _shape(weights, "up2.4.weight")[0], width=width)
    ours = from_reference({f"{name}.{key}": value for key, value in weights.items()})
    load_strictly(part, {key.removeprefix(f"{name}."): value for key, value in ours.items()}, PROJECT)
    return part


def from_reference(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; computed keys and the unused classifier are dropped.

    Raises:
        CheckpointError: a backbone key is not one of an EfficientNet-B0.
    """
    ours: dict[str, Tensor] = {}
    for key, value in _plain_state(state_dict).items():
        inside = key.removeprefix("camencode.trunk.")
        if key in COMPUTED or (inside != key and inside.startswith(HEAD)):
            continue
        ours[our_name(key)] = value
    return ours


def our_name(key: str) -> str:
    """Our name of a published parameter or buffer.

    Raises:
        CheckpointError: a backbone key is not one of an EfficientNet-B0.
    """
    inside = key.removeprefix("camencode.trunk.")
    if inside == key:
        return key
    renamed = rename(inside, TO_TIMM)
    if renamed is None:
        raise CheckpointError(
            f"checkpoint key {key} belongs to no EfficientNet-B0",
            hint="only checkpoints with that backbone can be read",
        )
    return f"camencode.backbone.{renamed}"


def reference_name(key: str) -> str:
    """The published name of one of our parameters or buffers (backbone tf_efficientnet_b0)."""
    inside = key.removeprefix("camencode.backbone.")
    return key if inside == key else f"camencode.trunk.{rename(inside, TO_REFERENCE)}"


def to_reference(model: LiftSplatShoot) -> dict[str, Tensor]:
    """A state dict that the published code loads: our weights, dx, bx, nx, frustum and a classifier of zeros.

    Raises:
        ConfigError: the backbone or the frustum is not what the published code builds.
    """
    if model.backbone.split(".")[0] != BACKBONE or model.frustum_pixels != "ends":
        raise ConfigError(
            f"backbone {model.backbone} with frustum pixels {model.frustum_pixels} has no published form",
            hint=f"only {BACKBONE} with frustum ends can be written for the reference",
        )
    ours = {reference_name(key): value.detach().cpu() for key, value in model.state_dict().items()}
    trunk = {key: value for key, value in ours.items() if key.startswith("camencode.trunk.")}
    # the published order of parameters, which optimiser states count by
    return _computed(model.grid, model.dbound, model.image_size) | trunk | _empty_head() | ours


def _empty_head() -> dict[str, Tensor]:
    head = {f"camencode.trunk.{key}": torch.zeros(shape) for key, shape in _HEAD_SHAPES.items()}
    return {
        key: value.long() if key.endswith("num_batches_tracked") else value for key, value in head.items()
    }


def _computed(grid: BevGrid, dbound: Bounds, image_size: tuple[int, int]) -> dict[str, Tensor]:
    feature_size = (image_size[0] // STRIDE, image_size[1] // STRIDE)
    depths_m = torch.from_numpy(depth_bins(*dbound))
    return {
        "dx": torch.tensor(grid.dx),
        "bx": torch.tensor(grid.bx),
        "nx": torch.tensor(grid.nx),
        "frustum": frustum(feature_pixels(image_size, feature_size), depths_m),
    }


def _as_bounds(grid_conf: Mapping[str, Iterable[float]]) -> dict[str, Bounds]:
    unknown = sorted(set(grid_conf) - set(PUBLISHED))
    if unknown:
        raise ConfigError(f"grid_conf has no {unknown[0]}", hint=f"it holds {', '.join(PUBLISHED)}")
    return {key: tuple(float(v) for v in value) for key, value in grid_conf.items()}  # type: ignore[misc]


def _settings(
    weights: Mapping[str, Tensor], given: dict[str, Bounds]
) -> tuple[dict[str, Bounds], tuple[int, int] | None]:
    """Bounds of grid and depths, and the image size if the checkpoint tells it."""
    stored: dict[str, Bounds] = {}
    image_size = None
    if all(key in weights for key in ("dx", "bx", "nx")):
        axes = grid_bounds(*(weights[key] for key in ("dx", "bx", "nx")))
        stored |= zip(("xbound", "ybound", "zbound"), axes, strict=True)
    if "frustum" in weights:
        stored["dbound"], image_size = frustum_settings(weights["frustum"])
    for key in sorted(set(stored) & set(given)):
        if not np.allclose(stored[key], given[key], atol=1e-4):
            raise CheckpointError(
                f"the checkpoint was made with {key} {list(stored[key])}, not {list(given[key])}",
                hint="leave the setting out or give the checkpoint's",
            )
    bounds = PUBLISHED | stored | given
    _check_channels(weights, bounds, known=set(stored) | set(given))
    return bounds, image_size


def _check_channels(weights: Mapping[str, Tensor], bounds: dict[str, Bounds], known: set[str]) -> None:
    """Depths and height bins must explain the channels of the two layers around the splat."""
    rows, columns = (
        _shape(weights, "camencode.depthnet.weight")[0],
        _shape(weights, "bevencode.conv1.weight")[1],
    )
    num_depths = len(depth_bins(*bounds["dbound"]))
    num_bins = BevGrid(bounds["xbound"], bounds["ybound"], bounds["zbound"]).nx[2]
    if (rows - num_depths) * num_bins == columns:
        return
    missing = sorted({"zbound", "dbound"} - known)
    raise (ConfigError if missing else CheckpointError)(
        f"{num_depths} depths and {num_bins} height bins do not explain a checkpoint with {rows} outputs of "
        f"depthnet and {columns} input channels of bevencode",
        hint=f"the checkpoint does not tell its grid: give grid_conf with {' and '.join(missing)}"
        if missing
        else "the grid is not the one of these weights",
    )


def _plain_state(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    return plain_state(state_dict, *CONTAINERS)


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    return shape_of(weights, key, PROJECT)
