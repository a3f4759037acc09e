"""How likely answers are from tokens of views, sample by sample; what the diagnosis and the studies compare.

Shapes: B samples, V views, S tokens of one, D features, L ids, P ids of a prompt, G of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omma.engine.task import Batch
from omma.systems.panollava.language import fuse
from omma.systems.panollava.model import PanoLLaVA
from omma.systems.panollava.task import PanoTask
from omma.systems.panollava.text import IGNORED, collate_text

GREY = 128  # of the view that stands for one that is left out


class Written(NamedTuple):
    """An answer.

    Args:
        text: without special tokens.
        stopped: whether the model ended it itself.
    """

    text: str
    stopped: bool


def encode_views(task: PanoTask, batch: Batch) -> Tensor:
    """The tower's tokens (B, V, S, D) of a batch's views."""
    return task.model.encode(task.model.vision.normalise(batch["views"]))


def grey_tokens(task: PanoTask, tokens: Tensor) -> Tensor:
    """The tower's tokens of views that show nothing, as many as `tokens` (B, V, S, D) has."""
    height, width = task.config.data.views.image_size
    views = torch.full((1, 1, 3, height, width), GREY, dtype=torch.uint8, device=tokens.device)
    return encode_views(task, {"views": views}).to(tokens.dtype).expand_as(tokens)


def text_batch(task: PanoTask, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Ids of (question, answer) pairs on the task's device; see `samples.Collate`."""
    assert task.conversation is not None, "stage vision has no text"
    examples = [task.conversation.encode(*pair) for pair in pairs]
    batch = collate_text(examples, task.conversation.pad_id)
    return {name: value.to(task.device) for name, value in batch.items()}


@torch.no_grad()
def answer_losses(model: PanoLLaVA, tokens: Tensor, batch: Batch) -> Tensor:
    """Mean loss (B,) of an answer's ids, each sample by itself; NaN where it has no answer.

    Args:
        model: of a stage with a language model.
        tokens: of the tower, (B, V, S, D).
        batch: input_ids, attention_mask, labels (B, L).
    """
    assert model.language is not None
    known = (batch["labels"] != IGNORED).any(1)
    losses = tokens.new_full((len(tokens),), float("nan"), dtype=torch.float32)
    if not known.any():
        return losses
    rows = (batch[name][known] for name in ("input_ids", "attention_mask", "labels"))
    embeds, mask, labels = model.fuse(model.words(tokens[known]), *rows)
    assert labels is not None
    _, logits = model.language(embeds, mask, labels)
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    learned = following != IGNORED
    each = F.cross_entropy(logits.float(), following[learned], reduction="none")
    place = learned.nonzero()[:, 0]
    counts = learned.sum(1)
    losses[known] = each.new_zeros(len(counts)).index_add(0, place, each) / counts
    return losses


@torch.no_grad()
def write_answers(task: PanoTask, tokens: Tensor, batch: Batch) -> list[Written]:
    """The B answers.

    Args:
        task: of a stage with a language model.
        tokens: of the tower, (B, V, S, D).
        batch: prompt_ids, prompt_mask (B, P).
    """
    model, talk = task.model, task.conversation
    assert model.language is not None
    assert talk is not None
    prompts = batch["prompt_ids"], batch["prompt_mask"]
    embeds, mask, _ = fuse(model.language.embed(prompts[0]), *prompts, model.words(tokens), left=True)
    ids = model.language.generate(embeds, mask, task.config.system.generate).tolist()
    return [Written(talk.decode(row), bool(set(talk.stop_ids) & set(row))) for row in ids]
