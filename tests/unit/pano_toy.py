"""Small random networks of PanoLLaVA for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.model import PanoLLaVA, build_model
from omma.systems.panollava.text import Conversation, build_conversation, collate_text, load_tokenizer

TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
LANGUAGE: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def config(views: dict[str, Any] | None = None, **system: Any) -> PanoConfig:
    """A recipe of the small network, in stage finetune unless told otherwise."""
    usual = {
        "vision": {"name": "random", "config": TOWER},
        "language": {"name": "random", "config": LANGUAGE},
        "resampler": {"name": "mlp", "width": 40},
    }
    shown = {"image_size": (32, 32), "overlap": 0.0, **(views or {})}
    return PanoConfig.model_validate({"system": {**usual, **system}, "data": {"views": shown}})


def build(views: dict[str, Any] | None = None, *, seed: int = 0, **system: Any) -> PanoLLaVA:
    """Its network, the same for the same seed."""
    torch.manual_seed(seed)
    settings = config(views, **system)
    return build_model(settings.system, settings.data)


def conversation(**system: Any) -> Conversation:
    """Its conversation."""
    settings = config(**system).system
    return build_conversation(settings.text, load_tokenizer(settings.language))


def batch(model: PanoLLaVA, talk: Conversation | None = None) -> dict[str, Tensor]:
    """Two samples of different length with normalised views."""
    talk = talk or conversation()
    rows = [("what stands in front of the window", "a red chair"), ("weather", "It is sunny and clear.")]
    generator = torch.Generator().manual_seed(0)
    size = (2, model.num_views, 3, 32, 32)
    views = torch.randint(0, 256, size, generator=generator).to(torch.uint8)
    text = collate_text([talk.encode(*row) for row in rows], talk.pad_id)
    return {"views": model.vision.normalise(views), **text}


def loss_of(model: PanoLLaVA, sample: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and logits of a batch."""
    names = ("views", "input_ids", "attention_mask", "labels")
    loss, logits = model(*(sample[name] for name in names))
    return loss, logits
