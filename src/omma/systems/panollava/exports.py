"""What leaves omma: from views to the language model's words as one graph, and the model as a folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omma.systems.panollava.lora import merge_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from omma.systems.panollava.language import LanguageModel
    from omma.systems.panollava.model import PanoLLaVA

LANGUAGE_FOLDER = "language"
_PROBE_LENGTH = 8


class PanoramaWords(nn.Module):
    """Tower, resampler and projector: normalised views (B, V, 3, h, w) -> words (B, N, D).

    Args:
        model: the network, shared.
    """

    def __init__(self, model: PanoLLaVA) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Tensor) -> Tensor:
        """The words that the language model reads."""
        return self.model.words(self.model.encode(views))


@torch.no_grad()
def write_language(language: LanguageModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> float:
    """Write the language model, its adapters worked in, and its tokenizer as a folder of transformers.

    Args:
        language: to write.
        tokenizer: the one it was trained with.
        folder: made if needed.

    Returns:
        largest difference of logits between the model and the folder read back.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    plain = copy.deepcopy(language.lm).cpu().eval()
    merge_adapters(plain)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder).eval()
    entries = plain.get_input_embeddings().weight.shape[0]
    ids = torch.arange(_PROBE_LENGTH)[None] % entries
    own = language.lm.cpu().eval()(input_ids=ids).logits
    return float((own - again(input_ids=ids).logits).abs().max())
