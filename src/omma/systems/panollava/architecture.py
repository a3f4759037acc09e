"""What a published checkpoint's shapes say about its network; heads of attentions are not among it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from omma.core.reference_state import shape_of
from omma.errors import CheckpointError
from omma.systems.panollava.keys import RESAMPLER
from omma.systems.panollava.resamplers import (
    BiMamba,
    CAbstractor,
    Perceiver,
    QFormer,
    Resampler,
    SpatialPool,
    TokenMlp,
)
from omma.systems.panollava.resamplers.tokenwise import Norm

PROJECT = "PanoLLaVA"
Weights = Mapping[str, Tensor]
Settings = dict[str, Any]
_HEAD_WIDTH = 64  # features of a published attention head; of a large language model twice as many
_LARGE = 1024


def tower_settings(weights: Weights, told: Mapping[str, Any] | None = None) -> Settings:
    """`system.vision.config` of a tower's weights, whose names start with nothing.

    Args:
        weights: of a SigLIP, CLIP or DINOv2 model of transformers.
        told: settings that count more than what is read off.

    Raises:
        CheckpointError: it is another network.
    """
    if "embeddings.patch_embeddings.projection.weight" in weights:
        return _dino_settings(weights) | dict(told or {})
    width, _, patch, _ = shape_of(weights, "embeddings.patch_embedding.weight", PROJECT)
    clip = "embeddings.class_embedding" in weights
    positions = shape_of(weights, "embeddings.position_embedding.weight", PROJECT)[0] - clip
    return {
        "model_type": "clip_vision_model" if clip else "siglip_vision_model",
        "hidden_size": width,
        "intermediate_size": shape_of(weights, "encoder.layers.0.mlp.fc1.weight", PROJECT)[0],
        "num_hidden_layers": _count(weights, "encoder.layers."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "image_size": math.isqrt(positions) * patch,
        "patch_size": patch,
        **(told or {}),
    }


def language_settings(weights: Weights, told: Mapping[str, Any] | None = None) -> Settings:
    """`system.language.config` of a language model's weights, whose names start with nothing.

    Args:
        weights: of a Qwen2 or Qwen3 model of transformers.
        told: settings that count more than what is read off.

    Raises:
        CheckpointError: it is another network.
    """
    rows, width = shape_of(weights, "model.embed_tokens.weight", PROJECT)
    first = "model.layers.0.self_attn"
    third = f"{first}.q_norm.weight" in weights
    head = _HEAD_WIDTH if width < _LARGE else 2 * _HEAD_WIDTH
    head = shape_of(weights, f"{first}.q_norm.weight", PROJECT)[0] if third else head
    kind: Settings = {"model_type": "qwen3", "head_dim": head} if third else {"model_type": "qwen2"}
    return {
        **kind,
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": shape_of(weights, "model.layers.0.mlp.gate_proj.weight", PROJECT)[0],
        "num_hidden_layers": _count(weights, "model.layers."),
        "num_attention_heads": max(1, shape_of(weights, f"{first}.q_proj.weight", PROJECT)[0] // head),
        "num_key_value_heads": max(1, shape_of(weights, f"{first}.k_proj.weight", PROJECT)[0] // head),
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        **(told or {}),
    }


def build_published_resampler(weights: Weights, told: Mapping[str, Any] | None = None) -> Resampler:
    """The resampler whose weights these are, under our names that start with nothing.

    Args:
        weights: its tensors.
        told: what no shape says: heads of perceiver and qformer (default 8), causal (default as published),
            pool_tokens and pooling of mlp, stride and pooling of spatial_pool, queries of c_abstractor.

    Raises:
        CheckpointError: it is no resampler known here.
    """
    options = dict(told or {})
    if "latents" in weights:
        return _perceiver(weights, options)
    if "query" in weights:
        queries, in_width = shape_of(weights, "query", PROJECT)
        sizes = {"queries": queries, "depth": _count(weights, "layers."), "causal": True}
        return QFormer(in_width, _rows(weights, "proj.weight"), **(sizes | options))
    if "blocks.0.ahead.A_log" in weights:
        hidden, in_width = shape_of(weights, "input_proj.weight", PROJECT)
        state = shape_of(weights, "blocks.0.ahead.A_log", PROJECT)[1]
        depth = _count(weights, "blocks.")
        width = _rows(weights, "output_proj.weight")
        return BiMamba(in_width, width, hidden=hidden, depth=depth, state=state, **options)
    if "stage1.0.depthwise.weight" in weights:
        hidden, in_width = shape_of(weights, "input_proj.weight", PROJECT)
        expansion = _rows(weights, "stage1.0.expand.weight") // hidden
        sizes = {"hidden": hidden, "depth": _count(weights, "stage1."), "expansion": expansion}
        return CAbstractor(in_width, _rows(weights, "readout.2.weight"), **(sizes | options))
    if "mlp.layers.0.weight" in weights:
        in_width = shape_of(weights, "mlp.layers.0.weight", PROJECT)[1]
        return SpatialPool(in_width, _rows(weights, "mlp.layers.3.weight"), **options)
    return build_token_mlp(weights, options)


def build_token_mlp(weights: Weights, told: Mapping[str, Any] | None = None) -> TokenMlp:
    """The token-wise layers whose weights these are, "layers.0.weight" and so on; see above."""
    linear = sorted(
        int(name.split(".")[1])
        for name, value in weights.items()
        if name.startswith("layers.") and name.endswith(".weight") and value.ndim > 1
    )
    if not linear:
        first = ", ".join(list(weights)[:3]) or "none"
        raise CheckpointError(
            f"the checkpoint's resampler has the names {first}: none known here",
            hint=f"it should be one of {PROJECT}",
        )
    hidden, in_width = shape_of(weights, f"layers.{linear[0]}.weight", PROJECT)
    sizes = {"hidden": hidden, "depth": len(linear), "norm": norm_of(weights)}
    return TokenMlp(in_width, _rows(weights, f"layers.{linear[-1]}.weight"), **(sizes | dict(told or {})))


def norm_of(weights: Weights) -> Norm:
    """`system.resampler.norm` of token-wise layers under our names."""
    if "layers.1.running_mean" in weights:
        return "batch"
    return "layer" if "layers.1.weight" in weights and weights["layers.1.weight"].ndim == 1 else "none"


def part_of(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}


def resampler_of(weights: Weights, told: Mapping[str, Any] | None = None) -> Resampler:
    """The resampler of a whole checkpoint under our names."""
    return build_published_resampler(part_of(weights, RESAMPLER), told)


def _perceiver(weights: Weights, options: Settings) -> Perceiver:
    queries, in_width = shape_of(weights, "latents", PROJECT)
    heads = options.pop("heads", 8)
    return Perceiver(
        in_width,
        _rows(weights, "proj.weight") if "proj.weight" in weights else in_width,
        queries=queries,
        depth=_count(weights, "layers."),
        heads=heads,
        head_width=_rows(weights, "layers.0.to_q.weight") // heads,
        expansion=_rows(weights, "layers.0.mlp.1.weight") // in_width,
        **options,
    )


def _dino_settings(weights: Weights) -> Settings:
    width, _, patch, _ = shape_of(weights, "embeddings.patch_embeddings.projection.weight", PROJECT)
    positions = shape_of(weights, "embeddings.position_embeddings", PROJECT)[1] - 1
    registers = weights.get("embeddings.register_tokens")
    kind: Settings = {"model_type": "dinov2"}
    if registers is not None:
        kind = {"model_type": "dinov2_with_registers", "num_register_tokens": registers.shape[1]}
    return {
        **kind,
        "hidden_size": width,
        "num_hidden_layers": _count(weights, "encoder.layer."),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "image_size": math.isqrt(positions) * patch,
        "patch_size": patch,
    }


def _rows(weights: Weights, key: str) -> int:
    return shape_of(weights, key, PROJECT)[0]


def _count(weights: Weights, prefix: str) -> int:
    """Length of a list of modules."""
    numbers = [int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix)]
    if not numbers:
        raise CheckpointError(
            f"the checkpoint has nothing named {prefix}*", hint=f"it is not one of {PROJECT}"
        )
    return 1 + max(numbers)
