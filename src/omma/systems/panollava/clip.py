"""CLIP-S of answers by a CLIP-like model of transformers in a folder; see `omma.core.clip_scores`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.core.clip_scores import clip_s, ref_clip_s
from omma.errors import ConfigError
from omma.systems.panollava.vision import FAMILIES

NAMES = ("clip_s", "ref_clip_s")
UNAVAILABLE = dict.fromkeys(NAMES, "needs a CLIP-like model: system.generate.clip=FOLDER")
_KEY = "system.generate.clip"
_NOTHING = "."  # stands for an empty answer, whose score does not count


class ClipScorer:
    """Scores texts against views and other texts.

    Args:
        model: has get_image_features and get_text_features.
        tokenizer: of its texts.
        device: where it computes.

    Raises:
        ConfigError: the model compares no images with texts, or its colour statistics are not known.
    """

    def __init__(self, model: nn.Module, tokenizer: object, device: torch.device) -> None:
        self.model, self.tokenizer, self.device = model.to(device).eval(), tokenizer, device
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise ConfigError(
                f"{_KEY}: a {model.config.model_type} compares no images with texts",
                hint="give a folder of clip or siglip",
            )
        vision = model.config.vision_config
        if vision.model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ConfigError(
                f"{_KEY}: colour statistics of a {vision.model_type} are not known", hint=f"known: {known}"
            )
        family = FAMILIES[vision.model_type]
        self.size = vision.image_size
        self.mean, self.std = (
            torch.tensor(c, device=device)[:, None, None] for c in (family.mean, family.std)
        )
        self.longest = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def images(self, views: Tensor) -> Tensor:
        """Embeddings (N, D) of views (N, 3, h, w) uint8."""
        scaled = views.to(self.device).float() / 255
        scaled = F.interpolate(scaled, size=(self.size, self.size), mode="bicubic", antialias=True)
        found = self.model.get_image_features(pixel_values=(scaled.clamp(0, 1) - self.mean) / self.std)
        return _features(found)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts; long ones are cut to what the model reads."""
        filled = "max_length" if self.model.config.model_type.startswith("siglip") else True
        tokens = self.tokenizer(
            list(texts), padding=filled, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        names = [name for name in ("input_ids", "attention_mask") if name in tokens]
        return _features(
            self.model.get_text_features(**{name: tokens[name].to(self.device) for name in names})
        )

    def scores(
        self, views: Tensor, answers: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, list[float]]:
        """CLIP-S of each answer, and RefCLIP-S of those with references; an empty answer scores 0.

        Args:
            views: (B, V, 3, h, w) uint8; their scores are averaged.
            answers: B texts.
            references: B times any number of texts.
        """
        written = torch.tensor([bool(answer) for answer in answers], dtype=torch.float64)
        pictures = self.images(views.flatten(0, 1)).unflatten(0, views.shape[:2]).cpu()
        captions = self.texts([answer or _NOTHING for answer in answers]).cpu()
        found = {"clip_s": (clip_s(pictures, captions) * written).tolist(), "ref_clip_s": []}
        known = [place for place, own in enumerate(references) if own]
        if known:
            others = [self.texts(references[place]).cpu() for place in known]
            scores = ref_clip_s(pictures[known], captions[known], others) * written[known]
            found["ref_clip_s"] = scores.tolist()
        return found


@lru_cache(1)
def load_scorer(folder: str, device: torch.device) -> ClipScorer:
    """The scorer of a folder.

    Raises:
        ConfigError: the folder is not there, or holds no such model.
    """
    from transformers import AutoModel, AutoTokenizer

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"{_KEY}={folder}: no such folder", hint="leave it out: clip_s is null then")
    try:
        model = AutoModel.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_KEY}={folder} cannot be read: {str(error).splitlines()[0]}",
            hint="it needs config.json, weights and the tokenizer's files",
        ) from error
    return ClipScorer(model.float(), tokenizer, device)


def _features(found: object) -> Tensor:
    """Of a model's answer, which is a tensor before version 5 of transformers."""
    features = getattr(found, "pooler_output", found)
    assert isinstance(features, Tensor)
    return features
