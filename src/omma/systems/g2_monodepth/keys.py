"""Names of parameters here and in the published checkpoints of each architecture (spec sections 3 and 8).

Every published name has one of ours and the other way round, but for the classifier that the encoder of
ResNetSAN01 carries along.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

Architecture = Literal["unet", "spnet", "pacgdc", "resnetsan"]
CLASSIFIER = "encoder.encoder.fc."  # of ResNetSAN01, never used

_REZERO = {"left.1.": "reduce.", "left.3.": "spatial.", "left.5.": "expand.", "right.": "shortcut."}
_BATCH_NORM = {
    "left.0.": "norm1.",
    "left.2.": "reduce.",
    "left.3.": "norm2.",
    "left.5.": "spatial.",
    "left.6.": "norm3.",
    "left.8.": "expand.",
    "right.": "shortcut.",
}
_ENCODER = ("encoder.downsample_layers.", "encoder.stages.", "decoder.upsample_layers.")
_SECTIONS: dict[Architecture, tuple[str, ...]] = {
    "unet": (),  # ours are in the same order
    "spnet": (*_ENCODER, "decoder.fusion_layers.", "decoder.stages.", "decoder.head."),
    "pacgdc": (*_ENCODER, "decoder.stages.", "decoder.fusion_layers."),
    "resnetsan": ("weight", "bias", "encoder.", "decoder."),
}
_UP_LEVELS = 5  # of SPNet and PacGDC, and of the decoder of ResNetSAN01


def architecture_of(names: Collection[str]) -> Architecture | None:
    """Which published architecture has such names, prefixes cut; None: none of those known here."""
    if any(name.startswith("encoder.downsample_layers.") for name in names):
        return "pacgdc" if any(".projection." in name for name in names) else "spnet"
    if any(name.startswith("encoder.encoder.") for name in names):
        return "resnetsan"
    return "unet" if any(name.startswith("block.") for name in names) else None


def our_name(name: str, architecture: Architecture, *, option: bool) -> str:
    """Our name of a published parameter or buffer.

    Args:
        name: theirs, prefixes module. and model. cut.
        architecture: which one it is of.
        option: UNet: it has batch normalisation; ResNetSAN01: it has two heads.
    """
    if architecture == "unet":
        return _unet_name(name, batch_norm=option)
    if architecture == "resnetsan":
        return _replace_start(name, _san_names(dual_head=option))
    return _spnet_name(name, architecture)


def reference_name(name: str, architecture: Architecture, *, option: bool) -> str:
    """The published name of one of our parameters or buffers; arguments as for `our_name`."""
    if architecture == "unet":
        return _reference_unet_name(name, batch_norm=option)
    if architecture == "resnetsan":
        return _replace_start(name, _swapped(_san_names(dual_head=option)))
    return _reference_spnet_name(name, architecture)


def in_their_order(names: Collection[str], architecture: Architecture) -> list[str]:
    """Published names in the order in which the original network has its parameters."""
    sections = _SECTIONS[architecture]

    def place(name: str) -> tuple[int, list[int]]:
        section = next((i for i, start in enumerate(sections) if name.startswith(start)), len(sections))
        numbered = sections and name.startswith(("encoder.downsample", "encoder.stages", "decoder."))
        return section, [int(word) for word in name.split(".") if word.isdigit()] if numbered else []

    return sorted(names, key=place)


def bottleneck_name(name: str, *, batch_norm: bool) -> str:
    """Our name of a parameter of one bottleneck."""
    return _replace_start(name, _BATCH_NORM if batch_norm else _REZERO)


def _unet_name(name: str, *, batch_norm: bool) -> str:
    """`block.` once, then `2.block.` for each level further down, then which part of the level."""
    if not name.startswith("block."):
        return name
    inside, levels = name.removeprefix("block."), ""
    while inside.startswith("2.block."):
        inside, levels = inside.removeprefix("2.block."), f"{levels}inner."
    part, _, rest = inside.partition(".")
    if part in ("1", "3"):
        index, _, rest = rest.removeprefix("block.").partition(".")
        block = "before" if part == "1" else "after"
        return f"{levels}{block}.{index}.{bottleneck_name(rest, batch_norm=batch_norm)}"
    place = ("down" if levels else "stem") if part == "0" else "head"
    return f"{levels}{place}.{rest}"


def _reference_unet_name(name: str, *, batch_norm: bool) -> str:
    inside, levels = name, "block."
    while inside.startswith("inner."):
        inside, levels = inside.removeprefix("inner."), f"{levels}2.block."
    part, _, rest = inside.partition(".")
    if part in ("before", "after"):
        index, _, rest = rest.partition(".")
        names = _swapped(_BATCH_NORM if batch_norm else _REZERO)
        return f"{levels}{1 if part == 'before' else 3}.block.{index}.{_replace_start(rest, names)}"
    return f"{levels}{4 if part == 'head' else 0}.{rest}"


def _spnet_name(name: str, architecture: Architecture) -> str:
    starts, blocks = _spnet_names(architecture)
    head, separator, inside = name.partition(".block.")
    if not separator:
        return _replace_start(name, starts)
    return f"{_replace_start(f'{head}.', starts)}{_replace_start(inside, blocks)}"


def _reference_spnet_name(name: str, architecture: Architecture) -> str:
    starts, blocks = _spnet_names(architecture)
    block = re.match(r"(stages\.\d+\.\d+\.|mixers\.\d+\.)(.*)", name)
    if block is None:
        return _replace_start(name, _swapped(starts))
    return f"{_replace_start(block[1], _swapped(starts))}block.{_replace_start(block[2], _swapped(blocks))}"


def _spnet_names(architecture: Architecture) -> tuple[dict[str, str], dict[str, str]]:
    """How names start, and how they go on inside a block; theirs to ours."""
    pacgdc = architecture == "pacgdc"
    projection = "projection" if pacgdc else "conv"
    starts = {"encoder.downsample_layers.0.": "stem."}
    for i in range(_UP_LEVELS):
        starts[f"encoder.downsample_layers.{i + 1}.0.{projection}."] = f"down_norms.{i}.projection."
        starts[f"encoder.downsample_layers.{i + 1}.1."] = f"downs.{i}."
        starts[f"decoder.fusion_layers.{i}."] = f"fusions.{i}."
        starts[f"encoder.stages.{i + 2}."] = f"stages.{i}."
        starts[f"decoder.stages.{i + 2}."] = f"mixers.{i}."
        if pacgdc:
            starts[f"decoder.upsample_layers.{i + 1}.0.projection."] = f"up_norms.{i}.projection."
            starts[f"decoder.upsample_layers.{i + 1}.1."] = f"ups.{i}."
        else:
            starts[f"decoder.upsample_layers.{i}."] = f"ups.{i}."
    starts["decoder.upsample_layers.0." if pacgdc else "decoder.head."] = "head."
    last = 4 if pacgdc else 5
    blocks = {
        "0.": "spatial.",
        f"1.{projection}.": "norm.projection.",
        "2.": "expand.",
        f"{last}.": "contract.",
    }
    return starts, blocks


def _san_names(*, dual_head: bool) -> dict[str, str]:
    names = {"encoder.encoder.": "encoder.", "weight": "fusion_weight", "bias": "fusion_bias"}
    for place in range(2 * _UP_LEVELS):
        level, after = _UP_LEVELS - 1 - place // 2, place % 2
        names[f"decoder.decoder.{place}.conv.conv."] = f"upconvs.{level}.{after}."
    heads = ("integer", "fractional") if dual_head else ("inverse",)
    for place in range(4 * len(heads)):
        scale, head = divmod(place, len(heads))
        names[f"decoder.decoder.{2 * _UP_LEVELS + place}.conv."] = f"head_convs.{heads[head]}.{scale}."
    return names


def _replace_start(name: str, starts: Mapping[str, str]) -> str:
    for theirs, ours in starts.items():
        if name.startswith(theirs):
            return f"{ours}{name.removeprefix(theirs)}"
    return name


def _swapped(names: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in names.items()}
