"""Names of an EfficientNet-B0's parameters in the published LSS checkpoints and in timm (spec section 8)."""

from __future__ import annotations

REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage
HEAD = ("_conv_head", "_bn1", "_fc")  # the classifier, which LSS carries along and never uses

_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}


def _module_names() -> dict[str, str]:
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    places = [(stage, index) for stage, repeats in enumerate(REPEATS) for index in range(repeats)]
    for block, (stage, index) in enumerate(places):
        inside = _SQUEEZE | (_SEPARABLE if block == 0 else _INVERTED)
        for reference, ours in inside.items():
            names[f"_blocks.{block}.{reference}"] = f"blocks.{stage}.{index}.{ours}"
    return names


TO_TIMM = _module_names()
TO_REFERENCE = {ours: reference for reference, ours in TO_TIMM.items()}


def rename(key: str, names: dict[str, str]) -> str | None:
    """`key` (module name, dot, tensor name) with its module renamed by `names`; None if not in there."""
    module, _, tensor = key.rpartition(".")
    return f"{names[module]}.{tensor}" if module in names else None
