"""The language model: ids and panorama words to a loss, and to answers.

Logits are computed where a label exists and nowhere else: over the words of a panorama they would take most
of the memory and teach nothing. Shapes: B samples, L ids, N panorama words, D features of a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omma.errors import DataError
from omma.systems.panollava.lora import add_adapters, is_adapter, plain_name
from omma.systems.panollava.pretrained import causal_model
from omma.systems.panollava.text import IGNORED, PANORAMA

if TYPE_CHECKING:
    from omma.systems.panollava.config import LanguageSection, LoraSection
    from omma.systems.panollava.text import Conversation


class Decoding(Protocol):
    """How answers are written; `system.generate` of a recipe is one."""

    @property
    def max_new_tokens(self) -> int:
        """Longest answer."""

    @property
    def temperature(self) -> float:
        """Of sampling; 0 takes the likeliest id each time."""

    @property
    def top_p(self) -> float:
        """Share of probability that is sampled from."""

    @property
    def top_k(self) -> int:
        """Number of ids that are sampled from."""

    @property
    def repetition_penalty(self) -> float:
        """Factor against ids that the answer has already; 1: none."""


class Fused(NamedTuple):
    """Text with the panorama's words in it; T = L + N less the placeholders.

    Args:
        embeds: (B, T, D).
        mask: int64 (B, T), 1 where something stands.
        labels: int64 (B, T), -100 where nothing is learned; None if none were given.
    """

    embeds: Tensor
    mask: Tensor
    labels: Tensor | None


class LanguageModel(nn.Module):
    """A causal language model of transformers, whose state dict holds tied weights once.

    Args:
        lm: the model; adapters, if any, are on it already.
        stop_ids: that end an answer.
        pad_id: fills up answers that ended early.
    """

    def __init__(self, lm: nn.Module, *, stop_ids: Collection[int], pad_id: int) -> None:
        super().__init__()
        from transformers import GenerationConfig

        self.lm = lm
        self.stop_ids, self.pad_id = list(stop_ids), pad_id
        self.lm.generation_config = GenerationConfig()  # the published one would sample behind our back
        self.width: int = lm.get_input_embeddings().weight.shape[1]
        self.register_state_dict_post_hook(_to_plain_names)
        self.register_load_state_dict_pre_hook(_from_plain_names)

    @property
    def adapters(self) -> list[nn.Parameter]:
        """Parameters of low-rank adapters; empty without them."""
        return [parameter for name, parameter in self.named_parameters() if is_adapter(name)]

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (B, L, D) of ids (B, L); those of the placeholder mean nothing."""
        return self.lm.get_input_embeddings()(ids.clamp(min=0))

    def forward(self, embeds: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the next id over all labels of the batch, in 32 bits.

        Args:
            embeds: (B, T, D).
            mask: (B, T).
            labels: int64 (B, T), at the place of the id itself.

        Returns:
            the loss, and logits (M, V) that predict the M labels, sample by sample.

        Raises:
            DataError: there is no label.
        """
        following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        learned = following != IGNORED
        places = learned.any(0).nonzero()[:, 0]
        if not len(places):
            raise DataError(
                "a batch has no answer to learn from", hint="raise system.text.max_length or drop such rows"
            )
        output = self.lm(inputs_embeds=embeds, attention_mask=mask, logits_to_keep=places, use_cache=False)
        logits = output.logits[learned[:, places]]
        return F.cross_entropy(logits.float(), following[learned]), logits

    @torch.no_grad()
    def generate(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Ids (B, G) of answers, each up to its stop token and filled up behind it.

        Args:
            embeds: of prompts (B, T, D), filled up at the start.
            mask: (B, T).
            decoding: temperature 0 takes the likeliest id each time.
        """
        options: dict[str, Any] = {"do_sample": decoding.temperature > 0}
        if decoding.temperature > 0:
            options |= {name: getattr(decoding, name) for name in ("temperature", "top_p", "top_k")}
        if decoding.repetition_penalty != 1.0:
            options["repetition_penalty"] = decoding.repetition_penalty
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Passing `repetition_penalty`")  # of new ids alone: meant
            return self.lm.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=self.stop_ids or None,
                pad_token_id=self.pad_id,
                use_cache=True,
                **options,
            )

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The model's layers."""
        lists = [module for module in self.lm.modules() if isinstance(module, nn.ModuleList)]
        return list(lists[0]) if lists else []


def build_language(
    settings: LanguageSection, lora: LoraSection | None, conversation: Conversation
) -> LanguageModel:
    """The language model that a recipe describes; its table of embeddings grows if the tokenizer needs it.

    Raises:
        ConfigError: it cannot be had, or its adapters cannot.
        CheckpointError: weights are missing in it.
    """
    entries = len(conversation.tokenizer)
    lm = causal_model(settings, entries=entries)
    if entries > lm.get_input_embeddings().weight.shape[0]:
        lm.resize_token_embeddings(entries)
    if lora is not None:
        add_adapters(lm, lora)
    return LanguageModel(lm, stop_ids=conversation.stop_ids, pad_id=conversation.pad_id)


def fuse(
    text: Tensor,
    ids: Tensor,
    mask: Tensor,
    words: Tensor,
    *,
    labels: Tensor | None = None,
    left: bool = False,
) -> Fused:
    """Put the panorama's words where the first placeholder stands, or before the text.

    Args:
        text: embeddings of the ids, (B, L, D).
        ids: (B, L); placeholders are taken out.
        mask: (B, L).
        words: (B, N, D).
        labels: (B, L).
        left: whether rows are filled up at the start, as for generation.
    """
    holes = ids == PANORAMA
    count, length = words.shape[1], ids.shape[1]
    start = torch.where(holes.any(1), holes.int().argmax(1), mask.int().argmax(1))[:, None]
    place = torch.arange(length, device=ids.device).expand_as(ids)
    place = place + count * (place >= start)
    place = place.masked_fill(holes, -1 if left else length + count)
    between = start + torch.arange(count, device=ids.device)
    order = torch.cat([place, between], dim=1).argsort(dim=1, stable=True)
    common = int(holes.sum(1).min())  # every row has at least so many placeholders less
    order = order[:, common:] if left else order[:, : order.shape[1] - common]
    present = (mask.bool() & ~holes).long()
    ones = torch.ones_like(between)
    embeds = torch.cat([text.masked_fill(holes[..., None], 0), words.to(text.dtype)], dim=1)
    return Fused(
        embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[-1])),
        torch.cat([present, ones], dim=1).gather(1, order),
        None if labels is None else torch.cat([labels, IGNORED * ones], dim=1).gather(1, order),
    )


def _tied(module: nn.Module) -> dict[str, str]:
    """Name of each further appearance of a parameter -> name of the first."""
    first: dict[int, str] = {}
    again = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            again[name] = kept
    return again


def _to_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in _tied(module):
        state.pop(f"{prefix}{name}", None)
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        state[f"{prefix}{plain_name(name.removeprefix(prefix))}"] = value


def _from_plain_names(module: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    tied = _tied(module)
    for name, _ in module.named_parameters(remove_duplicate=False):
        plain = plain_name(name)
        if plain != name and f"{prefix}{plain}" in state:
            state[f"{prefix}{name}"] = state.pop(f"{prefix}{plain}")
    _fit_rows(module, state, prefix)
    for name, kept in tied.items():
        if f"{prefix}{kept}" in state:
            state[f"{prefix}{name}"] = state[f"{prefix}{kept}"]


def _fit_rows(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Tables of words of another length: rows beyond the shorter one keep their values, or are left out."""
    tables = {id(layer.weight) for layer in _tables(module)}
    for name, own in module.named_parameters():
        found = state.get(f"{prefix}{name}")
        if id(own) not in tables or found is None or found.shape == own.shape:
            continue
        if found.shape[1:] == own.shape[1:]:
            rows = min(len(found), len(own))
            fitted = own.detach().clone()
            fitted[:rows] = found[:rows]
            state[f"{prefix}{name}"] = fitted
            warnings.warn(f"{name}: {len(found)} rows put into a table of {len(own)}", stacklevel=2)


def _tables(module: nn.Module) -> list[nn.Module]:
    layers = (module.lm.get_input_embeddings(), module.lm.get_output_embeddings())
    return [layer for layer in layers if layer is not None]
