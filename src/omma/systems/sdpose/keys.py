"""Names of parameters here and in the published checkpoints (spec section 8)."""

from __future__ import annotations

import re
from collections.abc import Collection

BACKBONE, HEAD = "backbone.", "keypoint_head.tokenpose."
POSITIONS = f"{HEAD}pos_embedding"

_OUR_HEAD = "head."
_STEM = ("conv1.", "bn1.", "conv2.", "bn2.", "layer1.")
_ENCODERS = ("transformer_layer1.", "transformer.")  # SDPose's and TokenPose's
_HEAD = {
    "keypoint_token": "keypoint_token",
    "pos_embedding": "positions",
    "patch_to_embedding.": "patch_to_token.",
    "mlp_head.": "output.",
}
_LAYER = {
    "0.fn.norm.": "norm1.",
    "0.fn.fn.to_qkv.": "qkv.",
    "0.fn.fn.to_out.0.": "proj.",
    "1.fn.norm.": "norm2.",
    "1.fn.fn.net.0.": "mlp.0.",
    "1.fn.fn.net.3.": "mlp.2.",
}
_OUR_HEAD_NAMES = {ours: theirs for theirs, ours in _HEAD.items()}
_OUR_LAYER_NAMES = {ours: theirs for theirs, ours in _LAYER.items()}


def is_hrnet(names: Collection[str]) -> bool:
    """Whether the names, theirs or ours, with `backbone.` or without, are those of an HRNet."""
    return any("transition1." in name for name in names)


def our_name(name: str, *, hrnet: bool) -> str:
    """Our name of a published parameter or buffer, wrappers' prefixes cut; unknown ones stay as they are."""
    if name.startswith(BACKBONE):
        inside = name.removeprefix(BACKBONE)
        return f"{BACKBONE}{'stem.' if hrnet and inside.startswith(_STEM) else ''}{inside}"
    if not name.startswith(HEAD):
        return name
    inside = name.removeprefix(HEAD)
    for encoder in _ENCODERS:
        layer = re.fullmatch(rf"{encoder}layers\.(\d+)\.(.+)", inside)
        if layer:
            return f"{_OUR_HEAD}encoder.layers.{layer[1]}.{_replace_start(layer[2], _LAYER)}"
    return f"{_OUR_HEAD}{_replace_start(inside, _HEAD)}"


def reference_name(name: str) -> str:
    """The published name of one of our parameters or buffers."""
    if name.startswith(BACKBONE):
        return f"{BACKBONE}{name.removeprefix(BACKBONE).removeprefix('stem.')}"
    inside = name.removeprefix(_OUR_HEAD)
    layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", inside)
    if layer:
        return f"{HEAD}{_ENCODERS[0]}layers.{layer[1]}.{_replace_start(layer[2], _OUR_LAYER_NAMES)}"
    return f"{HEAD}{_replace_start(inside, _OUR_HEAD_NAMES)}"


def _replace_start(name: str, starts: dict[str, str]) -> str:
    for start, other in starts.items():
        if name.startswith(start):
            return f"{other}{name.removeprefix(start)}"
    return name
