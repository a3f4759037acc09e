"""Names of parameters here, in the reference's checkpoints, and in Swin weights (spec section 8).

Merging layers: here, in official Swin files, timm and torchvision, the channels of the four tokens follow one
another, tokens in the order (0,0), (1,0), (0,1), (1,1) of (row, column). The reference has the four tokens of
each channel together, in the order (0,0), (0,1), (1,0), (1,1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOKENS = (0, 2, 1, 3)  # the reference's order of tokens in ours, and ours in the reference's

_SWIN = (
    ("attn.w_msa.relative_position_bias_table", "attn.bias_table"),
    ("attn.w_msa.", "attn."),
    ("ffn.layers.0.0.", "mlp.0."),
    ("ffn.layers.1.", "mlp.2."),
)
_OFFICIAL = (
    ("patch_embed.proj.", "patch_embed.projection."),
    ("attn.relative_position_bias_table", "attn.bias_table"),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.2."),
    ("layers.", "stages."),
)
_TORCHVISION = (
    ("features.0.0.", "patch_embed.projection."),
    ("features.0.2.", "patch_embed.norm."),
    ("attn.relative_position_bias_table", "attn.bias_table"),
    ("mlp.3.", "mlp.2."),
)
_NOT_LOADED = ("relative_position_index", "attn_mask")
_CLASSIFIER = ("norm.", "head.", "avgpool.")


def our_name(key: str) -> str:
    """Our name of a parameter or buffer of a published network, prefixes module. and model. cut already."""
    part, _, inside = key.partition(".")
    if part == "backbone":
        return f"backbone.{swin_name(inside)}"
    if part in ("neck", "transformer"):
        return f"view.{_PON_PARTS.get(inside.partition('.')[0], '')}{inside}"
    return f"head.{inside}" if part == "decode_head" else key


_PON_PARTS = {"lateral_convs": "fpn.", "fpn_convs": "fpn.", "transformers": "pyramid."}


def reference_name(key: str) -> str:
    """The reference's name of one of our parameters or buffers.

    The view is its `neck`; PON has two parts there, the feature pyramid `neck` and `transformer`. The paper's
    refiner was never published and keeps its names.
    """
    part, _, inside = key.partition(".")
    if part == "refiner":
        return key
    if part == "backbone":
        return f"backbone.{reference_swin_name(inside)}"
    if part == "view":
        if inside.startswith("pyramid."):
            return f"transformer.{inside.removeprefix('pyramid.')}"
        return f"neck.{inside.removeprefix('fpn.')}"
    return f"decode_head.{inside}"


def swin_name(key: str) -> str:
    """Our name of a parameter of the reference's Swin transformer."""
    key = re.sub(r"^norm(\d)\.", r"norms.\1.", key)
    return _replace(key, _SWIN) if key.startswith("stages.") else key


def reference_swin_name(key: str) -> str:
    """The reference's name of a parameter of our Swin transformer."""
    for theirs, ours in (_SWIN[0], _SWIN[2], _SWIN[3]):
        if ours in key:
            return key.replace(ours, theirs)
    return re.sub(r"^norms\.(\d)\.", r"norm\1.", key.replace(".attn.", ".attn.w_msa."))


def convert_merging(key: str, value: Tensor, *, to_reference: bool = False) -> Tensor:
    """A tensor with the channels of a merging layer in our order, or the reference's; others as they are."""
    if ".downsample." not in key or not key.startswith(("backbone.stages.", "stages.")):
        return value
    order = torch.tensor(_TOKENS)
    if to_reference:
        tokens_first = value.unflatten(-1, (4, -1)).index_select(-2, order)
        return tokens_first.transpose(-1, -2).flatten(-2)
    channels_first = value.unflatten(-1, (-1, 4)).index_select(-1, order)
    return channels_first.transpose(-1, -2).flatten(-2)


def swin_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Swin transformer under our names, without the final norm and classifier.

    Args:
        weights: a whole network of the reference or its Swin alone; an official classification file;
            timm's or torchvision's; or ours.
    """
    inside = {key[9:]: value for key, value in weights.items() if key.startswith("backbone.")}
    weights = inside or weights
    weights = {key: value for key, value in weights.items() if not key.endswith(_NOT_LOADED)}
    if any(".w_msa." in key for key in weights):
        return {swin_name(key): convert_merging(swin_name(key), value) for key, value in weights.items()}
    kept = {key: value for key, value in weights.items() if not key.startswith(_CLASSIFIER)}
    if any(key.startswith("features.") for key in kept):
        return {_torchvision_name(key): value for key, value in kept.items()}
    if any(key.startswith("layers.") for key in kept):
        late = not any(key.startswith("layers.0.downsample.") for key in kept)
        return {_official_name(key, late_merging=late): value for key, value in kept.items()}
    return kept


def _official_name(key: str, *, late_merging: bool) -> str:
    """Our name of an official parameter; timm has merging layers at the start of the next stage."""
    if late_merging:
        key = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", key)
    return _replace(key, _OFFICIAL)


def _torchvision_name(key: str) -> str:
    key = _replace(key, _TORCHVISION)
    match = re.match(r"features\.(\d)\.", key)
    if match is None:
        return key
    stage, is_merging = divmod(int(match[1]) - 1, 2)
    return f"stages.{stage}.{'downsample' if is_merging else 'blocks'}.{key[match.end() :]}"


def _replace(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in names:
        key = key.replace(theirs, ours)
    return key
