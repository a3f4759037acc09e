"""The image tower: views to grids of tokens, with the statistics that its weights expect.

Tokens that lead the grid (class, registers) are cut off here, by what the tower's settings say; SigLIP's
pooling head is frozen and skipped. Shapes: N views, S = H * W tokens of one, row by row, D features.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.panollava.pretrained import tower_model

if TYPE_CHECKING:
    from omma.systems.panollava.config import VisionSection

Size = tuple[int, int]
Colour = tuple[float, float, float]
_UNUSED = ("head.", "pooler.", "embeddings.mask_token")
_WIDTHS = ("hidden_size", "vision_hidden_size", "hidden_dim", "embed_dim", "projection_dim")


class Family(NamedTuple):
    """What towers of one kind share.

    Args:
        prefix: tokens before the grid, registers not counted.
        mean: of RGB in [0, 1] that is subtracted.
        std: that the rest is divided by.
    """

    prefix: int
    mean: Colour
    std: Colour


_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FAMILIES = {
    "siglip_vision_model": Family(0, _HALF, _HALF),
    "clip_vision_model": Family(1, *_CLIP),
    "dinov2": Family(1, *_IMAGENET),
    "dinov2_with_registers": Family(1, *_IMAGENET),
    "dinov3_vit": Family(1, *_IMAGENET),
    "vit": Family(1, _HALF, _HALF),
    "deit": Family(2, *_IMAGENET),
}


class VisionTower(nn.Module):
    """A vision transformer of transformers.

    Args:
        model: the network; a wrapper around `vision_model` is taken off, so names do not depend on the
            version of transformers.
        norm: whether a layer norm follows, as in some published weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, norm: bool = False) -> None:
        super().__init__()
        config = model.config
        self.encoder: nn.Module = getattr(model, "vision_model", model)
        self.width: int = next(getattr(config, name) for name in _WIDTHS if hasattr(config, name))
        self.patch = _pair(config.patch_size)
        self.kind: str = config.model_type
        family = _family(config.model_type)
        self.prefix = family.prefix + getattr(config, "num_register_tokens", 0)
        self.norm = nn.LayerNorm(self.width) if norm else None
        self.register_buffer("mean", torch.tensor(family.mean))
        self.register_buffer("std", torch.tensor(family.std))
        self._options = {}
        if "interpolate_pos_encoding" in inspect.signature(self.encoder.forward).parameters:
            self._options["interpolate_pos_encoding"] = True
        self.freeze_unused()

    def grid(self, image_size: Size) -> Size:
        """(rows, columns) of tokens of a view of `image_size` (height, width).

        Raises:
            ConfigError: a view is smaller than a patch.
        """
        grid = image_size[0] // self.patch[0], image_size[1] // self.patch[1]
        if min(grid) < 1:
            raise ConfigError(
                f"views of {image_size[0]} x {image_size[1]} pixels are smaller than the tower's patches of "
                f"{self.patch[0]} x {self.patch[1]}",
                hint="raise data.views.image_size",
            )
        return grid

    def normalise(self, views: Tensor) -> Tensor:
        """Views (..., 3, h, w) uint8 as the tower wants them, float32."""
        mean, std = (values.float()[:, None, None] for values in (self.mean, self.std))
        return (views.float() / 255 - mean) / std

    def forward(self, views: Tensor) -> Tensor:
        """Tokens (N, S, D) of normalised views (N, 3, h, w).

        Raises:
            ConfigError: the tower gives another number of tokens than its grid has.
        """
        tokens = self.encoder(pixel_values=views, **self._options).last_hidden_state[:, self.prefix :]
        rows, columns = self.grid((views.shape[-2], views.shape[-1]))
        if tokens.shape[1] != rows * columns:
            raise ConfigError(
                f"a tower of kind {self.kind} gives {tokens.shape[1]} tokens a view behind its {self.prefix} "
                f"leading ones, not {rows} x {columns}",
                hint=f"towers that are known here: {', '.join(FAMILIES)}",
            )
        return tokens if self.norm is None else self.norm(tokens)

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The encoder's layers."""
        return [
            layer
            for module in self.encoder.modules()
            if isinstance(module, nn.ModuleList)
            for layer in module
            if any(True for _ in layer.parameters())
        ]

    def freeze_unused(self) -> None:
        """Freeze what is never computed; such a parameter would stop training in several processes."""
        if hasattr(self.encoder, "use_head"):
            self.encoder.use_head = False
        unused = _UNUSED + (("post_layernorm",) if self.kind == "clip_vision_model" else ())
        for name, parameter in self.encoder.named_parameters():
            if name.startswith(unused):
                parameter.requires_grad_(False)


def build_tower(settings: VisionSection) -> VisionTower:
    """The image tower that a recipe describes; raises as `tower_model`."""
    return VisionTower(tower_model(settings), norm=settings.norm)


def _family(kind: str) -> Family:
    if kind not in FAMILIES:
        warnings.warn(
            f"the image tower is a {kind}, not one known here: taken to have one leading token and to expect "
            "ImageNet's colour statistics",
            stacklevel=4,
        )
    return FAMILIES.get(kind, Family(1, *_IMAGENET))


def _pair(value: int | Size) -> Size:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
