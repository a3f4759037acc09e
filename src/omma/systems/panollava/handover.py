"""What a training takes over from another one: an earlier stage's, or one without adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omma.engine.task import TakenOver
from omma.errors import CheckpointError
from omma.systems.panollava.lora import is_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from omma.systems.panollava.config import Stage

TOKENIZER = "tokenizer"  # name of the task's mark in its state dict
_TOWER = "model.vision."
_BEHIND = {
    "model.resampler.": "resampler",
    "model.projector.": "projector",
    "model.language.": "language model",
}
_MARK_BYTES = 7  # so that the number is a positive int64


def tokenizer_mark(tokenizer: PreTrainedTokenizerBase | None) -> Tensor:
    """A number, int64 (), that tells tokenizers of other entries apart; 0 for none."""
    if tokenizer is None:
        return torch.tensor(0)
    entries = json.dumps(sorted(tokenizer.get_vocab().items()))
    digest = hashlib.sha256(entries.encode()).digest()
    return torch.tensor(int.from_bytes(digest[:_MARK_BYTES], "big"))


def take_over(state: Mapping[str, Tensor], own: Mapping[str, Tensor], stage: Stage) -> TakenOver:
    """The weights that a stage starts from.

    Stage vision takes the image tower of any stage. Stage resampler also starts from a tower alone. A
    language model's adapters may be missing; they change nothing at first.

    Args:
        state: of the other training, under the names of the task's state dict.
        own: the task's state dict.
        stage: the task's.

    Raises:
        CheckpointError: stage finetune would start from a tower alone.
    """
    if stage == "vision":
        left = [name for start, name in _BEHIND.items() if _has(state, start)]
        kept = {name: value for name, value in state.items() if name.startswith(_TOWER)}
        return TakenOver(kept | {TOKENIZER: own[TOKENIZER]}, missing=[], left=left)
    absent = {start: name for start, name in _BEHIND.items() if not _has(state, start)}
    if absent and stage == "finetune":
        raise CheckpointError(
            f"stage finetune starts from stage resampler's weights; these lack {_listed(absent.values())}",
            "train panollava/resampler from them first, and start from that; --partial takes the tower alone",
        )
    filled = {name: value for name, value in own.items() if name.startswith(tuple(absent))}
    adapters = {name: value for name, value in own.items() if is_adapter(name) and name not in state}
    missing = [*absent.values(), *(["adapters"] if adapters and len(absent) < len(_BEHIND) else [])]
    mark = state.get(TOKENIZER)
    if mark is None or not int(mark):  # of a published file, or of stage vision
        filled[TOKENIZER] = own[TOKENIZER]
    return TakenOver({**state, **filled, **adapters}, missing=missing, left=[])


def check_mark(mark: Tensor | None, own: Tensor, name: str) -> None:
    """Make sure that weights were trained with this tokenizer.

    Args:
        mark: theirs.
        own: this one's.
        name: of it, for the message.

    Raises:
        CheckpointError: they were not.
    """
    if mark is not None and int(mark) != int(own):
        raise CheckpointError(
            f"the weights were trained with another tokenizer than {name}: its numbers mean other words",
            "give system.language.name and system.language.tokenizer as they were trained with",
        )


def _has(state: Mapping[str, Tensor], start: str) -> bool:
    return any(name.startswith(start) for name in state)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
