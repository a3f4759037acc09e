"""Names of parameters in the published checkpoints and here (spec section 8).

Three generations: "seed" (the first pipeline, also with LoRA and with a layer norm behind the encoder), "nov"
(`vision_backbone.`) and "head" (CORA). Some tensors stand in a file under two names, which become one here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

Generation = Literal["seed", "nov", "head"]

VISION, NORM, RESAMPLER = "vision.encoder.", "vision.norm.", "resampler."
LINEAR, LANGUAGE, OVERLAP_HEAD = "projector.linear.", "language.lm.", "vicreg_projector."

_PREFIXES: dict[Generation, dict[str, str]] = {
    "seed": {
        "vision_encoder.": VISION,
        "vicreg_norm.": NORM,
        "resampler.": RESAMPLER,
        "vision_to_language_projection.": LINEAR,
        "language_model.": LANGUAGE,
    },
    "nov": {
        "vision_backbone.encoder.": VISION,
        "vision_backbone.norm.": NORM,
        "resampler_module.resampler.": RESAMPLER,
        "resampler.resampler.": RESAMPLER,
        "resampler.": RESAMPLER,
        "projector.linear.": LINEAR,
        "vision_to_language_projection.linear.": LINEAR,
        "vision_to_language_projection.": LINEAR,
        "language_model_wrapper.model.": LANGUAGE,
        "language_model.": LANGUAGE,
    },
    "head": {
        "vision_encoder.encoder.": VISION,
        "vision_encoder.norm.": NORM,
        "resampler_module.resampler.": RESAMPLER,
        "resampler.resampler.": RESAMPLER,
        "projector.linear.": LINEAR,
        "vision_to_language_projection.linear.": LINEAR,
        "language_model_wrapper.model.": LANGUAGE,
        "language_model.": LANGUAGE,
        "vicreg_projector.": OVERLAP_HEAD,
    },
}
_RESAMPLER_NAMES = (
    (r"linear1\.", "layers.0."),
    (r"bn1\.", "layers.1."),
    (r"linear2\.", "layers.3."),
    (r"perceiver\.layers\.(\d+)\.0\.norm_media\.", r"layers.\1.norm_tokens."),
    (r"perceiver\.layers\.(\d+)\.0\.", r"layers.\1."),
    (r"perceiver\.layers\.(\d+)\.1\.", r"layers.\1.mlp."),
    (r"perceiver\.", ""),
    (r"bert\.embeddings\.LayerNorm\.", "norm."),
    (r"bert\.encoder\.layer\.(\d+)\.attention\.self\.", r"layers.\1.attention."),
    (r"bert\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.attention.dense."),
    (r"bert\.encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"layers.\1.attention.norm."),
    (r"bert\.encoder\.layer\.(\d+)\.crossattention\.self\.", r"layers.\1.cross_attention."),
    (r"bert\.encoder\.layer\.(\d+)\.crossattention\.output\.dense\.", r"layers.\1.cross_attention.dense."),
    (r"bert\.encoder\.layer\.(\d+)\.crossattention\.output\.LayerNorm\.", r"layers.\1.cross_attention.norm."),
    (r"bert\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.expand."),
    (r"bert\.encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.contract."),
    (r"bert\.encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"layers.\1.norm."),
    (r"proj\.(\d+)\.", r"mlp.layers.\1."),
    (r"(stage[12]\.\d+)\.dwconv\.", r"\1.depthwise."),
    (r"(stage[12]\.\d+)\.norm\.norm\.", r"\1.norm."),
    (r"(stage[12]\.\d+)\.pw1\.", r"\1.expand."),
    (r"(stage[12]\.\d+)\.pw2\.", r"\1.contract."),
    (r"(stage[12]\.\d+)\.se\.fc\.", r"\1.squeeze."),
    (r"final_norm\.", "norm."),
    (r"(blocks\.\d+)\.forward_block\.", r"\1.ahead."),
    (r"(blocks\.\d+)\.backward_block\.", r"\1.back."),
)
_UNUSED_BERT = ("bert.pooler.", "bert.embeddings.word_embeddings.", "bert.embeddings.position_ids")
_POSITIONS = "bert.embeddings.position_embeddings.weight"
_TYPES = "bert.embeddings.token_type_embeddings.weight"


def generation_of(names: Collection[str]) -> Generation:
    """Which generation a checkpoint's names, without wrappers' prefixes, are of."""
    if any(name.startswith("vision_backbone.") for name in names):
        return "nov"
    modern = ("projector.", "resampler_module.", "resampler.resampler.", "vision_encoder.encoder.embeddings.")
    return "head" if any(name.startswith(modern) for name in names) else "seed"


def our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names; of a head for the overlap loss under theirs; unknown ones as they are."""
    prefixes = _PREFIXES[generation_of(weights)]
    moved: dict[str, Tensor] = {}
    for name, value in weights.items():
        theirs = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        ours = name if theirs is None else f"{prefixes[theirs]}{name.removeprefix(theirs)}"
        moved[_without_wrappers(ours)] = value
    inside = {name.removeprefix(RESAMPLER): v for name, v in moved.items() if name.startswith(RESAMPLER)}
    rest = {name: value for name, value in moved.items() if not name.startswith(RESAMPLER)}
    return rest | {f"{RESAMPLER}{name}": value for name, value in resampler_names(inside).items()}


def resampler_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A resampler's tensors, without prefix, under our names; a Q-Former's positions join its query."""
    weights = {name: value for name, value in weights.items() if not name.startswith(_UNUSED_BERT)}
    if any(name.startswith("mlp.") for name in weights):
        return token_mlp_names({name.removeprefix("mlp."): value for name, value in weights.items()})
    if _POSITIONS in weights:
        query = weights["query"][0] + weights[_TYPES][0]
        weights["query"] = query + weights[_POSITIONS][: len(query)]
        weights = {name: value for name, value in weights.items() if name not in (_POSITIONS, _TYPES)}
    return {_renamed(name): value for name, value in weights.items()}


def token_mlp_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published row of layers, "0.weight" and so on, under our names, which count no dropout."""
    numbers = sorted({int(name.split(".")[0]) for name in weights})
    linear = [number for number in numbers if weights[f"{number}.weight"].ndim > 1]
    step = 3 if len(numbers) > len(linear) else 2
    places = {}
    for number in numbers:
        last = sum(other <= number for other in linear) - 1
        places[number] = step * last + (number not in linear)
    moved = {}
    for name, value in weights.items():
        number, _, rest = name.partition(".")
        moved[f"layers.{places[int(number)]}.{rest}"] = value
    return moved


def _without_wrappers(name: str) -> str:
    if name.startswith(VISION):
        return name.replace(f"{VISION}vision_model.", VISION, 1)
    if name.startswith(LANGUAGE):
        return name.replace(f"{LANGUAGE}base_model.model.", LANGUAGE, 1).replace(".base_layer.", ".")
    return name


def _renamed(name: str) -> str:
    for pattern, ours in _RESAMPLER_NAMES:
        found, times = re.subn(rf"^{pattern}", ours, name)
        if times:
            return found
    return name
