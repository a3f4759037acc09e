"""Small random networks of PanoLLaVA for tests, and the coloured squares that one of them learns about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omma.data.dataset import Sample, Samples
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.model import PanoLLaVA, build_model
from omma.systems.panollava.text import Conversation, build_conversation, collate_text, load_tokenizer
from omma.systems.panollava.views import ViewCutter

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
DIRECTIONS = ("front", "right", "back", "left")
COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 40, 220),
    "yellow": (230, 210, 20),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
}
SIDE, SQUARE = 16, 8  # pixels of a view and of the square in it
_FINER = 2  # pixels of the panorama for one of a view, in its middle
_NOISE = 0.3  # of half the range of a pixel, around grey


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


class Squares(Samples):
    """Four directions with a square of one of six colours each, anywhere; one colour is asked for.

    Args:
        seeds: of the samples.
        settings: of the network that learns; its views look ahead, right, back and left.
        rendered: whether the views are cut out of a panorama with the squares, else they are painted.
    """

    def __init__(self, seeds: range, settings: PanoConfig, *, rendered: bool = False) -> None:
        self.seeds, self.rendered = seeds, rendered
        self.cutter = ViewCutter(settings.data.views)
        self.talk = build_conversation(settings.system.text, load_tokenizer(settings.system.language))

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"squares-{self.seeds[index]:05d}"

    def files(self) -> list[Path]:
        return []

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        del rng  # the seed says all
        own = np.random.default_rng([SIDE, self.seeds[index]])
        names = [str(name) for name in own.choice(list(COLOURS), len(DIRECTIONS))]
        asked = int(own.integers(len(DIRECTIONS)))
        views = self.cutter(panorama(names, own)) if self.rendered else painted(names, own)
        return {
            "token": self.name(index),
            "image_path": self.name(index),
            "query": DIRECTIONS[asked],
            "references": [names[asked]],
            "views": torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2))),
            "yaw_deg": torch.tensor(0.0),
            "example": self.talk.encode(DIRECTIONS[asked], names[asked]),
        }


def painted(names: list[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Views (4, 16, 16, 3) with a square each."""
    views = _grey((len(names), SIDE, SIDE), rng)
    for view, name in zip(views, names, strict=True):
        top, left = rng.integers(0, SIDE - SQUARE + 1, 2)
        view[top : top + SQUARE, left : left + SQUARE] = COLOURS[name]
    return views


def panorama(names: list[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A panorama (64, 128, 3) with squares around yaw 0, 90, 180 and 270."""
    quarter, square = _FINER * SIDE, _FINER * SQUARE
    picture = _grey((2 * quarter, 4 * quarter), rng)
    for number, name in enumerate(names):
        top, left = rng.integers(0, quarter - square + 1, 2)
        rows = quarter // 2 + top + np.arange(square)
        middle = 2 * quarter + number * quarter
        columns = (middle - quarter // 2 + left + np.arange(square)) % picture.shape[1]
        picture[np.ix_(rows, columns)] = COLOURS[name]
    return picture


def _grey(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    noise = rng.uniform(-_NOISE, _NOISE, (*shape, 3))
    return np.rint(127.5 * (1 + noise)).astype(np.uint8)
