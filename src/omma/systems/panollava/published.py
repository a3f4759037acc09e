"""A published network, called as the original calls it, for comparisons (spec sections 3 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.core.panorama import View
from omma.systems.panollava.language import Fused
from omma.systems.panollava.model import PanoLLaVA
from omma.systems.panollava.projector import Position, Projector, Stitch
from omma.systems.panollava.resamplers import TokenMlp
from omma.systems.panollava.text import IGNORED, PANORAMA

Size = tuple[int, int]
Layout = Literal["all_views", "as_published"]


@dataclass(frozen=True)
class Options:
    """What weights do not say.

    Args:
        stitch: order of the panorama's words.
        overlap: share of a view that the next one repeats.
        position: code of tokens' places, "none" or "columns".
        whole_first: whether the first of several views is the whole panorama.
        layout: "as_published" gives sample b view b of the first sample alone, the first pipeline's mistake.
        panorama_id: placeholder in the ids; None: the panorama comes before the text.
    """

    stitch: Stitch = "views"
    overlap: float = 0.5
    position: Position = "none"
    whole_first: bool = False
    layout: Layout = "all_views"
    panorama_id: int | None = None


@dataclass(frozen=True)
class Greedy:
    """Decoding that takes the likeliest id each time."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class PublishedModel(nn.Module):
    """A network with published weights under the original's call; any number of views.

    Args:
        model: the network.
        options: what the weights do not say.
        overlap_head: layers before the overlap loss, of files that have them.
    """

    def __init__(self, model: PanoLLaVA, options: Options, *, overlap_head: TokenMlp | None = None) -> None:
        super().__init__()
        self.model, self.options, self.overlap_head = model, options, overlap_head

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """The loss, None without labels, and logits at every place.

        Args:
            pixel_values: (B, V, 3, h, w) as the original's data set gives them, or (B, 3, h, w) for one view.
            input_ids: int64 (B, L).
            attention_mask: int64 (B, L); default all 1.
            labels: int64 (B, L).

        Returns:
            mean cross-entropy over the labels, and logits (B, T, vocabulary) of words and text.
        """
        embeds, mask, fused = self.fuse(pixel_values, input_ids, attention_mask, labels)
        language = self.model.language
        assert language is not None
        logits = language.lm(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
        if fused is None:
            return None, logits
        loss = F.cross_entropy(logits[:, :-1].float().mT, fused[:, 1:], ignore_index=IGNORED)
        return loss, logits

    def words(self, pixel_values: Tensor) -> Tensor:
        """Words (B, N, D) of the language model."""
        views = pixel_values[:, None] if pixel_values.ndim == 4 else pixel_values
        tokens = self.model.resample(self.model.encode(views))
        if self.options.layout == "as_published":
            tokens = tokens.flatten(0, 1)[: len(views), None]
        return self._projector(tokens.shape[1])(tokens, self.model.directions)

    def fuse(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Fused:
        """Words and text in one row, filled up at the end; arguments as for `forward`."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.model.fuse(self.words(pixel_values), self._ids(input_ids), mask, labels)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        *,
        max_new_tokens: int = 32,
        repetition_penalty: float = 1.0,
    ) -> Tensor:
        """Likeliest ids (B, G) after prompts (B, P) of one length."""
        embeds, mask, _ = self.fuse(pixel_values, input_ids)
        language = self.model.language
        assert language is not None
        decoding = Greedy(max_new_tokens, repetition_penalty=repetition_penalty)
        return language.generate(embeds, mask, decoding)

    def _ids(self, input_ids: Tensor) -> Tensor:
        place = self.options.panorama_id
        return input_ids if place is None else input_ids.masked_fill(input_ids == place, PANORAMA)

    def _projector(self, num_views: int) -> Projector:
        """The projector for so many views, with the weights that are there."""
        given = self.model.projector
        assert given is not None
        return published_projector(given.linear, given.in_grid, num_views, self.options)


def published_projector(linear: nn.Linear, grid: Size | None, num_views: int, options: Options) -> Projector:
    """The projector of so many views with a linear layer that is there.

    Args:
        linear: the layer.
        grid: (rows, columns) of a view's tokens; None: they have none.
        num_views: with the whole panorama, where that comes first.
        options: order of the words, code of places and the like.
    """
    whole = options.whole_first and num_views > 1
    ring = [View(0.0, 0.0, (90.0, 90.0))] * (num_views - whole)
    views: Sequence[View | None] = [None, *ring] if whole else ring
    projector = Projector(
        linear.in_features,
        linear.out_features,
        views=views,
        grid=grid,
        stitch=options.stitch,
        overlap=options.overlap,
        position=options.position,
    )
    projector.linear = linear
    return projector.to(linear.weight.device)


def options_of(generation: str, told: Mapping[str, Any]) -> Options:
    """A generation's usual options, with those that are told on top."""
    if generation == "head":
        return Options(
            **({"stitch": "stride_views", "position": "columns", "whole_first": True} | dict(told))
        )
    return Options(**told)
