"""Weights under the names of the first pipeline, which the original code loads (spec section 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omma.errors import ConfigError
from omma.systems.panollava.model import PanoLLaVA
from omma.systems.panollava.projector import Projector
from omma.systems.panollava.resamplers import Resampler, TokenMlp
from omma.systems.panollava.vision import FAMILIES, Colour

_PREFIX = "model."  # of Lightning's files
_PATCHES = ("embeddings.patch_embedding", "embeddings.patch_embeddings.projection")
_MLP = {"layers.0.": "linear1.", "layers.1.": "bn1.", "layers.3.": "linear2."}
_HINT = "export as onnx or pt2, or train with the settings of the published network"


def to_reference(model: PanoLLaVA) -> dict[str, Tensor]:
    """A state dict of the first pipeline, which does not normalise pixels, or with ImageNet's statistics.

    The latter goes with a norm behind the tower. The difference to the tower's own statistics becomes part of
    its first convolution. The output layer is there a second time, as in published files.

    Raises:
        ConfigError: the network has parts that the published one has not.
    """
    reference = {f"vision_encoder.{name}": value for name, value in _tower(model).items()}
    if model.vision.norm is not None:
        reference |= _named("vicreg_norm.", model.vision.norm)
    if model.resampler is not None:
        reference |= _resampler(model.resampler)
    if model.projector is not None:
        _check_projector(model.projector)
        reference |= _named("vision_to_language_projection.", model.projector.linear)
    if model.language is not None:
        inside = "base_model.model." if model.language.adapters else ""
        reference |= _named(f"language_model.{inside}", model.language.lm)
    return {f"{_PREFIX}{name}": value.detach().cpu().clone() for name, value in reference.items()}


def published_statistics(*, norm: bool) -> tuple[Colour, Colour]:
    """Mean and spread of RGB that the first pipeline takes off: none, or ImageNet's with a norm behind."""
    imagenet = FAMILIES["dinov2"]
    return (imagenet.mean, imagenet.std) if norm else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in module.state_dict().items()}


def _tower(model: PanoLLaVA) -> dict[str, Tensor]:
    tower = model.vision
    weights = dict(tower.encoder.state_dict())
    name = next((name for name in _PATCHES if f"{name}.bias" in weights), None)
    if name is None:
        raise ConfigError("the image tower's first convolution has no bias to take up colours", _HINT)
    theirs = published_statistics(norm=tower.norm is not None)
    own = (tower.mean.tolist(), tower.std.tolist())
    mean, std, their_mean, their_std = (torch.tensor(v)[:, None, None].double() for v in (*own, *theirs))
    kernel, bias = (weights[f"{name}.{part}"].cpu().double() for part in ("weight", "bias"))
    weights[f"{name}.weight"] = (kernel * their_std / std).float()
    weights[f"{name}.bias"] = (bias + (kernel * (their_mean - mean) / std).sum((1, 2, 3))).float()
    return weights


def _resampler(resampler: Resampler) -> dict[str, Tensor]:
    norms = isinstance(resampler, TokenMlp) and len(resampler.layers) == 4
    if not isinstance(resampler, TokenMlp) or not norms or resampler.pool_tokens is not None:
        raise ConfigError(
            "the first pipeline's resampler is two layers with a norm between, not this one", _HINT
        )
    named = {}
    for name, value in resampler.state_dict().items():
        start = next(start for start in _MLP if name.startswith(start))
        named[f"resampler.{_MLP[start]}{name.removeprefix(start)}"] = value
    return named


def _check_projector(projector: Projector) -> None:
    moved = projector.code is not None and bool(torch.any(projector.code.gate != 0))
    if moved or len(projector.columns) or projector.stitch != "views" or projector.pool != 1:
        raise ConfigError(
            "the first pipeline's projector has no code of positions, no stitching and no pooling", _HINT
        )
