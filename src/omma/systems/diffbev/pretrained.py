"""ImageNet weights for the Swin transformer: timm's, or those of a file (spec section 8)."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omma.core.reference_state import plain_state
from omma.errors import CheckpointError, ConfigError
from omma.systems.diffbev.keys import swin_weights
from omma.systems.diffbev.swin import SwinTransformer

# (embed_dim, depths, num_heads, window): timm's model of that size, trained on ImageNet-1k
TIMM_MODELS = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24), 7): "swin_tiny_patch4_window7_224.ms_in1k",
    (96, (2, 2, 18, 2), (3, 6, 12, 24), 7): "swin_small_patch4_window7_224.ms_in1k",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 7): "swin_base_patch4_window7_224.ms_in1k",
}


def load_pretrained(backbone: SwinTransformer, source: str) -> None:
    """Give a backbone its first weights; the norms of its outputs stay as they are, as in the reference.

    Args:
        backbone: any size for "none" and files, a published one for "timm".
        source: "none"; "timm" (download); "auto": timm, or a warning and none; or a file in the names of
            official Swin files, timm, torchvision, the reference or ours.

    Raises:
        ConfigError: the weights cannot be had.
        CheckpointError: the file cannot be read or is of another network.
    """
    if source == "none":
        return
    if source in ("timm", "auto"):
        try:
            weights = _download(backbone)
        except ConfigError as error:
            if source == "timm":
                raise
            warnings.warn(f"the image encoder starts from random weights: {error}", stacklevel=2)
            return
    else:
        weights = _read(Path(source))
    _load(backbone, swin_weights(weights), source)


def _download(backbone: SwinTransformer) -> dict[str, Tensor]:
    name = TIMM_MODELS.get(_architecture(backbone))
    if name is None:
        raise ConfigError(
            "timm has no weights for a backbone of this embed_dim, depths, num_heads and window",
            hint="set backbone.pretrained to a file of such weights or to none",
        )
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except OSError as error:
        source = timm.get_pretrained_cfg(name).hf_hub_id
        raise ConfigError(
            f"the weights of {name} could not be downloaded: {type(error).__name__}",
            hint=f"on a connected machine fetch model.safetensors of https://huggingface.co/{source}, "
            "copy it here and set backbone.pretrained to the file; or start from random weights with "
            "backbone.pretrained=none. HF_HUB_OFFLINE=1 in the environment spares the waiting",
        ) from error


def _architecture(backbone: SwinTransformer) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    depths = tuple(len(stage.blocks) for stage in backbone.stages)
    heads = tuple(stage.blocks[0].attn.num_heads for stage in backbone.stages)
    return backbone.channels[0], depths, heads, backbone.stages[0].window


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file of backbone weights",
            hint="backbone.pretrained is none, timm, auto or the path of a .safetensors, .pt or .pth file",
        )
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a file of weights: {reason}") from error
    return plain_state(content, "state_dict", "model")


def _load(backbone: SwinTransformer, weights: dict[str, Tensor], source: str) -> None:
    wanted = backbone.state_dict()
    needed = [key for key in wanted if not key.startswith("norms.")]
    bad = [key for key in needed if not _same_shape(weights.get(key), wanted[key])]
    left_over = [key for key in weights if key not in wanted and not key.startswith("norms.")]
    if bad or left_over:
        parts = []
        if bad:
            parts.append(f"{len(bad)} of {len(needed)} tensors missing or of another shape, first {bad[0]}")
        if left_over:
            parts.append(f"{len(left_over)} left over, first {left_over[0]}")
        raise CheckpointError(
            f"{source}: these are not the weights of this Swin transformer: {'; '.join(parts)}",
            hint="embed_dim, depths, num_heads and window of the recipe must be those of the file",
        )
    fitting = {key: weights[key] for key in wanted if _same_shape(weights.get(key), wanted[key])}
    backbone.load_state_dict(fitting, strict=False)


def _same_shape(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape
