"""ImageNet weights for the Swin transformer: timm's, or those of a file (spec section 8)."""

from __future__ import annotations

from torch import Tensor

from omma.engine.published_weights import encoder_weights
from omma.errors import CheckpointError
from omma.systems.diffbev.keys import swin_weights
from omma.systems.diffbev.swin import SwinTransformer

KEY = "system.backbone.pretrained"
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
    weights = encoder_weights(source, TIMM_MODELS.get(_architecture(backbone)), KEY)
    if weights is not None:
        _load(backbone, swin_weights(weights), source)


def _architecture(backbone: SwinTransformer) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    depths = tuple(len(stage.blocks) for stage in backbone.stages)
    heads = tuple(stage.blocks[0].attn.num_heads for stage in backbone.stages)
    return backbone.channels[0], depths, heads, backbone.stages[0].window


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
