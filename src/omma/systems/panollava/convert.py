"""Checkpoints of PanoLLaVA and of its later states up to CORA, to our names (spec section 8).

A file is Lightning's {"state_dict": ..., "hyper_parameters": ...} or bare. Sizes are read off shapes; heads
of attentions and what else no shape says are options.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from omma.core.reference_state import load_strictly, plain_state, shape_of
from omma.errors import CheckpointError, ConfigError
from omma.systems.panollava.architecture import (
    PROJECT,
    build_published_resampler,
    build_token_mlp,
    language_settings,
    norm_of,
    part_of,
    resampler_of,
    tower_settings,
)
from omma.systems.panollava.config import LanguageSection, LoraSection, VisionSection
from omma.systems.panollava.keys import (
    LANGUAGE,
    NORM,
    OVERLAP_HEAD,
    RESAMPLER,
    VISION,
    generation_of,
    our_names,
    resampler_names,
    token_mlp_names,
)
from omma.systems.panollava.language import LanguageModel
from omma.systems.panollava.lora import add_adapters
from omma.systems.panollava.model import PanoLLaVA
from omma.systems.panollava.pretrained import causal_model, tower_model
from omma.systems.panollava.projector import Projector
from omma.systems.panollava.published import Options, PublishedModel, options_of, published_projector
from omma.systems.panollava.to_published import published_statistics
from omma.systems.panollava.to_published import to_reference as to_reference
from omma.systems.panollava.vision import FAMILIES, VisionTower

CONTAINERS = ("state_dict", "model_state_dict")
PARTS = ("resampler", "vicreg_projector", "projector")
_EMBEDDING, _HEAD = f"{LANGUAGE}model.embed_tokens.weight", f"{LANGUAGE}lm_head.weight"
_ADAPTER_DOWN = ".lora_A."
_POSITION_CODE = "projector.code."  # without effect where its gate is closed, as in every published file


def load_reference(
    state_dict: Mapping[str, Any],
    *,
    vision: Mapping[str, Any] | None = None,
    language: Mapping[str, Any] | None = None,
    resampler: Mapping[str, Any] | None = None,
    lora_alpha: int | None = None,
    panorama_id: int | None = None,
    **options: Any,
) -> PublishedModel:
    """The network with a published checkpoint's weights under the original's call, in eval mode.

    Args:
        state_dict: tensors or arrays, bare or under "state_dict"; prefixes of wrappers are cut.
        vision: settings of transformers' class for the tower that shapes do not say or that differ from the
            published ones, such as num_attention_heads.
        language: the same for the language model, such as num_attention_heads and rope_theta.
        resampler: what its shapes do not say: heads, causal, pool_tokens, pooling, stride, queries.
        lora_alpha: of adapters; default twice their rank, as published.
        panorama_id: placeholder in the ids; default of CORA's files the last row of the embeddings, otherwise
            none.
        options: further fields of `published.Options`: stitch, overlap, position, whole_first, layout.

    Returns:
        (pixel_values, input_ids, attention_mask, labels) -> (loss, logits); pixels are taken as they come.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes.
    """
    plain = plain_state(state_dict, *CONTAINERS)
    generation = generation_of(plain)
    weights = _split_tied(our_names(plain))
    tower = _tower(weights, vision)
    sampler = resampler_of(weights, resampler)
    image_size = _image_size(tower)
    lm = _language(part_of(weights, LANGUAGE), language, lora_alpha)
    projector = Projector(
        sampler.width, lm.width, views=[], grid=sampler.out_grid(tower.grid(image_size)), position="none"
    )
    model = PanoLLaVA(
        tower, views=[], image_size=image_size, resampler=sampler, projector=projector, language=lm
    )
    head = part_of(weights, OVERLAP_HEAD)
    own = {name: value for name, value in weights.items() if not name.startswith(OVERLAP_HEAD)}
    load_strictly(model, own | _statistics(model), PROJECT)
    if panorama_id is None and generation == "head":
        panorama_id = weights[_EMBEDDING].shape[0] - 1
    settings = options_of(generation, {**options, "panorama_id": panorama_id})
    overlap_head = load_reference_part("vicreg_projector", head) if head else None
    published = PublishedModel(model, settings, overlap_head=overlap_head)  # type: ignore[arg-type]
    return published.eval()


def load_reference_part(
    name: str, state_dict: Mapping[str, Any], *, prefix: str = "", **options: Any
) -> nn.Module:
    """One part with published weights, in eval mode.

    Args:
        name: "resampler", tokens (N, S, D) and their grid -> tokens; "vicreg_projector", tokens -> tokens; or
            "projector", tokens (B, V, S, D) and directions, which do not matter, -> words (B, N, D).
        state_dict: its tensors or arrays.
        prefix: of their names.
        options: of a projector num_views, grid (rows, columns) and fields of `published.Options`; of the
            others what shapes do not say, as `resampler` of `load_reference`.

    Raises:
        CheckpointError: keys are missing, left over or of other shapes.
        ConfigError: there is no such part.
    """
    if name not in PARTS:
        raise ConfigError(f"{PROJECT} has no part {name}", hint=f"the parts are {', '.join(PARTS)}")
    plain = {key.removeprefix(prefix): torch.as_tensor(value) for key, value in state_dict.items()}
    part: nn.Module
    if name == "vicreg_projector":
        weights = token_mlp_names({key.removeprefix("mlp."): value for key, value in plain.items()})
        part = build_token_mlp(weights, options)
    elif name == "projector":
        weights = {f"linear.{key.removeprefix('linear.')}": value for key, value in plain.items()}
        width, in_width = shape_of(weights, "linear.weight", PROJECT)
        grid, num_views = options.pop("grid", None), options.pop("num_views")
        part = published_projector(nn.Linear(in_width, width), grid, num_views, Options(**options))
    else:
        weights = resampler_names(plain)
        part = build_published_resampler(weights, options)
    load_strictly(part, weights, PROJECT)
    return part


def from_reference(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict, or a model_final.safetensors of ours, under our names.

    The colour statistics become those that its training used. Tied embeddings stay once; a head for the
    overlap loss is left out, for here that loss takes the tokens themselves.

    Raises:
        CheckpointError: it has no image tower.
    """
    plain = plain_state(state_dict, *CONTAINERS)
    if _is_ours(plain):
        return plain
    weights = _split_tied(our_names(plain))
    if not any(name.startswith(VISION) for name in weights):
        first = ", ".join(list(plain)[:3]) or "none"
        raise CheckpointError(
            f"the checkpoint's names (first: {first}) are those of no network known here",
            hint=f"it should be of {PROJECT}",
        )
    kept = {name: value for name, value in weights.items() if not name.startswith(OVERLAP_HEAD)}
    mean, std = _published_statistics(weights, generation_of(plain))
    return {**kept, "vision.mean": torch.tensor(mean), "vision.std": torch.tensor(std)}


@torch.no_grad()
def read_back(model: PanoLLaVA, content: Mapping[str, Any]) -> float:
    """Largest difference of tokens or words between a network and a published file that was made of it.

    Args:
        model: the network.
        content: of the file.
    """
    again = copy.deepcopy(model).eval()
    for value in again.state_dict().values():
        value.zero_()  # whatever the file lacks is seen
    missing, extra = again.load_state_dict(from_reference(content), strict=False)
    wrong = [name for name in (*missing, *extra) if not name.startswith(_POSITION_CODE)]
    if wrong:
        raise CheckpointError(f"the written file does not fit its own network: {wrong[0]}")
    side = _image_size(model.vision)
    pixels = torch.randint(0, 256, (1, model.num_views, 3, *side), generator=torch.Generator().manual_seed(0))

    def outputs(network: PanoLLaVA) -> Tensor:
        tokens = network.encode(network.vision.normalise(pixels))
        return tokens if network.projector is None else network.words(tokens)

    return float((outputs(model.eval()) - outputs(again)).abs().max())


def settings_of(content: Mapping[str, Any]) -> list[str]:
    """Overrides that give a published file's resampler, order of words and place of the panorama.

    Args:
        content: of the file; tower and language model are taken from its hyper-parameters where it has them.
            A file of ours tells nothing: the recipe says.
    """
    plain = plain_state(content, *CONTAINERS)
    if _is_ours(plain):
        return []
    modern = generation_of(plain) == "head"
    words = [
        f"system.projector.stitch={'stride_views' if modern else 'views'}",
        f"system.projector.position={'columns' if modern else 'none'}",
        f"system.text.placement={'placeholder' if modern else 'prefix'}",
    ]
    ours = our_names(plain)
    if f"{NORM}weight" in ours:
        words.append("system.vision.norm=true")
    inside = part_of(ours, RESAMPLER)
    if any(name.startswith("layers.") and name.count(".") == 2 for name in inside):
        mlp = build_token_mlp(inside)
        first = mlp.layers[0].weight
        norm = norm_of(inside)
        fields = f"name: mlp, width: {mlp.width}, hidden: {first.shape[0]}, norm: {norm}"
        words.append(f"system.resampler={{{fields}, depth: {_linear_layers(mlp)}}}")
    down = next((value for name, value in ours.items() if _ADAPTER_DOWN in name), None)
    if down is not None:
        words.append(f"system.lora={{rank: {down.shape[0]}, alpha: {2 * down.shape[0]}}}")
    told = content.get("hyper_parameters", {})
    for part, key in (("vision", "vision_name"), ("language", "lm_name")):
        if isinstance(told, Mapping) and isinstance(told.get(key), str):
            words.append(f"system.{part}.name={told[key]}")
    return words


def _is_ours(plain: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(VISION) for name in plain)


def _linear_layers(mlp: nn.Module) -> int:
    return sum(isinstance(module, nn.Linear) for module in mlp.modules())


def _split_tied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the output layer's copy of the embeddings."""
    embedding, head = weights.get(_EMBEDDING), weights.get(_HEAD)
    same = embedding is not None and head is not None and torch.equal(embedding, head)
    return {name: value for name, value in weights.items() if not (same and name == _HEAD)}


def _tower(weights: Mapping[str, Tensor], told: Mapping[str, Any] | None) -> VisionTower:
    settings = tower_settings(part_of(weights, VISION), told)
    model = tower_model(
        VisionSection(name="random", config={"model_type": settings["model_type"], **settings})
    )
    return VisionTower(model, norm=f"{NORM}weight" in weights)


def _language(
    weights: Mapping[str, Tensor], told: Mapping[str, Any] | None, alpha: int | None
) -> LanguageModel:
    config = language_settings(weights, told)
    lm = causal_model(LanguageSection(name="random", config=config), entries=config["vocab_size"])
    down = {name: value for name, value in weights.items() if _ADAPTER_DOWN in name}
    if down:
        rank = next(iter(down.values())).shape[0]
        targets = sorted({name.split(_ADAPTER_DOWN)[0].rpartition(".")[2] for name in down})
        section = LoraSection(rank=rank, alpha=alpha or 2 * rank, dropout=0.0, targets=targets)
        add_adapters(lm, section)
    return LanguageModel(lm, stop_ids=[], pad_id=0)


def _image_size(tower: VisionTower) -> tuple[int, int]:
    side = tower.encoder.config.image_size
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def _statistics(model: PanoLLaVA) -> dict[str, Tensor]:
    return {"vision.mean": model.vision.mean, "vision.std": model.vision.std}


def _published_statistics(
    weights: Mapping[str, Tensor], generation: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of RGB that a training subtracted and divided by: at first none, then ImageNet's."""
    if generation == "seed":
        return published_statistics(norm=f"{NORM}weight" in weights)
    family = FAMILIES[tower_settings(part_of(weights, VISION))["model_type"]]
    return family.mean, family.std
