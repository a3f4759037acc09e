"""PanoLLaVA: views of a panorama and a question to an answer.

An image tower makes tokens of every view, a resampler and a linear layer make words of them, and a causal
language model reads these between the words of the question. All views of a panorama reach their sample.
Shapes: B panoramas, V views, S tokens of one, N words of a panorama, L ids, D features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omma.core.panorama_positions import token_directions
from omma.errors import ConfigError
from omma.systems.panollava.language import Decoding, Fused, LanguageModel, build_language, fuse
from omma.systems.panollava.projector import Projector
from omma.systems.panollava.resamplers import Resampler, build_resampler
from omma.systems.panollava.text import build_conversation, load_tokenizer
from omma.systems.panollava.views import view_layout
from omma.systems.panollava.vision import VisionTower, build_tower

if TYPE_CHECKING:
    from omma.core.panorama import View
    from omma.systems.panollava.config import PanoData, PanoSystem, Part

Size = tuple[int, int]
_STAGES: Mapping[str, tuple[Part, ...]] = {
    "vision": ("vision",),
    "resampler": ("vision", "resampler", "projector"),
    "finetune": ("resampler", "projector"),
}


class PanoLLaVA(nn.Module):
    """Views and text to the loss of the answer, or to an answer.

    Args:
        tower: views to tokens.
        views: where they look; None is the whole panorama.
        image_size: (height, width) of a view.
        resampler: the tower's tokens to the projector's; None: only the tower is there.
        projector: to the language model's words; None: only the tower is there.
        language: the language model; None: only the tower is there.
    """

    directions: Tensor

    def __init__(
        self,
        tower: VisionTower,
        *,
        views: Sequence[View | None],
        image_size: Size,
        resampler: Resampler | None = None,
        projector: Projector | None = None,
        language: LanguageModel | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.resampler = tower, resampler
        self.projector, self.language = projector, language
        self.num_views, self.grid = len(views), tower.grid(image_size)
        directions = torch.zeros(0)
        if resampler is not None and projector is not None:
            directions = _directions(views, projector.grid, resampler.count(self.grid))
        self.register_buffer("directions", directions, persistent=False)

    def parts(self) -> dict[Part, nn.Module]:
        """The parts that are there, by the names of `system.train`."""
        named: dict[Part, nn.Module | None] = {
            "vision": self.vision,
            "resampler": self.resampler,
            "projector": self.projector,
            "language": self.language,
        }
        return {name: part for name, part in named.items() if part is not None}

    def train_only(self, names: Collection[Part]) -> None:
        """Let some parts learn and freeze the others; of a language model with adapters these alone learn.

        Raises:
            ConfigError: a part is not there.
        """
        parts = self.parts()
        missing = [name for name in names if name not in parts]
        if missing:
            raise ConfigError(
                f"system.train has {', '.join(missing)}, which this stage does not build",
                hint="in system.stage=vision there is the image tower alone",
            )
        self.requires_grad_(False)
        for name in names:
            if name == "vision":
                self.vision.requires_grad_(True)
                self.vision.freeze_unused()
            elif name == "language" and self.language is not None and self.language.adapters:
                for parameter in self.language.adapters:
                    parameter.requires_grad_(True)
            else:
                parts[name].requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> PanoLLaVA:
        """As of any module, but frozen parts stay in eval mode: no dropout, no statistics of batches."""
        super().train(mode)
        for part in self.parts().values():
            if not _learns(part):
                part.eval()
        return self

    def encode(self, views: Tensor) -> Tensor:
        """Tokens (B, V, S, D) of normalised views (B, V, 3, h, w); no gradient if the tower is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and _learns(self.vision)):
            return self.vision(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def resample(self, tokens: Tensor) -> Tensor:
        """Tokens (B, V, S', D') of the tower's (B, V, S, D)."""
        resampler, _, _ = self._all_parts()
        return resampler(tokens.flatten(0, 1), self.grid).unflatten(0, tokens.shape[:2])

    def words(self, tokens: Tensor, directions: Tensor | None = None) -> Tensor:
        """Words (B, N, D) of the language model.

        Args:
            tokens: of the tower, (B, V, S, D).
            directions: unit vectors to the projector's tokens, (V, S', 3); default those of its own views.
        """
        _, projector, _ = self._all_parts()
        return projector(self.resample(tokens), self.directions if directions is None else directions)

    def forward(
        self, views: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of the answers, and logits (M, vocabulary) where the M labels are predicted.

        Args:
            views: normalised, (B, V, 3, h, w).
            input_ids: int64 (B, L), filled up at the end, with or without placeholder.
            attention_mask: int64 (B, L).
            labels: int64 (B, L), -100 where nothing is learned.

        Raises:
            DataError: the batch has no label.
        """
        _, _, language = self._all_parts()
        words = self.words(self.encode(views))
        embeds, mask, fused = self.fuse(words, input_ids, attention_mask, labels)
        assert fused is not None, "labels go in"
        return language(embeds, mask, fused)

    def fuse(
        self, words: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Fused:
        """The words of panoramas within those of texts, filled up at the end; see `language.fuse`."""
        _, _, language = self._all_parts()
        return fuse(language.embed(input_ids), input_ids, attention_mask, words, labels=labels)

    @torch.no_grad()
    def generate(self, views: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, settings: Decoding) -> Tensor:
        """Ids (B, G) of answers, filled up behind the stop token.

        Args:
            views: normalised, (B, V, 3, h, w).
            prompt_ids: int64 (B, P), filled up at the start.
            prompt_mask: int64 (B, P).
            settings: `system.generate`.
        """
        _, _, language = self._all_parts()
        words = self.words(self.encode(views))
        text = language.embed(prompt_ids)
        embeds, mask, _ = fuse(text, prompt_ids, prompt_mask, words, left=True)
        return language.generate(embeds, mask, settings)

    def words_per_panorama(self) -> int:
        """N."""
        resampler, projector, _ = self._all_parts()
        return projector.count(resampler.count(self.grid))

    def checkpoint_blocks(self) -> list[nn.Module]:
        """Layers whose activations may be recomputed in the backward pass."""
        layers = self.vision.checkpoint_blocks()
        return layers if self.language is None else [*layers, *self.language.checkpoint_blocks()]

    def _all_parts(self) -> tuple[Resampler, Projector, LanguageModel]:
        assert self.resampler is not None
        assert self.projector is not None
        assert self.language is not None
        return self.resampler, self.projector, self.language


def learning_parts(system: PanoSystem) -> tuple[Part, ...]:
    """Parts that a recipe lets learn: `system.train`, or the stage's and the adapters."""
    if system.train is not None:
        return tuple(system.train)
    adapters: tuple[Part, ...] = ("language",) if system.lora and system.stage == "finetune" else ()
    return (*_STAGES[system.stage], *adapters)


def build_model(system: PanoSystem, data: PanoData) -> PanoLLaVA:
    """The network that a recipe describes, its frozen parts frozen; in stage vision the tower alone.

    Raises:
        ConfigError: a part cannot be had, or settings do not fit one another.
        CheckpointError: published weights are incomplete.
    """
    tower = build_tower(system.vision)
    views, size = view_layout(data.views), data.views.image_size
    if system.stage == "vision":
        model = PanoLLaVA(tower, views=views, image_size=size)
    else:
        resampler = build_resampler(system.resampler, tower.width)
        conversation = build_conversation(system.text, load_tokenizer(system.language))
        language = build_language(system.language, system.lora, conversation)
        projector = Projector(
            resampler.width,
            language.width,
            views=views,
            grid=resampler.out_grid(tower.grid(size)),
            stitch=system.projector.stitch,
            overlap=data.views.overlap,
            pool=system.projector.pool,
            position=system.projector.position,
        )
        model = PanoLLaVA(
            tower,
            views=views,
            image_size=size,
            resampler=resampler,
            projector=projector,
            language=language,
        )
    model.train_only(learning_parts(system))
    return model


def _directions(views: Sequence[View | None], grid: Size | None, count: int) -> Tensor:
    """Of the projector's tokens, (V, S', 3); those without a grid have their view's."""
    if grid is not None:
        return token_directions(views, grid)
    return token_directions(views, (1, 1)).expand(-1, count, -1).contiguous()


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
