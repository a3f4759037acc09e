"""Checkpoints of ldk-tokyo/DiffBEV, the official DiffBEV and HFT, to and from our names (spec section 8).

A file is a bare state dict or {"state_dict": ..., "meta": ..., "optimizer": ...}. Besides weights it holds
what follows from the settings: dx, bx, nx (the grid), frustum (image size and depths), position indices and
the noise schedule. What the shapes tell is read from them; the rest are options.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.geometry import Rounding, frustum
from omma.core.grid import Bounds, depth_bins
from omma.core.reference_state import frustum_settings, grid_bounds, load_strictly, plain_state
from omma.errors import CheckpointError, ConfigError
from omma.systems.diffbev.architecture import (
    PROJECT,
    Settings,
    build_head,
    build_part,
    build_swin,
    build_view,
)
from omma.systems.diffbev.fork_head import BETAS, NUM_TIMESTEPS, ForkHead
from omma.systems.diffbev.keys import convert_merging, our_name, reference_name
from omma.systems.diffbev.model import BevSegmenter
from omma.systems.diffbev.swin import relative_index
from omma.systems.diffbev.views.lift_splat import LiftSplatView

PUBLISHED: dict[str, Bounds] = {
    "xbound": (-25.0, 25.0, 0.5),
    "ybound": (-10.0, 10.0, 20.0),
    "zbound": (1.0, 50.0, 0.5),
    "dbound": (1.0, 50.0, 1.0),
}
PUBLISHED_SIZE = (600, 800)
_GRID = ("dx", "bx", "nx")
_SCHEDULE = ("betas", "alphas_cumprod")
_CONTAINERS = ("state_dict", "model_state_dict")
_PREFIXES = ("backbone.", "neck.", "transformer.", "decode_head.")
_PARTS = {  # prefix there and here
    "swin": ("backbone", "backbone"),
    "neck_lss": ("neck", "view"),
    "pyramid_head": ("decode_head", "head"),
    "fork_diffusion_head": ("decode_head", "head"),
    "fpn": ("neck", "view.fpn"),
    "neck_pyramid": ("transformer", "view.pyramid"),
    "neck_vpn": ("neck", "view"),
    "neck_pyva": ("neck", "view"),
}


def load_reference(
    state_dict: Mapping[str, Any],
    *,
    image_size: tuple[int, int] | None = None,
    grid_conf: Mapping[str, Iterable[float]] | None = None,
    cell_rounding: Rounding = "trunc",
) -> BevSegmenter:
    """The network with a published checkpoint's weights, in eval mode: (image, intrinsics) -> logits.

    Sizes come from the shapes, the grid from dx, bx, nx, the depths and the image size from the frustum;
    where these are absent, from the options, then from the published settings.

    Args:
        state_dict: tensors or arrays, bare or under "state_dict"; prefixes module. and model. are cut.
        image_size: (height, width) of the network's input where the checkpoint does not tell it.
        grid_conf: any of xbound, ybound, zbound, dbound, each (low, high, step) in metres, as the reference's
            own setting of that name; must agree with what the checkpoint holds.
        cell_rounding: "trunc" as the reference has it, or "floor".

    Raises:
        CheckpointError: keys are missing, left over or at odds with each other or with the options.
        ConfigError: `grid_conf` has an unknown key.
    """
    weights = plain_state(state_dict, *_CONTAINERS)
    settings = _settings(weights, grid_conf, image_size, cell_rounding)
    ours = from_reference(weights)
    head = build_head(_inside(ours, "head"))
    view = build_view(_inside(ours, "view"), settings, head.in_channels)
    backbone = build_swin(_inside(ours, "backbone"))
    model = BevSegmenter(backbone, view, head, image_size=settings.image_size)
    load_strictly(model, ours, PROJECT)
    return model


def load_reference_part(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    image_size: tuple[int, int] | None = None,
    grid_conf: Mapping[str, Iterable[float]] | None = None,
    append_depth: bool = False,
) -> nn.Module:
    """One part with a published checkpoint's weights, in eval mode.

    Args:
        name: "swin": images -> list of maps; "neck_lss", "neck_vpn", "neck_pyva": (list of maps, intrinsics)
            -> ViewOutput; "pyramid_head", "fork_diffusion_head": features -> logits; "fpn": maps -> maps;
            "neck_pyramid": (maps, intrinsics) -> features.
        state_dict: its tensors or arrays, with or without the part's own prefix.
        image_size: (height, width) of the network's input, for the views.
        grid_conf: as for `load_reference`.
        append_depth: "neck_lss" only: the pooled depth probability is one more channel.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes.
        ConfigError: there is no such part.
    """
    name = _part_name(name)
    prefix, ours_prefix = _PARTS[name]
    weights = plain_state(state_dict, *_CONTAINERS)
    weights = {k if k.startswith(_PREFIXES) else f"{prefix}.{k}": value for k, value in weights.items()}
    settings = _settings(weights, grid_conf, image_size)
    ours = _inside(from_reference(weights), ours_prefix)
    part = build_part(name, ours, settings, append_depth=append_depth)
    load_strictly(part, ours, PROJECT)
    return part


def _part_name(name: str) -> str:
    """The part, also of a name without `neck_` or with a variant behind it (`swin_t`)."""
    words = name.split("_")
    for count in range(len(words), 0, -1):
        stem = "_".join(words[:count])
        for candidate in (stem, f"neck_{stem}"):
            if candidate in _PARTS:
                return candidate
    raise ConfigError(f"DiffBEV has no part {name}", hint=f"the parts are {', '.join(_PARTS)}")


def from_reference(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; computed keys are checked and dropped.

    Raises:
        CheckpointError: a computed value is not what the settings give.
    """
    ours: dict[str, Tensor] = {}
    for key, value in plain_state(state_dict, *_CONTAINERS).items():
        if is_computed(key):
            _check_computed(key, value)
        else:
            name = our_name(key)
            ours[name] = convert_merging(name, value)
    return ours


def to_reference(model: BevSegmenter) -> dict[str, Tensor]:
    """A state dict that the published code loads: our weights and what it computes from its settings.

    Raises:
        ConfigError: the network has something that no published code builds.
    """
    if model.refiner is not None:
        raise ConfigError(
            "a network with diffusion paper has no published form", hint="diffusion none and fork_aux have"
        )
    view = model.view
    if isinstance(view, LiftSplatView) and (view.frustum_pixels, view.cell_rounding) != ("ends", "trunc"):
        raise ConfigError(
            f"view.frustum={view.frustum_pixels} with view.cell_rounding={view.cell_rounding} has no "
            "published form",
            hint="only ends with trunc has",
        )
    return reference_state(model)


def reference_state(model: BevSegmenter) -> dict[str, Tensor]:
    """`to_reference` for any network: what has no published form keeps our names."""
    view = model.view
    reference: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if key.startswith("view.") and not any(name.startswith("neck.") for name in reference):
            reference |= _computed_of_view(view)
        reference[reference_name(key)] = convert_merging(key, value.detach().cpu(), to_reference=True)
        if key.endswith(".bias_table"):
            window = (math.isqrt(len(value)) + 1) // 2
            index = reference_name(key).replace("_bias_table", "_index")
            reference[index] = relative_index(window)
    if isinstance(model.head, ForkHead):
        reference |= {f"decode_head.{name}": getattr(model.head, name).cpu() for name in _SCHEDULE}
    return reference


def is_computed(key: str) -> bool:
    """Whether the reference computes this entry from its settings."""
    part, _, inside = key.partition(".")
    if part in ("neck", "transformer"):
        return inside in (*_GRID, "frustum")
    return inside in _SCHEDULE or key.endswith(("relative_position_index", "attn_mask"))


def _computed_of_view(view: nn.Module) -> dict[str, Tensor]:
    if not isinstance(view, LiftSplatView):
        return {}
    z, x, y = range(3)
    grid = view.grid
    values = {
        name: torch.tensor([values[axis] for axis in (x, y, z)], dtype=torch.float32)
        for name, values in zip(_GRID, (grid.dx, grid.bx, grid.nx), strict=True)
    }
    depths_m = torch.from_numpy(depth_bins(*view.depth_bounds))
    values["frustum"] = frustum(view.pixels(), depths_m)
    return {f"neck.{name}": value for name, value in values.items()}


def _check_computed(key: str, value: Tensor) -> None:
    """Compare what does not depend on options; grid and frustum are read as settings instead."""
    if key.endswith("relative_position_index"):
        expected = relative_index(math.isqrt(value.shape[0])).to(value.dtype)
    elif key.endswith(_SCHEDULE):
        betas = torch.linspace(*BETAS, NUM_TIMESTEPS)
        expected = betas if key.endswith("betas") else (1 - betas).cumprod(0)
    else:
        return
    if expected.shape != value.shape or not torch.allclose(expected.double(), value.double(), atol=1e-6):
        raise CheckpointError(
            f"checkpoint entry {key} is not what the published code computes",
            hint="it was made by changed code",
        )


def _settings(
    weights: Mapping[str, Tensor],
    grid_conf: Mapping[str, Iterable[float]] | None,
    image_size: tuple[int, int] | None,
    cell_rounding: Rounding = "trunc",
) -> Settings:
    """The checkpoint's settings, else the given ones, else the published ones."""
    given: dict[str, Any] = {key: tuple(map(float, value)) for key, value in (grid_conf or {}).items()}
    unknown = sorted(set(given) - set(PUBLISHED))
    if unknown:
        raise ConfigError(f"grid_conf has no {unknown[0]}", hint=f"it holds {', '.join(PUBLISHED)}")
    if image_size is not None:
        given["image_size"] = tuple(image_size)
    view = {k.partition(".")[2]: v for k, v in weights.items() if k.startswith(("neck.", "transformer."))}
    stored = _stored_settings(view)
    for key in sorted(set(stored) & set(given)):
        if not np.allclose(stored[key], given[key], atol=1e-4):
            raise CheckpointError(
                f"the checkpoint was made with {key} {list(stored[key])}, not {list(given[key])}",
                hint="leave the setting out or give the checkpoint's",
            )
    known = PUBLISHED | given | stored
    return Settings(
        x=known["xbound"],
        y=known["ybound"],
        z=known["zbound"],
        depth=known["dbound"],
        image_size=known.get("image_size", PUBLISHED_SIZE),
        cell_rounding=cell_rounding,
    )


def _stored_settings(view: Mapping[str, Tensor]) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    if all(key in view for key in _GRID):
        axes = grid_bounds(*(view[key] for key in _GRID))
        stored |= zip(("xbound", "ybound", "zbound"), axes, strict=True)
    if "frustum" in view:
        stored["dbound"], stored["image_size"] = frustum_settings(view["frustum"])
    return stored


def _inside(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
